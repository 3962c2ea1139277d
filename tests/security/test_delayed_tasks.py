"""Tasks that wait for their time, and claims that ask for short ones, are in nobody's way."""

import time
from collections.abc import Callable
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from bson import ObjectId

from banyan.domain.scheduling import span
from banyan.server import alarm, represent
from banyan.server.alarm import Alarm
from banyan.server.calls import Context, Silent
from banyan.server.store import claims, tasks
from banyan.server.store.mongo import now
from banyan.server.upkeep import duties
from banyan.server.upkeep.loop import Upkeep
from tests.contract.playing import RESOURCES, Player
from tests.harness import Server, eventually
from tests.server.explained import Bench, Item

MANY = 1000
HOUR = 3_600_000
FAR = "2099-01-01T00:00:00Z"
ALIKE: Item = {"requested_resources": {"cores": 1}}

pytestmark = pytest.mark.usefixtures("nothing_remembered")


def claimed(bench: Bench, worker: str, **more: Any) -> list[str]:
    body = {"worker": worker, "max": 1, **more}
    return [one["_id"] for one in bench.ask("worker", "POST", "/tasks/claim", body)["_items"]]


def looked_at(bench: Bench, work: Callable[[], Any]) -> int:
    """How many entries of indexes and documents the database looks at for what is read."""
    sent = bench.during(work)
    reads = [one for one in sent if {"find", "aggregate", "distinct"} & one.keys()]
    return sum(bench.examined(one, what) for one in reads for what in ("Keys", "Docs"))


def test_a_claim_walks_over_none_that_wait_for_their_time(bench: Bench):
    bench.submit(MANY, **ALIKE, priority=10**9, not_before=FAR)
    ids, worker = bench.submit(1, **ALIKE), bench.worker()
    got: list[str] = []
    assert looked_at(bench, lambda: got.extend(claimed(bench, worker))) < 20
    assert got == ids
    assert looked_at(bench, lambda: claimed(bench, worker)) < 20


def test_upkeep_walks_over_none_that_were_cancelled(bench: Bench):
    ids = bench.submit(MANY, not_before=FAR)
    bench.ask("provider", "POST", "/tasks/cancel", {"targets": ids})
    bench.store["tasks"].update_many({}, {"$set": {"wake_at": now() - timedelta(hours=1)}})
    bench.submit(MANY)
    assert looked_at(bench, lambda: tasks.owners_due(bench.store)) == 0


