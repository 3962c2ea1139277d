"""Attempts of thousands of queues that end at once: each has tallies of its own, and none waits."""

import threading
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import pytest
from bson import ObjectId
from pymongo import UpdateOne
from pymongo.errors import OperationFailure

from banyan.server.app import Silent
from banyan.server.store import tallies
from banyan.server.store.mongo import now
from banyan.server.upkeep import duties
from banyan.server.upkeep.loop import Upkeep
from tests.harness import eventually
from tests.security.watched import WATCH
from tests.server.worlds import World, id_of


def minutes_ago(minutes: int) -> datetime:
    """By the clock: what is much older than the database is not tallied."""
    return now() - timedelta(minutes=minutes)


def end() -> dict[str, Any]:
    return {"time_terminated": minutes_ago(3), "exit_status": "success"}


def attempts_in_many_queues(count: int) -> list[dict[str, Any]]:
    began = minutes_ago(7)
    return [
        {
            "_id": id_of(began),
            "task": ObjectId(),
            "owner": ("alice", "bob")[number % 2],
            "queue": f"{number:05}".ljust(128, "q"),
            "granted_resources": {"cores": 1, "memory_bytes": 1, "gpu_count": 0},
            "time_available": began,
            "time_started": began,
            "time_terminated": None,
            "_updated": now(),
        }
        for number in range(count)
    ]


def ended_at_once(world: World, count: int) -> None:
    """Attempts that ran in as many queues with long names, were known to run, and end together."""
    world.store["attempts"].insert_many(attempts_in_many_queues(count))
    world.tally()
    assert len(tallies.state(world.store).open) == count
    world.store["attempts"].update_many({}, {"$set": end()})


def counted(world: World) -> float:
    return tallies.tallied(world.store).get("ended/success", 0)


def test_one_transaction_changes_so_many_tallies_at_most(
    world: World, monkeypatch: pytest.MonkeyPatch
):
    """All of them stood in one, which was larger than the database's cache, in each round anew."""
    monkeypatch.setattr(tallies, "TALLIES_AT_ONCE", 100)
    ended_at_once(world, 60)
    WATCH.reset()
    world.tally()
    written: dict[Any, int] = {}
    for command in WATCH.commands:
        if command.get("update") == "tallies":
            number = command["txnNumber"]
            written[number] = written.get(number, 0) + len(command["updates"])
    assert len(written) >= 5
    assert max(written.values()) <= 100 + 1  # and the state
    assert counted(world) == 60
    assert tallies.state(world.store).open == ()


def test_never_more_is_left_open_than_is_taken_at_once(
    world: World, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(tallies, "ATTEMPTS_AT_ONCE", 10)
    monkeypatch.setattr(tallies, "TALLIES_AT_ONCE", 50)
    ended_at_once(world, 60)
    start = {"upto": ObjectId("0" * 24), "open": []}
    world.store["tallies"].update_one({"_id": "state"}, {"$set": start})
    left = []
    while tallies.advance(world.store, now()):
        left.append(len(tallies.state(world.store).open))
    assert 0 < max(left) <= 10
    assert counted(world) == 60


def test_what_is_refused_for_its_size_is_tried_with_fewer(
    world: World, monkeypatch: pytest.MonkeyPatch
):
    ended_at_once(world, 60)
    write, refused = tallies._write_together, []

    def written(store: Any, known: Any, after: Any, updates: Sequence[UpdateOne]) -> None:
        if len(updates) > 70:
            refused.append(len(updates))
            raise OperationFailure("transaction is too large", 388)
        write(store, known, after, updates)

    monkeypatch.setattr(tallies, "_write_together", written)
    world.tally()
    assert refused
    assert counted(world) == 60
    assert tallies.state(world.store).open == ()


def test_what_is_not_tallied_yet_is_told_however_much_it_is(world: World):
    """What the database answered was one document, and larger than there may be: 413."""
    attempts = attempts_in_many_queues(24_000)
    world.store["attempts"].insert_many([{**one, **end()} for one in attempts])
    told = world.ask("operator", window="1 hour", buckets=1)
    assert told["ended"] == {"success": 24_000}
    own = world.ask("alice", window="1 hour", buckets=1, where={"queue": "00002".ljust(128, "q")})
    assert own["ended"] == {"success": 1}


def test_leases_never_wait_for_the_tallies(world: World, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("BANYAN_UPKEEP_SECONDS", "0.05")
    tallying, done, rounds = threading.Event(), threading.Event(), []

    def advance(*_: Any) -> bool:
        tallying.set()
        done.wait(60)
        return False

    def mark_lost(*_: Any) -> list[Any]:
        if tallying.is_set():
            rounds.append(1)
        return []

    monkeypatch.setattr(duties.tallies, "advance", advance)
    monkeypatch.setattr(duties.workers, "mark_lost", mark_lost)
    upkeep = Upkeep(world.uri, Silent())
    upkeep.start()
    try:
        eventually(lambda: len(rounds) >= 3)
    finally:
        done.set()
        upkeep.stop()
