"""The id of a task that was forgotten is taken before its attempts and output are gone.

Whoever takes it sees nothing of them, and what is done with the new task stays when they go.
"""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from bson import ObjectId

from banyan.server.calls import Context, Silent
from banyan.server.doctor import attempts as doctor
from banyan.server.store import forgetting, inspection
from banyan.server.upkeep.retention import Retention
from tests.contract.asking import new_id
from tests.contract.playing import RESOURCES, chunk
from tests.harness import eventually
from tests.security.watched import send, submit
from tests.server.worlds import World

SECRET = b"the output of the first, which is long enough to stand apart " * 100
SHORT = b"a short secret"
NEW = b"the output of the second"


def claimed(world: World, task: str) -> Any:
    """The task as the worker gets it that serves its queue."""
    body = {"host": "h", "resources": RESOURCES, "queues": [task]}
    worker = send(world, "worker", "POST", "/workers", body).json["_id"]
    claim = {"worker": worker, "start": True}
    (item,) = send(world, "worker", "POST", "/tasks/claim", claim).json["_items"]
    return item


def ran(world: World, task: str, output: bytes, end: bool = True) -> None:
    """A worker claims the task, sends its output, and ends it."""
    item = claimed(world, task)
    said = {"token": item["token"], "log": [chunk(0, output)]}
    if not end:
        path = f"/tasks/{task}/update_execution_data"
        assert send(world, "worker", "POST", path, said).status_code == 200
        return
    said |= {"exit_status": "success", "time_terminated": datetime.now(UTC).isoformat()}
    body = {"state": "terminated", "update_execution_data": said}
    answer = send(world, "worker", "PATCH", f"/tasks/{task}", body)
    assert answer.status_code == 200, answer.text


def new_task(task: str) -> dict[str, Any]:
    return {"_id": task, "command": "true", "state": "available", "queue": task}


def removed(world: World, output: bytes = SECRET) -> str:
    """A task of alice's that has gone, and all that belonged to it is still there."""
    task = new_id()
    submit(world, "alice", [new_task(task)])
    ran(world, task, output)
    gone = forgetting.remove(world.store, [ObjectId(task)], lambda found, _: found)
    assert gone.keys() == {ObjectId(task)}
    return task


def seen_through(world: World) -> None:
    """Upkeep clears what a note says, a minute after it was written."""
    for note in list(world.store["forgotten"].find()):
        old = ObjectId.from_datetime(datetime.now(UTC) - timedelta(seconds=61))
        world.store["forgotten"].insert_one({**note, "_id": old})
        world.store["forgotten"].delete_one({"_id": note["_id"]})
    retention, context = Retention(), Context(world.store, Silent())

    def cleared() -> bool:
        retention.work(context)
        return world.store["forgotten"].count_documents({}) == 0

    eventually(cleared)


def told(world: World, who: str, task: str) -> dict[str, Any]:
    """All that is told of a task's attempts."""
    log = send(world, who, "GET", f"/tasks/{task}/log")
    return {
        "history": send(world, who, "GET", f"/tasks/{task}/history").json["_items"],
        "log": log.data,
        "times": send(world, who, "GET", f"/tasks/{task}/statistics").json.get("attempts", 0),
    }


NOTHING = {"history": [], "log": b"", "times": 0}


@pytest.mark.parametrize("output", [SECRET, SHORT])
@pytest.mark.parametrize("who", ["bob", "alice"])
def test_who_takes_the_id_reads_nothing_of_what_ran_before(world: World, who: str, output: bytes):
    task = removed(world, output)
    submit(world, who, [new_task(task)])
    assert told(world, who, task) == NOTHING
    seen = send(world, who, "GET", f"/tasks/{task}/log?attempt=1")
    assert output not in seen.data
    ran(world, task, NEW)
    (attempt,) = told(world, who, task)["history"]
    assert attempt["owner"] == who
    current = send(world, who, "GET", f"/tasks/{task}/current_attempt").json["current_attempt"]
    assert current["owner"] == who
    assert not {"task_seq", "log_stored_bytes", "output"} & current.keys()
    assert told(world, who, task)["log"] == NEW
    assert "times" in send(world, who, "GET", f"/tasks/{task}/explain").json


@pytest.mark.parametrize("name", ["task_seq", "owner"])
def test_records_that_do_not_say_whose_they_are_show_nothing(world: World, name: str):
    """As earlier versions wrote them, and as a late report makes them anew."""
    task = removed(world)
    world.store["attempts"].update_many({}, {"$unset": {name: ""}})
    submit(world, "bob", [new_task(task)])
    assert told(world, "bob", task) == NOTHING


def test_attempts_of_earlier_versions_are_told_to_their_owner(world: World):
    task = new_id()
    submit(world, "alice", [new_task(task)])
    ran(world, task, SECRET)
    world.store["attempts"].update_many({}, {"$unset": {"task_seq": ""}})
    assert told(world, "alice", task)["log"] == SECRET


@pytest.mark.parametrize("end", [True, False])
@pytest.mark.parametrize("who", ["bob", "alice"])
def test_what_a_later_task_with_the_id_does_stays_when_the_rest_goes(
    world: World, who: str, end: bool
):
    task = removed(world)
    submit(world, who, [new_task(task)])
    ran(world, task, NEW, end)
    before = told(world, who, task)
    assert before["log"] == NEW
    assert world.store["attempts"].count_documents({"task": ObjectId(task)}) == 2
    seen_through(world)
    assert world.store["attempts"].count_documents({"task": ObjectId(task)}) == 1
    assert not [one for one in world.store["log_chunks"].find() if one["data"] == SECRET]
    assert told(world, who, task) == before


def test_a_record_that_a_report_makes_anew_says_whose_it_is(world: World):
    """The server was killed at the claim, before it had written the record."""
    task = removed(world)
    submit(world, "bob", [new_task(task)])
    item = claimed(world, task)
    world.store["attempts"].delete_one({"_id": ObjectId(item["attempt_id"])})
    said = {"token": item["token"], "log": [chunk(0, NEW)]}
    path = f"/tasks/{task}/update_execution_data"
    assert send(world, "worker", "POST", path, said).status_code == 200
    before = told(world, "bob", task)
    assert before["log"] == NEW
    assert [one["attempt_count"] for one in before["history"]] == [1]
    seen_through(world)
    assert told(world, "bob", task) == before


def test_a_note_of_an_earlier_version_takes_no_later_attempt_along(world: World):
    task = removed(world)
    world.store["attempts"].update_many({}, {"$unset": {"task_seq": ""}})
    world.store["forgotten"].update_many({}, {"$unset": {"seqs": ""}})
    submit(world, "bob", [new_task(task)])
    ran(world, task, NEW)
    seen_through(world)
    assert told(world, "bob", task)["log"] == NEW
    assert world.store["attempts"].count_documents({"task": ObjectId(task)}) == 1


def test_the_doctor_counts_no_attempt_of_the_task_before(world: World):
    task = removed(world)
    submit(world, "bob", [new_task(task)])
    ran(world, task, NEW)
    (batch,) = inspection.batches(world.store)
    assert list(doctor.check(batch)) == []
