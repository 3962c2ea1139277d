"""Amounts as large as there may be, and larger ones that an earlier version has stored.

However they are added up, nobody's statistics, metrics or samples end with them.
"""

from datetime import datetime, timedelta
from typing import Any

import pytest
from bson import ObjectId

from banyan.domain.tallies import RESOURCES
from banyan.domain.units import LARGEST
from banyan.server.calls import Context, Silent
from banyan.server.store import measured, samples, tallies
from banyan.server.store.mongo import now
from banyan.server.upkeep import duties
from tests.contract.asking import new_id
from tests.contract.playing import RESOURCES as ROOM
from tests.security.watched import send
from tests.server.worlds import World, id_of

STORED = 2**63 - 1  # what an earlier version took in, and the database has room for
WHO = ("alice", "operator")

REQUESTS: list[dict[str, Any]] = [
    {"memory": LARGEST + 1},
    {"memory": "8.1 PiB"},
    {"disk": STORED},
    {"gpus": [{"memory": LARGEST + 1}]},
    {"custom": {"licences": 2.0**54}},
    {"cores": 1_000_001},
    {"cpu_memory_bytes": LARGEST + 1},
    {"disk_bytes": LARGEST + 1},
    {"gpu_memory_bytes": LARGEST + 1},
]
CAPACITIES = [one for one in REQUESTS if not any("_" in name for name in one)]


@pytest.mark.parametrize("asked", REQUESTS)
def test_no_task_asks_for_more_than_can_be_reckoned_with(world: World, asked: dict[str, Any]):
    answer = send(world, "alice", "POST", "/tasks", {"command": "x", "requested_resources": asked})
    assert answer.status_code == 422
    assert str(LARGEST) in answer.text or "cores" in asked


@pytest.mark.parametrize("has", CAPACITIES)
def test_no_worker_has_more(world: World, has: dict[str, Any]):
    body = {"host": "h", "resources": {"cores": 1, "memory": 1, **has}}
    assert send(world, "worker", "POST", "/workers", body).status_code == 422
    body = {"host": "h", "resources": {"cores": 1, "memory": LARGEST, "disk": LARGEST}}
    worker = send(world, "worker", "POST", "/workers", body)
    assert worker.status_code == 201
    claim = {"worker": worker.json["_id"], "fits": has}
    assert send(world, "worker", "POST", "/tasks/claim", claim).status_code == 422


def holding_very_much(world: World, count: int) -> None:
    """So many workers, each with one task that takes all of it, as an earlier version had them."""
    for _ in range(count):
        body = {"host": "h", "resources": {"cores": 1e6, "memory": LARGEST, "gpus": 64}}
        worker = ObjectId(send(world, "worker", "POST", "/workers", body).json["_id"])
        granted = {"cores": 1e6, "memory_bytes": STORED, "gpu_count": 64}
        used = {"memory_bytes": STORED, "cores": 1e6, "stuck": granted}
        world.store["workers"].update_one(
            {"_id": worker}, {"$set": {"resources.memory": STORED, "used": used}}
        )
        holder = {"worker": worker, "attempt": ObjectId(), "granted": granted}
        held = {"owner": "alice", "state": "running", "queue": "default", "holder": holder}
        world.store["tasks"].insert_one({"_id": ObjectId(), **held})


def test_what_workers_have_is_told_however_much_it_is(world: World):
    holding_very_much(world, 5)
    for who in WHO:
        told = world.ask(who, "/workers/statistics")
        assert told["capacity"]["memory_bytes"] == pytest.approx(5 * STORED)
        assert told["reserved"]["memory_bytes"] == pytest.approx(10 * STORED)
        assert told["used"]["memory_bytes"] == pytest.approx(5 * STORED)
    context = Context(world.store, Silent())
    duties.sample(context)
    assert world.store["worker_samples"].find_one()["running"] == 5
    samples.put(world.store, now() - timedelta(minutes=1), {"capacity": {"memory_bytes": STORED}})
    assert world.ask("operator", "/workers/statistics", window="1 hour", buckets=1)["buckets"]
    metrics = send(world, "operator", "GET", "/metrics")
    assert metrics.status_code == 200
    assert 'banyan_resources{resource="memory_bytes",use="capacity"}' in metrics.text


def attempt(began: datetime, memory_bytes: Any, word: str, **fields: Any) -> dict[str, Any]:
    """One that ran from one minute to another."""
    return {
        "_id": id_of(began),
        "task": ObjectId(),
        "owner": "alice",
        "queue": "default",
        "granted_resources": {"cores": 1e6, "memory_bytes": memory_bytes, "gpu_count": 0},
        "time_available": began,
        "time_started": began,
        "time_terminated": began + timedelta(minutes=3),
        "exit_status": word,
        "_updated": now(),
        **fields,
    }


