"""Claims: who gets which task, in which order, and that nobody gets one twice."""

import json
import uuid
from collections.abc import Callable
from functools import partial

import pytest

from tests.contract.playing import Play, Player, at_once, word
from tests.harness import Server


@pytest.fixture
def play(server: Server) -> Play:
    return Play(server)


FREE = {"cores": 4, "memory": "4 GiB"}


def ids(items: list[dict[str, object]]) -> list[object]:
    return [item["_id"] for item in items]


def test_a_claim_by_name_answers_with_the_task_and_its_token(play: Play):
    (task,) = play.submit()
    player = play.player()
    answer = player.claim_one(task)
    assert answer.status_code == 200
    assert answer.json()["state"] == "running"
    assert answer.json()["token"]
    assert play.task(task)["attempt_count"] == 1


def test_the_action_claim_of_an_item_is_the_same(play: Play):
    (task,) = play.submit()
    player = play.player()
    answer = player.api.post(f"tasks/{task}/claim", {"worker": player.id})
    assert answer.status_code == 200
    assert answer.json()["token"]
    assert play.task(task)["state"] == "running"


def test_a_claim_makes_the_record_of_an_attempt(play: Play):
    (task,) = play.submit()
    player = play.player()
    claimed = player.claim_one(task).json()
    (attempt,) = play.attempts(task)
    assert attempt["_id"] == claimed["attempt_id"]
    assert attempt["task"] == task
    assert attempt["worker"] == player.id
    assert attempt["attempt_count"] == 1
    assert attempt["granted_resources"]["cores"] == 1
    assert attempt["granted_resources"]["memory_bytes"] == 128 * 2**20
    assert attempt["time_claimed"]
    assert attempt["time_started"] is None
    assert attempt["time_terminated"] is None


@pytest.mark.parametrize("state", ["running", "pending_cancellation"])
def test_a_claim_of_a_task_that_runs_is_a_conflict_also_for_its_holder(play: Play, state: str):
    (task,) = play.submit()
    player = play.player()
    player.claim_one(task)
    if state == "pending_cancellation":
        play.server.provider.post(f"tasks/{task}/cancel")
    answer = player.claim_one(task)
    expected = (409, "conflict") if state == "running" else (422, "illegal_transition")
    assert word(answer) == expected
    assert answer.json()["state"] == state
    assert play.task(task)["attempt_count"] == 1


@pytest.mark.parametrize("state", ["inactive", "cancelled"])
def test_a_task_that_is_not_available_is_not_claimed(play: Play, state: str):
    (task,) = play.submit(state="inactive")
    play.server.provider.patch(f"tasks/{task}", {"state": state})
    assert word(play.player().claim_one(task)) == (422, "illegal_transition")
    assert play.task(task)["state"] == state


def test_a_claim_names_its_worker(play: Play):
    (task,) = play.submit()
    answer = play.server.worker.patch(f"tasks/{task}", {"state": "running"})
    assert word(answer) == (422, "invalid")
    assert "worker" in answer.json()["_issues"]["update_execution_data"]
    assert play.task(task)["state"] == "available"


def test_nobody_claims_for_a_worker_of_another_account(play: Play):
    (task,) = play.submit()
    player = play.player()
    other = Player(play.server.account("worker", name=uuid.uuid4().hex), play.queue)
    other.id = player.id
    assert word(other.claim_one(task)) == (404, "not_found")
    assert play.task(task)["state"] == "available"


def test_a_claim_of_many_gets_tasks_that_fit_together_each_with_its_token(play: Play):
    tasks = play.submit(5, requested_resources={"cores": 2})
    items = play.player().claim(10)  # four cores
    assert ids(items) == tasks[:2]
    assert len({item["token"] for item in items}) == 2
    assert [item["granted_resources"]["cores"] for item in items] == [2, 2]
    assert [play.task(task)["state"] for task in tasks] == ["running"] * 2 + ["available"] * 3


