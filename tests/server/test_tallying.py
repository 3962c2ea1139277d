"""Ended attempts are tallied, each of them once, whatever happens to those who do it."""

import random
import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from bson import ObjectId
from pymongo.client_session import ClientSession

from banyan.server.app import Silent
from banyan.server.calls import Context
from banyan.server.store import orphans, tallies
from banyan.server.store.mongo import Store
from banyan.server.upkeep import duties
from tests.harness import eventually
from tests.server.worlds import NOW, WINDOW, World, id_of


def _counted(world: World) -> int:
    return sum(
        int(value)
        for name, value in tallies.tallied(world.store).items()
        if name.startswith("ended/")
    )


def _ended(world: World) -> int:
    return sum(one["time_terminated"] is not None for one in world.attempts)


def test_two_servers_at_once_tally_each_attempt_once(world: World, monkeypatch: pytest.MonkeyPatch):
    world.fill(random.Random(5), 400)
    monkeypatch.setattr(tallies, "ATTEMPTS_AT_ONCE", 20)
    threads = [threading.Thread(target=world.tally) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    world.tally()
    assert _counted(world) == _ended(world)


_TALLYING = """
import sys
from datetime import UTC, datetime, timedelta
from banyan.server.store import tallies
from banyan.server.store.mongo import Store
tallies.ATTEMPTS_AT_ONCE = 3
store = Store(sys.argv[1])
while tallies.advance(store, datetime.now(UTC) + timedelta(days=1)):
    pass
"""


def test_killed_in_the_middle_it_goes_on_and_tallies_each_attempt_once(world: World):
    world.fill(random.Random(6), 300)
    with subprocess.Popen([sys.executable, "-c", _TALLYING, world.uri]) as tallying:
        eventually(lambda: tallies.state(world.store).version > 5)
        tallying.kill()
    idle: orphans.Idle = {}
    for _ in range(2):  # what it has left open is found by looking twice, as upkeep does
        idle = orphans.end(world.store, idle)
    assert 0 < _counted(world) < _ended(world)
    world.tally()
    assert _counted(world) == _ended(world)


class Killed(Exception):
    """Here a process would have ended."""


def test_killed_right_before_the_end_nothing_was_written(
    world: World, monkeypatch: pytest.MonkeyPatch
):
    world.fill(random.Random(11), 60)

    def killed(store: Store, work: Callable[[ClientSession], Any]) -> None:
        with store.client.start_session() as session:

            def work_and_die(session: ClientSession) -> None:
                work(session)
                raise Killed

            session.with_transaction(work_and_die)

    with monkeypatch.context() as patch:
        patch.setattr(Store, "transaction", killed)
        with pytest.raises(Killed):
            world.tally()
    assert _counted(world) == 0
    world.tally()
    assert _counted(world) == _ended(world)


def test_what_has_not_ended_is_tallied_when_it_has(world: World):
    world.fill(random.Random(7), 200)
    world.tally()
    before = _counted(world)
    running = [one for one in world.attempts if one["time_terminated"] is None]
    assert set(tallies.state(world.store).open) == {one["_id"] for one in running}
    end = {"time_terminated": NOW, "exit_status": "success"}
    world.store["attempts"].update_many({"time_terminated": None}, {"$set": end})
    world.tally()
    assert _counted(world) == before  # workers hold them still: their ends may not be the last word
    world.store["tasks"].update_many({"state": "running"}, {"$set": {"state": "terminated"}})
    world.tally()
    world.tally()
    assert _counted(world) == before + len(running)
    assert tallies.state(world.store).open == ()


def test_an_attempt_that_is_written_late_is_found_while_it_is_held(world: World):
    world.fill(random.Random(8), 50)
    world.tally()
    before = _counted(world)
    late = id_of(NOW - timedelta(hours=9))
    holder = {"attempt": late, "worker": ObjectId()}
    task = {"_id": ObjectId(), "owner": "alice", "state": "running", "holder": holder}
    world.store["tasks"].insert_one({**task, "queue": "q", "outcome": None})
    for _ in range(2):  # its record is still to come, and may be for long
        world.tally()
        assert late in tallies.state(world.store).open
    attempt = {"_id": late, "task": task["_id"], "owner": "alice", "exit_status": "success",
               "time_started": NOW, "time_terminated": NOW, "_updated": NOW}  # fmt: skip
    world.store["attempts"].insert_one(attempt)
    world.store["tasks"].update_one({"_id": task["_id"]}, {"$set": {"state": "terminated"}})
    world.tally()
    assert _counted(world) == before + 1


def test_tallies_outlive_the_attempts(world: World):
    world.fill(random.Random(9), 200)
    world.tally()
    before = world.ask("operator", buckets=7, **WINDOW)
    world.store["attempts"].delete_many({"time_terminated": {"$ne": None}})
    world.tally()
    after = world.ask("operator", buckets=7, **WINDOW)
    assert after.pop("buckets")[:-1] == before.pop("buckets")[:-1]  # the last one goes on
    assert after == before


def test_upkeep_tallies_and_samples(world: World):
    world.fill(random.Random(10), 100)
    for duty in (duties.tally, duties.sample):
        duty(Context(world.store, Silent()))
    claimed = [one for one in world.attempts if one["_id"].generation_time < NOW]
    assert _counted(world) == sum(one["time_terminated"] is not None for one in claimed)
    told = world.ask("alice", "/workers/statistics", window="2 minutes", buckets=2)
    assert told["buckets"][-1]["count"] == 0
    assert "capacity" in told["buckets"][-1]


def test_a_seldom_duty_is_done_again_at_once_where_it_has_left_something(world: World):
    left = [True, True, False]

    def some(context: Context) -> bool:
        return left.pop(0)

    duty = duties.Seldom(3600, some)
    for _ in range(5):
        duty(world.context)
    assert left == []
