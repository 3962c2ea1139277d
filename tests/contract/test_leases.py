"""Leases: how long a worker keeps what it claimed, and what it hears while it does."""

import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from bson import ObjectId
from pymongo import MongoClient
from pymongo.uri_parser import parse_uri

from tests.contract.playing import Item, Play, at_once, chunk, held, now, word
from tests.contract.playing import play as play
from tests.harness import Processes, Server, eventually, start_server
from tests.harness.mongo import database

LEASE_SECONDS = 1.0
MARGIN_SECONDS = 0.5


@pytest.fixture(scope="module")
def short(mongo: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with leases so short that a test can see them end."""
    directory = tmp_path_factory.mktemp("short")
    own = Processes(directory)
    knobs = {"LEASE_SECONDS": LEASE_SECONDS, "LEASE_MARGIN_SECONDS": MARGIN_SECONDS}
    with database(mongo) as uri:
        yield start_server(own, directory / "data", uri, UPKEEP_SECONDS=0.1, **knobs)
        own.end()


@pytest.fixture
def lapsing(short: Server) -> Play:
    return Play(short)


def becomes(play: Play, task: str, state: str) -> None:
    eventually(lambda: play.task(task)["state"] == state)


# --- How long a lease lasts ----------------------------------------------------------------


def test_a_knob_of_the_environment_says_how_long_a_lease_lasts(play: Play, lapsing: Play):
    assert play.player().registered["lease_seconds"] == 60
    assert play.player().registered["lease_margin_seconds"] == 15
    assert lapsing.player().registered["lease_seconds"] == LEASE_SECONDS
    assert lapsing.player().beat().json()["lease_seconds"] == LEASE_SECONDS


def test_a_lost_worker_is_told_in_the_log(lapsing: Play, short: Server):
    lapsing.player(host="rack7")
    eventually(lambda: "lost, as nothing was heard of them" in short.started.stderr)
    assert "rack7" in short.started.stderr


def test_one_beat_renews_the_lease_of_all_of_a_workers_attempts(lapsing: Play):
    tasks = lapsing.submit(3)
    beating, silent = lapsing.player(), lapsing.player()
    beating.claim(2)
    silent.claim(1)

    def silent_is_lost() -> bool:
        assert beating.beat().status_code == 200
        return lapsing.task(tasks[2])["state"] == "available"

    for _ in range(2):  # two leases and more
        eventually(silent_is_lost)
        (again,) = lapsing.player().claim(1)
        assert again["_id"] == tasks[2]
    assert [lapsing.task(task)["state"] for task in tasks[:2]] == ["running", "running"]
    assert [lapsing.task(task)["attempt_count"] for task in tasks[:2]] == [1, 1]


def test_a_task_is_given_out_again_only_after_the_lease_and_the_margin(lapsing: Play):
    (task,) = lapsing.submit()
    lapsing.player().claim(1)
    renewed = time.monotonic()
    other = lapsing.player()

    def again() -> list[Item]:
        assert other.beat().status_code == 200
        return other.claim(1)

    (item,) = eventually(again)
    # What the server did before it answered the claim is not in this: a little less, then.
    assert time.monotonic() - renewed > LEASE_SECONDS + MARGIN_SECONDS - 0.1
    assert item["_id"] == task
    assert item["attempt_count"] == 2


def test_a_lost_attempt_is_recorded_as_lost_and_counted_apart_from_failures(lapsing: Play):
    player, task, _ = held(lapsing, max_attempt_count=1, max_lost_count=3)
    becomes(lapsing, task, "available")
    (attempt,) = lapsing.attempts(task)
    assert attempt["exit_status"] == "lost"
    assert attempt["time_terminated"]
    assert attempt["worker"] == player.id
    again = lapsing.player()
    (second,) = again.claim(1)
    assert again.end(second).status_code == 200
    assert lapsing.task(task)["outcome"] == "success"


def test_past_max_lost_count_the_task_ends_as_lost(lapsing: Play):
    _, task, _ = held(lapsing, max_lost_count=0)
    becomes(lapsing, task, "terminated")
    assert lapsing.task(task)["outcome"] == "lost"


def test_a_cancelled_task_of_a_lost_worker_becomes_cancelled(lapsing: Play):
    _, task, _ = held(lapsing)
    lapsing.server.provider.post(f"tasks/{task}/cancel")
    assert lapsing.task(task)["state"] == "pending_cancellation"
    becomes(lapsing, task, "cancelled")


def test_a_worker_that_wakes_up_late_can_change_nothing(lapsing: Play):
    player, task, item = held(lapsing)
    becomes(lapsing, task, "available")
    before = lapsing.task(task), lapsing.attempts(task)
    lost = (409, "lease_lost")
    assert word(player.beat()) == lost
    assert word(player.beat(attempts=[item["attempt_id"]])) == lost
    assert word(player.end(item)) == lost
    assert word(player.report(item, time_started=now())) == lost
    assert word(player.report(item, log=[chunk(0, b"late")])) == lost
    assert word(player.claim_one(task)) == lost
    assert word(player.api.post("tasks/claim", {"worker": player.id})) == lost
    assert word(player.api.post("tasks/steal", {"worker": player.id})) == lost
    assert word(player.api.post(f"tasks/{task}/release", {"token": item["token"]})) == lost
    player.api.post("tasks/release", {"tokens": [item["token"]]})
    assert (lapsing.task(task), lapsing.attempts(task)) == before
    assert lapsing.server.provider.get(f"tasks/{task}/log").content == b""


def test_a_late_worker_can_change_nothing_about_the_next_attempt(lapsing: Play):
    player, task, item = held(lapsing)
    becomes(lapsing, task, "available")
    other = lapsing.player()
    (second,) = other.claim(1)
    assert word(player.end(item, "failure (1)")) == (409, "lease_lost")
    other.report(second, log=[chunk(0, b"second")])
    assert word(player.report(item, log=[chunk(6, b"first")])) == (409, "lease_lost")
    assert lapsing.server.provider.get(f"tasks/{task}/log").content == b"second"
    assert other.end(second).json()["outcome"] == "success"


def test_a_lost_worker_is_shown_as_lost(lapsing: Play):
    player = lapsing.player()
    shown = lambda: lapsing.server.operator.get(f"workers/{player.id}").json()["mode"]  # noqa: E731
    assert shown() == "active"
    eventually(lambda: shown() == "lost")


# --- What a beat's answer carries ----------------------------------------------------------


def test_a_quiet_beat_carries_nothing(play: Play):
    player, _, item = held(play)
    answer = player.beat(attempts=[item["attempt_id"]]).json()
    nothing = {"cancel": [], "lost": [], "wanted": {"number": 0, "attempts": []}}
    assert answer == {"lease_seconds": 60, "mode": "active", **nothing}


def test_a_beat_carries_cancellations(play: Play):
    player, task, item = held(play)
    play.server.provider.post(f"tasks/{task}/cancel")
    assert player.beat().json()["cancel"] == [
        {"task": task, "attempt": item["attempt_id"], "force": False}
    ]
    player.end(item, "cancelled", "cancelled")
    assert player.beat().json()["cancel"] == []


def test_a_beat_that_waits_hears_of_a_cancellation_at_once(play: Play):
    player, task, item = held(play)
    start = time.monotonic()
    answer, _ = at_once(
        [
            lambda: player.beat(wait=30, attempts=[item["attempt_id"]]),
            lambda: play.server.provider.post(f"tasks/{task}/cancel"),
        ]
    )
    if not answer.json()["cancel"]:  # it was answered before the cancellation came
        answer = player.beat(wait=30)
    assert answer.json()["cancel"] == [
        {"task": task, "attempt": item["attempt_id"], "force": False}
    ]
    assert time.monotonic() - start < 10


def test_a_beat_carries_drain(play: Play):
    player = play.player()
    play.submit()
    assert play.server.operator.post(f"workers/{player.id}/drain").status_code == 200
    assert player.beat().json()["mode"] == "draining"
    assert player.claim(1) == []


def test_a_beat_carries_what_is_no_longer_its_workers(play: Play):
    player, _, item = held(play)
    gone = uuid.uuid4().hex[:24]
    answer = player.beat(attempts=[item["attempt_id"], gone])
    assert answer.json()["lost"] == [gone]
    play.player().steal(1)
    assert player.beat(attempts=[item["attempt_id"]]).json()["lost"] == [item["attempt_id"]]


def test_what_a_worker_has_not_heard_of_is_given_back_after_a_while(
    play: Play, module_database: str
):
    player, task, item = held(play)
    assert player.beat(attempts=[]).status_code == 200
    assert play.task(task)["state"] == "running"  # the answer to its claim may be on its way
    ahead = datetime.now(UTC) + timedelta(hours=1)  # as a server wrote it whose clock was wrong
    with MongoClient[dict[str, Any]](module_database) as client:
        tasks = client[str(parse_uri(module_database)["database"])]["tasks"]
        tasks.update_one({"_id": ObjectId(task)}, {"$set": {"holder.claimed": ahead}})

    eventually(lambda: player.beat(attempts=[]) and play.task(task)["state"] == "available", 40)
    assert word(player.end(item)) == (409, "lease_lost")


def test_who_takes_over_gives_back_at_once_what_it_does_not_know(play: Play):
    player, task, item = held(play)
    (kept,) = play.submit()
    (other,) = player.claim(1)
    assert player.beat(attempts=[other["attempt_id"]], takes_over=1).json()["lost"] == []
    assert play.task(task)["state"] == "available"
    assert play.task(kept)["state"] == "running"
    assert word(player.end(item)) == (409, "lease_lost")


def test_a_takeover_that_arrives_late_or_twice_gives_nothing_back(play: Play):
    player = play.player()
    assert player.beat(attempts=[], takes_over=2).status_code == 200
    (task,) = play.submit()
    (item,) = player.claim(1)
    for number in (1, 2):
        assert player.beat(attempts=[], takes_over=number).status_code == 200
    assert play.task(task)["state"] == "running"
    assert player.end(item).status_code == 200


# --- Steal ---------------------------------------------------------------------------------


def test_an_idle_worker_takes_what_another_has_claimed_and_not_started(play: Play):
    (task,) = play.submit()
    victim, thief = play.player(), play.player()
    (first,) = victim.claim(1)
    (stolen,) = thief.steal(1)
    assert stolen["_id"] == task
    assert stolen["token"] != first["token"]
    assert [one["worker"] for one in play.attempts(task)] == [victim.id, thief.id]
    assert thief.end(stolen).status_code == 200


def test_a_stolen_task_never_starts_on_the_first(play: Play):
    victim, _, item = held(play)
    thief = play.player()
    (stolen,) = thief.steal(1)
    assert word(victim.report(item, time_started=now())) == (409, "lease_lost")
    assert thief.report(stolen, time_started=now()).status_code == 200


def test_what_has_started_is_not_stolen(play: Play):
    victim, _, item = held(play)
    assert victim.report(item, time_started=now()).status_code == 200
    assert play.player().steal(1) == []
    assert victim.end(item).status_code == 200


def test_of_a_start_and_a_theft_at_one_moment_one_wins(play: Play):
    for _ in range(10):
        victim, _, item = held(play)
        thief = play.player()
        started, stolen = at_once(
            [lambda v=victim, i=item: v.report(i, time_started=now()), lambda t=thief: t.steal(1)]
        )
        assert (started.status_code == 200) != (len(stolen) == 1)
        winner = (thief, stolen[0]) if stolen else (victim, item)
        assert winner[0].end(winner[1]).status_code == 200


def test_a_thief_takes_half_of_what_the_fullest_has_and_what_that_comes_to_last(play: Play):
    tasks = play.submit(4)
    victim, other, thief = play.player(), play.player(), play.player()
    victim.claim(3)
    other.claim(1)
    assert [item["_id"] for item in thief.steal(9)] == [tasks[2], tasks[1]]


def test_a_claim_that_says_so_steals_where_nothing_waits(play: Play):
    tasks = play.submit(2)
    victim, thief = play.player(), play.player()
    victim.claim(2)
    assert thief.claim(1) == []
    (waiting,) = play.submit(1)
    assert [item["_id"] for item in thief.claim(1, steal=True)] == [waiting], "what waits first"
    assert [item["_id"] for item in thief.claim(1, steal=True)] == [tasks[1]]


def test_a_thief_takes_only_what_fits_it(play: Play):
    small, large = {"cores": 1}, {"cores": 4}
    (wanted,) = play.submit(requested_resources=small)
    play.submit(1, requested_resources=large)
    victim = play.player(resources={"cores": 8, "memory": "8 GiB"})
    assert len(victim.claim(2)) == 2
    thief = play.player(resources={"cores": 1, "memory": "1 GiB"})
    assert [item["_id"] for item in thief.steal(1)] == [wanted]


def test_a_thief_looks_past_the_fullest_whose_tasks_it_may_not_take(play: Play):
    play.submit(3, labels={"zone": "a"})
    (wanted,) = play.submit()
    fullest, other = play.player(labels={"zone": "a"}), play.player()
    assert len(fullest.claim(3)) == 3
    assert [item["_id"] for item in other.claim(1)] == [wanted]
    assert [item["_id"] for item in play.player().steal(1)] == [wanted]


def test_what_was_claimed_ahead_is_asked_for_and_stays_with_its_worker_until_given_back(play: Play):
    """Only who claimed it, to start it without asking, knows whether it has begun."""
    tasks = play.submit(5, requested_resources={"cores": 1})
    victim, thief = play.player(), play.player()
    first, *line = victim.claim(1, fits={"cores": 1}, start=True, ahead=4)
    assert [item["_id"] for item in [first, *line]] == tasks
    assert thief.steal(1, start=True) == []
    wanted = victim.beat(wanted_number=0).json()["wanted"]
    assert wanted == {"number": 1, "attempts": [line[3]["attempt_id"], line[2]["attempt_id"]]}
    assert {task["worker"] for one in tasks for task in play.attempts(one)} == {victim.id}
    tokens = {"tokens": [line[3]["token"]], "reason": "handed over"}
    assert victim.api.post("tasks/release", tokens).status_code == 200
    (taken,) = thief.claim(1, fits={"cores": 1}, start=True)
    assert taken["_id"] == tasks[4]
    assert [one.get("reason") for one in play.attempts(tasks[4])] == ["handed over", None]
    assert word(victim.end(line[3])) == (409, "lease_lost")
    assert victim.end(line[2]).status_code == 200


def test_what_is_wanted_is_told_once_and_at_once(play: Play):
    play.submit(3, requested_resources={"cores": 1})
    victim = play.player()
    victim.claim(1, fits={"cores": 1}, start=True, ahead=2)

    asks = [lambda: victim.beat(wait=20, wanted_number=0), lambda: play.player().steal(1)]
    heard, _ = at_once(asks)
    assert heard.json()["wanted"]["number"] == 1
    assert len(heard.json()["wanted"]["attempts"]) == 1
    again = victim.beat(wait=0.2, wanted_number=1).json()["wanted"]
    assert again == {"number": 1, "attempts": []}


def test_a_worker_is_asked_once_for_each_task(play: Play):
    """What it has not handed over by then runs there, and may do so for long."""
    play.submit(4, requested_resources={"cores": 1})
    victim, thieves = play.player(), [play.player() for _ in range(3)]
    _, *line = victim.claim(1, fits={"cores": 1}, start=True, ahead=3)
    for thief in thieves:
        assert thief.steal(1) == []
    wanted = victim.beat(wanted_number=0).json()["wanted"]
    assert wanted == {"number": 2, "attempts": [item["attempt_id"] for item in reversed(line)]}


def test_a_busy_worker_asks_nobody(play: Play):
    play.submit(3, requested_resources={"cores": 1})
    victim = play.player()
    victim.claim(1, fits={"cores": 1}, start=True, ahead=2)
    assert play.player().steal(1, fits={"cores": 0}, start=True, ahead=2) == []
    assert victim.beat(wanted_number=0).json()["wanted"]["number"] == 0


def test_a_thief_takes_some_ahead_of_need(play: Play):
    tasks = play.submit(8, requested_resources={"cores": 1})
    hoarder = play.player(resources={"cores": 8, "memory": "8 GiB"})
    assert len(hoarder.claim(8)) == 8
    stolen = play.player().steal(1, fits={"cores": 1}, start=True, ahead=2)
    assert [item["_id"] for item in stolen] == tasks[:-4:-1]


def test_thieves_at_one_moment_all_get_something(play: Play):
    play.submit(64, requested_resources={"cores": 1})
    hoarder = play.player(resources={"cores": 64, "memory": "64 GiB"})
    assert len(hoarder.claim(64)) == 64
    thieves = [play.player() for _ in range(6)]
    stolen = at_once([lambda one=thief: one.steal(2, fits={"cores": 2}) for thief in thieves])
    assert all(stolen)
    taken = [item["_id"] for items in stolen for item in items]
    assert len(taken) == len(set(taken))


def test_nobody_steals_from_itself(play: Play):
    player, _, _ = held(play)
    assert player.steal(1) == []