@pytest.mark.parametrize(
    ("request_", "count"),
    [
        ({"cores": 0, "memory": "2 GiB"}, 2),
        ({"cores": 0, "disk": "4 GiB"}, 2),
        ({"cores": 0, "gpus": 1}, 2),
        ({"cores": 0, "gpus": [{"memory": "16 GiB"}]}, 1),
        ({"cores": 0, "custom": {"licences": 1.5}}, 2),
        ({"cpu_cores": {"percent": 50}}, 2),
        ({"custom": {"unknown": 1}}, 0),
    ],
)
def test_every_kind_of_resource_is_counted(play: Play, request_: dict[str, object], count: int):
    play.submit(3, requested_resources=request_)
    resources = {
        "cores": 4,
        "memory": "4 GiB",
        "disk": "10 GiB",
        "gpus": [{"memory": "8 GiB"}, {"memory": "24 GiB"}],
        "custom": {"licences": 3},
    }
    assert len(play.player(resources=resources).claim(10)) == count


def test_what_a_worker_holds_is_not_free_for_its_next_claim(play: Play):
    play.submit(6)
    player = play.player()
    assert len(player.claim(3)) == 3
    assert len(player.claim(10)) == 1


def test_fits_says_what_is_free(play: Play):
    play.submit(3)
    player = play.player()
    assert player.claim(10, fits={"cores": 0}) == []
    assert len(player.claim(10, fits={"cores": 2, "memory": "1 GiB"})) == 2


def test_fits_that_makes_no_sense_is_refused(play: Play):
    player = play.player()
    body = {"worker": player.id, "fits": {"cores": -1}}
    answer = player.api.post("tasks/claim", body)
    assert word(answer) == (422, "invalid")
    assert "fits" in answer.json()["_issues"]


def test_the_same_claim_id_gets_the_same_tasks(play: Play):
    play.submit(6)
    player = play.player()
    first = player.claim(2, claim_id="one")
    again = player.claim(2, claim_id="one")
    assert [(i["_id"], i["token"]) for i in again] == [(i["_id"], i["token"]) for i in first]
    other = player.claim(2, claim_id="two")
    assert not set(ids(other)) & set(ids(first))
    assert len(play.player().claim(10)) == 2  # nothing more was taken than was answered


def test_a_claim_id_is_known_again_after_other_claims(play: Play):
    play.submit(12)
    player = play.player()
    first = player.claim(1, claim_id="first")
    others = [player.claim(1, claim_id=f"other {number}") for number in range(9)]
    assert ids(player.claim(1, claim_id="first")) == ids(first)
    assert ids(player.claim(1, claim_id="other 0")) == ids(others[0])


def test_the_same_claim_id_gets_the_same_tasks_also_at_one_moment(play: Play):
    """As when a worker breaks off a claim and sends it again while the first is answered."""
    for _ in range(10):
        play.submit(3)
        player = play.player()
        claims = [lambda p=player: p.claim(1, claim_id="one") for _ in range(3)]
        answers = at_once(claims)
        assert len({item["_id"] for items in answers for item in items}) == 1
        assert len(play.player().claim(10)) == 2, "nothing more was taken than was answered"


def test_a_claim_that_got_nothing_may_be_repeated_until_it_does(play: Play):
    player = play.player()
    assert [player.claim(1, claim_id="one") for _ in range(3)] == [[], [], []]
    submitted = play.submit(2)
    assert ids(player.claim(1, claim_id="one")) == submitted[:1]
    assert ids(player.claim(1, claim_id="one")) == submitted[:1]


def test_a_new_kind_of_task_goes_first_at_once_if_it_is_more_important(play: Play):
    """Which kinds wait is remembered for a moment; not so that this one is overlooked."""
    player = play.player()
    play.submit(30)
    for number in range(10):
        player.claim(1, fits=FREE)
        cores = {"requested_resources": {"cores": 2, "memory": 1000 + number}}
        (urgent,) = play.submit(priority=10, **cores)
        assert ids(player.claim(1, fits=FREE)) == [urgent]


def test_a_new_kind_of_task_is_found_at_once_where_nothing_else_waits(play: Play):
    player = play.player()
    for number in range(10):
        (task,) = play.submit(requested_resources={"cores": 1, "memory": 2000 + number})
        assert ids(player.claim(4, fits=FREE)) == [task]


def test_a_claim_id_is_its_workers_own(play: Play):
    play.submit(2)
    one, two = play.player(), play.player()
    assert ids(one.claim(1, claim_id="x")) != ids(two.claim(1, claim_id="x"))