def test_very_many_that_are_due_hold_up_no_lease(bench: Bench, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(duties, "WOKEN_MAX", 10)
    own = Alarm()
    monkeypatch.setattr(duties, "ALARM", own)
    ids = bench.submit(25, **ALIKE, not_before=FAR)
    past = now() - timedelta(hours=1)
    bench.store["tasks"].update_many({}, {"$set": {"wake_at": past}})
    context, worker = Context(bench.store, Silent()), bench.worker()
    for _ in range(2):
        duties.delays(context)
        assert own.wait(1), "there are more"
    duties.delays(context)
    assert not own.wait(0.01)
    assert len(bench.claim(worker, 25)) == len(ids)


def test_what_was_claimed_by_its_name_before_upkeep_came_is_no_longer_delayed(bench: Bench):
    (task,) = bench.submit(1, not_before=FAR)
    past = now() - timedelta(seconds=1)
    bench.store["tasks"].update_many({}, {"$set": {"wake_at": past}})
    body = {"state": "running", "update_execution_data": {"worker": bench.worker()}}
    bench.ask("worker", "PATCH", f"/tasks/{task}", body)
    duties.delays(Context(bench.store, Silent()))
    assert bench.store["tasks"].find_one({"_id": ObjectId(task)})["state"] == "running"


def test_the_soonest_moments_are_kept(monkeypatch: pytest.MonkeyPatch):
    """Else many of the distant future would push out those of the next second."""
    monkeypatch.setattr(alarm, "_TIMES_MAX", 10)
    own = Alarm()
    for number in range(100):
        own.set(now() + timedelta(days=100 - number))
    own.set(now())
    assert own.wait(1)
    assert len(own._times) < 20
    assert not own.wait(0.01)


def test_of_many_that_wait_for_one_moment_it_is_kept_once(monkeypatch: pytest.MonkeyPatch):
    """Else they would push out those who wait a little longer."""
    monkeypatch.setattr(alarm, "_TIMES_MAX", 10)
    own, moment = Alarm(), now()
    own.set(moment + timedelta(milliseconds=1))
    for _ in range(100):
        own.set(moment)
    assert len(own._times) == 2


def test_it_is_claimed_at_its_moment_not_at_the_next_round(serve: Callable[..., Server]):
    server = serve(UPKEEP_SECONDS=600)
    body = {"host": "h", "resources": RESOURCES}
    worker = server.worker.post("workers", body).json()["_id"]
    due = (now() + timedelta(seconds=1)).isoformat()
    task = {"command": "x", "state": "available", "not_before": due}
    made = server.provider.post("tasks", task).json()
    answer = server.worker.post("tasks/claim", {"worker": worker}, wait=50)
    assert [one["_id"] for one in answer.json()["_items"]] == [made["_id"]]
    assert now().isoformat() >= due


def test_upkeep_that_waits_for_a_moment_ends_at_once(bench: Bench, monkeypatch: pytest.MonkeyPatch):
    seldom = SimpleNamespace(UPKEEP_SECONDS=600)
    monkeypatch.setattr("banyan.server.upkeep.loop.knobs", lambda: seldom)
    upkeep = Upkeep(bench.store.uri, Silent())
    upkeep.start()
    upkeep.stop()
    assert not [thread for thread in upkeep._threads if thread.is_alive()]


def test_so_is_a_retry(serve: Callable[..., Server]):
    server = serve(UPKEEP_SECONDS=600)
    body = {"host": "h", "resources": RESOURCES}
    worker = server.worker.post("workers", body).json()["_id"]
    retried = {"max_attempt_count": 2, "retry_delay_milliseconds": 500}
    server.provider.post("tasks", {"command": "x", "state": "available", **retried})
    (item,) = server.worker.post("tasks/claim", {"worker": worker}).json()["_items"]
    end = {"token": item["token"], "exit_status": "failure (1)", "time_terminated": FAR}
    ended = {"state": "terminated", "update_execution_data": end}
    assert server.worker.patch(f"tasks/{item['_id']}", ended).status_code == 200
    eventually(
        lambda: server.worker.post("tasks/claim", {"worker": worker}).json()["_items"],
    )


def test_so_is_a_child_whose_parent_has_ended(serve: Callable[..., Server]):
    server = serve(UPKEEP_SECONDS=600)
    player = Player(server.worker, "default")
    parent = server.provider.post("tasks", {"command": "x", "state": "available"}).json()["_id"]
    due = (now() + timedelta(seconds=2)).isoformat()
    waits = {"command": "x", "state": "available", "after": [parent], "not_before": due}
    child = server.provider.post("tasks", waits).json()["_id"]
    player.end(player.claim_one(parent).json())
    answer = server.worker.post("tasks/claim", {"worker": player.id}, wait=50)
    assert [one["_id"] for one in answer.json()["_items"]] == [child]
    assert now().isoformat() >= due


def test_whose_time_comes_while_it_is_stored_is_woken_too(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
):
    """Claims pass it by until its mark is taken off, so nobody is to look for it before."""
    said: list[str] = []

    class Heard(Silent):
        def signal(self, topic: str, **more: Any) -> None:
            said.append(topic)

    own = Alarm()
    monkeypatch.setattr(represent, "ALARM", own)
    stored = {"_id": ObjectId(), "state": "available", "wake_at": now() - timedelta(seconds=1)}
    represent.announce(Context(bench.store, Heard()), [stored])
    assert own.wait(1)
    assert not [topic for topic in said if topic.startswith("available")]


# --- Claims that ask for what ends in time -----------------------------------------------------


def test_spans_are_in_order_and_narrow():
    times = [*range(5000), *(3**n for n in range(8, 34)), 2**53]
    spans = [span(one) for one in times]
    assert spans == sorted(spans)
    assert span(2**53) < 250
    for one in times[10:]:
        assert span(one) < span(one + one // 3 + 1)


@pytest.mark.parametrize("within", [0, 1000, HOUR])
def test_a_claim_walks_over_none_that_last_too_long(bench: Bench, within: int):
    bench.submit(MANY, **ALIKE, priority=10**9, timeout_milliseconds=10 * HOUR)
    ids, worker = bench.submit(1, **ALIKE), bench.worker()
    got: list[str] = []
    more = {"ends_within_milliseconds": within}
    assert looked_at(bench, lambda: got.extend(claimed(bench, worker, **more))) < 20
    assert got == ids


def test_of_those_that_last_nearly_as_long_a_bounded_number_is_looked_at(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(claims, "_EDGE_MAX", 50)
    bench.submit(MANY, **ALIKE, priority=10**9, timeout_milliseconds=HOUR + 1)
    shorter = bench.submit(1, **ALIKE, timeout_milliseconds=HOUR // 2)
    worker, got = bench.worker(), list[str]()
    more = {"ends_within_milliseconds": HOUR}
    assert looked_at(bench, lambda: got.extend(claimed(bench, worker, **more))) < 150
    assert got == shorter


@pytest.mark.parametrize("within", [HOUR - 1, HOUR, HOUR + 1])
def test_it_is_exact_to_the_millisecond(bench: Bench, within: int):
    (task,) = bench.submit(1, timeout_milliseconds=HOUR)
    found = claimed(bench, bench.worker(), ends_within_milliseconds=within)
    assert found == ([task] if within >= HOUR else [])


def test_a_changed_estimate_counts(bench: Bench):
    (task,) = bench.submit(1, state="inactive", estimated_runtime_milliseconds=10 * HOUR)
    worker, more = bench.worker(), {"ends_within_milliseconds": HOUR}
    changed = {"estimated_runtime_milliseconds": HOUR, "state": "available"}
    bench.ask("provider", "PATCH", f"/tasks/{task}", changed)
    assert claimed(bench, worker, **more) == [task]


def test_who_does_not_ask_gets_the_first_whatever_it_lasts(bench: Bench):
    ids = [
        one
        for n in range(30)
        for one in bench.submit(1, **ALIKE, priority=-n, timeout_milliseconds=2**n)
    ]
    got = bench.claim(bench.worker(), 30)
    assert [one["_id"] for one in got] == ids


def test_what_stands_before_a_task_is_told_however_long_it_lasts(bench: Bench):
    bench.worker()
    for more in ({}, {"timeout_milliseconds": 1}, {"timeout_milliseconds": HOUR}):
        (task,) = bench.submit(1, **ALIKE, **more)
    (cause,) = bench.ask("provider", "GET", f"/tasks/{task}/explain")["causes"]
    assert cause["ahead"] == 2


def test_time_goes_on_for_the_alarm():
    own, began = Alarm(), time.monotonic()
    moment = now() + timedelta(milliseconds=50)
    own.set(moment)
    assert own.wait(10)
    assert now() >= moment
    assert time.monotonic() - began < 5