BEGAN = now() - timedelta(minutes=10)


def tallied(world: World) -> float:
    found = tallies.tallied(world.store)
    return sum(value for name, value in found.items() if name.startswith("ended/"))


@pytest.mark.parametrize("stored", [STORED, LARGEST, 1e308, "much", None])
def test_attempts_that_held_very_much_are_tallied(world: World, stored: Any):
    for word in ("success", "failure (1)") * 3:
        world.store["attempts"].insert_one(attempt(BEGAN, stored, word, cpu_seconds=stored))
    assert world.ask("alice", window="1 hour", buckets=1)["ended"] == {"failure": 3, "success": 3}
    world.tally()
    assert tallied(world) == 6
    for who in WHO:
        told = world.ask(who, window="1 hour", buckets=4)
        assert told["ended"] == {"failure": 3, "success": 3}
        assert all(0 <= bucket["memory_bytes"] < 1e18 for bucket in told["buckets"])
    assert send(world, "operator", "GET", "/metrics").status_code == 200


def test_very_much_is_added_to_very_much(world: World):
    """What stands in a tally may be as much as 64 bits hold, by an earlier version."""
    world.store["attempts"].insert_one(attempt(BEGAN, LARGEST, "success"))
    world.tally()
    full = {f"{one}/{what}": STORED for one in RESOURCES for what in ("delta", "moment")}
    world.store["tallies"].update_many({"_id": {"$ne": "state"}}, {"$set": {**full, "cpu": STORED}})
    world.store["attempts"].insert_one(attempt(BEGAN, LARGEST, "success", cpu_seconds=1e15))
    world.store["attempts"].insert_one(attempt(BEGAN, LARGEST, "timeout"))
    state = {"upto": ObjectId("0" * 24)}
    world.store["tallies"].update_one({"_id": "state"}, {"$set": state})
    world.tally()
    assert tallied(world) == 4
    assert world.ask("alice", window="1 hour", buckets=1)["ended"] == {"success": 3, "timeout": 1}


def test_an_attempt_that_makes_no_sense_is_left_out_alone(
    world: World, monkeypatch: pytest.MonkeyPatch
):
    bad = attempt(BEGAN, 1, "success")
    others = [attempt(BEGAN + timedelta(seconds=n - 20), 1, "success") for n in range(40)]
    world.store["attempts"].insert_many([bad, *others])
    by_minute = measured.by_minute

    def refused(store: Any, query: Any, **more: Any) -> Any:
        if bad["_id"] in query["_id"]["$in"]:
            raise OverflowError("MongoDB can only handle up to 8-byte ints")
        return by_minute(store, query, **more)

    monkeypatch.setattr(measured, "by_minute", refused)
    world.tally()
    assert tallied(world) == 40
    assert tallies.state(world.store).open == ()


def test_a_record_that_a_late_report_has_made_stops_no_tally(world: World):
    late = {"_id": id_of(BEGAN), "task": ObjectId(), "_created": BEGAN, "_updated": BEGAN}
    world.store["attempts"].insert_many([late, attempt(BEGAN, 1, "success")])
    world.tally()
    assert tallied(world) == 1
    world.store["attempts"].update_one({"_id": late["_id"]}, {"$set": {"_updated": now()}})
    world.store["tallies"].update_one({"_id": "state"}, {"$set": {"open": [late["_id"]]}})
    world.tally()
    assert tallied(world) == 1


@pytest.mark.parametrize("start", ["0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999Z"])
@pytest.mark.parametrize("end", ["0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999Z"])
def test_the_first_and_the_last_time_there_is_are_put_right(world: World, start: str, end: str):
    queue = new_id()
    task = {"command": "x", "state": "available", "queue": queue}
    task_id = send(world, "alice", "POST", "/tasks", task).json["_id"]
    worker = {"host": "h", "resources": ROOM, "queues": [queue]}
    worker_id = send(world, "worker", "POST", "/workers", worker).json["_id"]
    claim = {"worker": worker_id, "start": True}
    (item,) = send(world, "worker", "POST", "/tasks/claim", claim).json["_items"]
    said = {"token": item["token"], "time_started": start}
    path = f"/tasks/{task_id}/update_execution_data"
    assert send(world, "worker", "POST", path, said).status_code == 200
    said |= {"time_terminated": end, "exit_status": "success"}
    body = {"state": "terminated", "update_execution_data": said}
    answer = send(world, "worker", "PATCH", f"/tasks/{task_id}", body)
    assert answer.status_code == 200, answer.text
    kept = world.store["attempts"].find_one({"task": ObjectId(task_id)})
    assert kept["time_claimed"] <= kept["time_started"] <= kept["time_terminated"] <= now()