def test_a_repeated_claim_leaves_out_what_has_ended(play: Play):
    play.submit(3)
    player = play.player()
    first, second = player.claim(2, claim_id="one")
    assert player.end(first).status_code == 200
    assert ids(player.claim(2, claim_id="one")) == [second["_id"]]


def test_a_claim_waits_for_work(play: Play):
    player = play.player()
    (task,), items = at_once([play.submit, lambda: player.claim(1, wait=30)])
    if not items:  # the claim was answered first
        items = player.claim(1)
    assert ids(items) == [task]


def test_a_claim_that_waits_comes_back_with_nothing_when_its_time_is_up(play: Play):
    assert play.player().claim(1, wait=0.3) == []


def test_priority_comes_first_then_age(play: Play):
    old_low = play.submit(2, priority="low")
    middle = play.submit(2)
    high = play.submit(1, priority=7)
    assert ids(play.player(resources={"cores": 9, "memory": "9 GiB"}).claim(9)) == [
        *high,
        *middle,
        *old_low,
    ]


def test_a_task_that_does_not_fit_is_passed_over(play: Play):
    (large,) = play.submit(requested_resources={"cores": 4})
    (small,) = play.submit(requested_resources={"cores": 1})
    player = play.player()
    assert ids(player.claim(1, fits={"cores": 1})) == [small]
    assert play.task(large)["state"] == "available"


def test_a_large_task_is_not_starved_by_small_ones(serve: Callable[..., Server]):
    play = Play(serve(STARVATION_SECONDS=0))
    player = play.player()
    play.submit(2, requested_resources={"cores": 1})
    held = player.claim(2)
    (large,) = play.submit(requested_resources={"cores": 4})
    play.submit(4, requested_resources={"cores": 1})
    assert player.claim(4) == []  # two cores are free, and kept for the large one
    for item in held:
        player.end(item)
    assert ids(player.claim(4)) == [large]


def test_a_task_too_large_for_a_worker_does_not_hold_it_back(serve: Callable[..., Server]):
    play = Play(serve(STARVATION_SECONDS=0))
    play.submit(requested_resources={"cores": 64})
    small = play.submit(2)
    assert ids(play.player().claim(4)) == small


def test_memory_that_ended_tasks_have_left_taken_holds_nobody_back(serve: Callable[..., Server]):
    """Else a task that waits for it would keep an idle worker from all that come after it."""
    play = Play(serve(STARVATION_SECONDS=0))
    player = play.player(resources={"cores": 4, "memory": "4 GiB"})
    stuck = {"cores": 0, "memory_bytes": 3 << 30, "gpu_count": 0}
    player.beat(used={"cores": 0, "memory_bytes": 0, "stuck": stuck})
    (large,) = play.submit(requested_resources={"cores": 1, "memory": "2 GiB"})
    small = play.submit(2, requested_resources={"cores": 1, "memory": "256 MiB"})
    free = {"cores": 4, "memory": "1 GiB"}
    assert ids(player.claim(4, fits=free, ahead=4)) == small
    player.beat(used={"cores": 0, "memory_bytes": 0})
    assert ids(player.claim(4)) == [large]


def test_a_worker_gets_only_tasks_of_its_queues_and_labels(play: Play):
    play.submit(queue="elsewhere")
    play.submit(labels={"zone": "a"})
    (mine,) = play.submit(labels={"zone": "b"})
    assert ids(play.player(labels={"zone": "b", "more": "x"}).claim(9)) == [mine]


def test_a_claim_by_name_needs_the_labels_too(play: Play):
    (task,) = play.submit(labels={"zone": "a"})
    assert word(play.player().claim_one(task)) == (422, "invalid")
    assert play.task(task)["state"] == "available"


def test_a_claim_may_name_fewer_queues_than_the_worker_serves(play: Play):
    (other,) = play.submit(queue=f"{play.queue}-b")
    play.submit()
    player = play.player(queues=[play.queue, f"{play.queue}-b"])
    assert ids(player.claim(9, queues=[f"{play.queue}-b"])) == [other]


