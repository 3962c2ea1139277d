"""Claims ahead of need: bounded by time, in order, and never in the way of others."""

from itertools import pairwise
from typing import Any

from banyan.domain.resources import Grant
from banyan.worker.ahead import PATIENCE_SECONDS, WINDOW_SECONDS, Ahead
from tests.worker.crew import Crew

ONE_CORE: dict[str, Any] = {"requested_resources": {"cores": 1}}


def claimed(attempt: str, cores: int = 1) -> dict[str, Any]:
    return {"attempt_id": attempt, "granted_resources": Grant(cores=cores).to_json()}


def test_as_much_is_wanted_as_has_ended_lately() -> None:
    ahead = Ahead()
    for number in range(10):
        ahead.ended(number * WINDOW_SECONDS / 100)
    assert ahead.wanted(WINDOW_SECONDS / 10) == 10
    assert ahead.wanted(10 * WINDOW_SECONDS) == 0, "where tasks take long nothing is wanted"


def test_nothing_more_is_wanted_until_half_of_the_line_is_used_up() -> None:
    ahead = Ahead()
    for number in range(10):
        ahead.ended(0)
        if number < 5:
            ahead.add(claimed(str(number)), 0)
    assert ahead.wanted(0) == 0
    ahead.drop("0")
    assert ahead.wanted(0) == 6


def test_the_line_goes_on_in_order_with_what_there_is_room_for() -> None:
    ahead = Ahead()
    for attempt, cores in (("first", 1), ("large", 2), ("last", 1)):
        ahead.add(claimed(attempt, cores), 0)
    taken = ahead.take(lambda claimed: "here" if claimed.grant.cores == 1 else None)
    assert [(claimed.task["attempt_id"], place) for claimed, place in taken] == [
        ("first", "here"),
        ("last", "here"),
    ]
    assert ahead.attempts == ["large"]


def test_where_there_is_no_place_for_one_nobody_asks_for_the_next_of_its_kind() -> None:
    ahead = Ahead()
    for number in range(100):
        ahead.add(claimed(str(number), cores=1 + number % 2), 0)
    asked: list[int] = []
    assert not list(ahead.take(lambda one: asked.append(int(one.grant.cores))))
    assert asked == [1, 2]


def test_what_waits_elsewhere_on_the_machine_counts() -> None:
    ahead = Ahead()
    for _ in range(10):
        ahead.ended(0)
    assert ahead.wanted(0, behind=4) == 6
    assert ahead.wanted(0, behind=5) == 0


def test_what_has_waited_too_long_is_given_back() -> None:
    ahead = Ahead()
    ahead.add(claimed("early"), 0)
    ahead.add(claimed("late"), 0.5)
    assert ahead.next_overdue() == PATIENCE_SECONDS
    assert [task["attempt_id"] for task in ahead.overdue(PATIENCE_SECONDS)] == ["early"]
    assert ahead.attempts == ["late"]


def test_what_an_idle_worker_wants_is_handed_over_where_it_still_waits() -> None:
    ahead = Ahead()
    for name in ("first", "middle", "last"):
        ahead.ended(0)
        ahead.ended(0)
        ahead.add(claimed(name), 0)
    ahead.drop("middle")  # it has started
    handed_over = ahead.hand_over(["middle", "last"])
    assert [task["attempt_id"] for task in handed_over] == ["last"]
    assert ahead.attempts == ["first"]
    assert ahead.wanted(0) == 0, "who has shared does not take it again at once"


def test_short_tasks_behind_a_long_one_run_on_an_idle_worker(crew: Crew) -> None:
    crew.worker("busy", "--cores", "1")
    crew.registered("busy")
    warm = [crew.submit(["/bin/true"], **ONE_CORE) for _ in range(60)]
    long = crew.submit("sleep 30", **ONE_CORE)
    short = [crew.submit(["/bin/true"], **ONE_CORE) for _ in range(20)]
    for task in warm:
        crew.ended(task)
    crew.worker("idle", "--cores", "1")
    for task in short:
        assert crew.ended(task)["outcome"] == "success"
    assert crew.state_of(long) == "running"
    assert all(len(crew.attempts(task)) <= 2 for task in short), "given back once, if at all"


def test_what_was_claimed_ahead_says_when_it_really_began(crew: Crew) -> None:
    crew.worker("one", "--cores", "1")
    tasks = [crew.submit(["/bin/sleep", "0.02"], **ONE_CORE) for _ in range(40)]
    for task in tasks:
        crew.ended(task)
    attempts = sorted((crew.attempts(task)[-1] for task in tasks), key=lambda a: a["time_started"])
    for before, after in pairwise(attempts):
        assert before["time_terminated"] <= after["time_started"], "one core, one after another"