def test_a_task_is_not_claimed_before_its_time(play: Play):
    (later,) = play.submit(not_before="2100-01-01T00:00:00Z")
    (past,) = play.submit(not_before="2000-01-01T00:00:00Z")
    player = play.player()
    assert ids(player.claim(9)) == [past]
    assert word(player.claim_one(later)) == (422, "illegal_transition")


def test_of_simultaneous_claims_of_one_task_one_wins(serve: Callable[..., Server]):
    play = Play(serve(server_processes=2))
    players = [play.player() for _ in range(12)]
    for _ in range(5):
        (task,) = play.submit()
        answers = at_once([partial(player.claim_one, task) for player in players])
        assert sorted(answer.status_code for answer in answers) == [200] + [409] * 11
        losers = [answer.json() for answer in answers if answer.status_code == 409]
        assert {loser["_error"]["word"] for loser in losers} == {"conflict"}
        assert {loser["state"] for loser in losers} == {"running"}
        (winner,) = [answer.json() for answer in answers if answer.status_code == 200]
        (attempt,) = play.attempts(task)
        assert attempt["_id"] == winner["attempt_id"]


def test_simultaneous_claims_of_many_never_share_a_task(serve: Callable[..., Server]):
    play = Play(serve(server_processes=2))
    tasks = play.submit(60)
    players = [play.player(resources={"cores": 10, "memory": "10 GiB"}) for _ in range(8)]
    taken = [item for items in at_once([partial(p.claim, 10) for p in players]) for item in items]
    for player in players:  # what was lost in the race is still there for those with room
        taken += player.claim(10)
    assert sorted(ids(taken)) == sorted(tasks)
    assert all(len(play.attempts(task)) == 1 for task in tasks)


def test_a_claim_of_many_may_start_the_attempts_at_once(play: Play):
    (task,) = play.submit()
    player = play.player()
    player.claim(1, start=True)
    (attempt,) = play.attempts(task)
    assert attempt["time_started"] == attempt["time_claimed"]
    assert play.player().steal(1) == []


def test_a_claim_may_ask_for_what_ends_in_time(play: Play):
    hour = 3_600_000
    long = play.submit(estimated_runtime_milliseconds=2 * hour, timeout_milliseconds=3 * hour)
    long += play.submit(timeout_milliseconds=2 * hour)
    short = play.submit(estimated_runtime_milliseconds=hour, timeout_milliseconds=2 * hour)
    short += play.submit(timeout_milliseconds=hour) + play.submit()
    player = play.player()
    assert sorted(ids(player.claim(9, ends_within_milliseconds=hour))) == sorted(short)
    assert sorted(ids(play.player().claim(9))) == sorted(long)


def test_a_thief_may_ask_for_what_ends_in_time(play: Play):
    play.submit(estimated_runtime_milliseconds=2000)
    play.player().claim(1)
    thief = play.player()
    assert thief.steal(1, ends_within_milliseconds=1999) == []
    assert len(thief.steal(1, ends_within_milliseconds=2000)) == 1


# --- where it ran --------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["claimed by name", "claimed", "stolen"])
def test_a_task_and_its_attempts_say_on_which_host_they_ran(play: Play, how: str):
    (task, other) = play.submit(2)
    player = play.player(host="rack7")
    if how == "claimed by name":
        claimed = player.claim_one(task).json()
    elif how == "claimed":
        claimed = next(one for one in player.claim(2) if one["_id"] == task)
    else:
        play.player(host="rack8").claim(2)
        (claimed,) = player.steal(1)
    assert player.end(claimed, "failure (1)").status_code == 200
    gone = play.server.operator.delete(f"workers/{player.id}")
    assert gone.status_code == 204
    assert play.task(claimed["_id"])["host"] == "rack7"
    hosts = [attempt["host"] for attempt in play.attempts(claimed["_id"])]
    assert hosts == (["rack8", "rack7"] if how == "stolen" else ["rack7"])
    where = {"host": "rack7", "queue": play.queue, "outcome": "failure"}
    listed = play.server.provider.get("tasks", where=json.dumps(where)).json()["_items"]
    assert ids(listed) == [claimed["_id"]]
    if how == "claimed by name":
        assert play.task(other)["host"] is None
