"""The doctor: silent about a sound database, and each check speaks up when it is broken by hand."""

import json
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from bson import ObjectId

from banyan.server.doctor import Finding, database, examine, repair
from banyan.server.store.mongo import Store
from tests.contract.playing import Play
from tests.harness import Processes, Server, eventually

LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)
Tasks = dict[str, ObjectId]
Break = Callable[[Store, Tasks], Any]


@pytest.fixture
def play(server: Server) -> Play:
    return Play(server)


@pytest.fixture
def store(module_database: str) -> Iterator[Store]:
    with database(module_database) as own:
        yield own


@pytest.fixture
def tasks(play: Play) -> Tasks:
    """One of each: ended, its child that waits for another too, held, cancelled."""
    player = play.player()
    parent, other, held, cancelled = play.submit(count=4)
    (child,) = play.submit(after=[parent, other])
    claimed = player.claim_one(parent).json()
    player.end(claimed)
    player.claim_one(held)
    play.server.provider.post(f"tasks/{cancelled}/cancel")
    named = {"parent": parent, "other": other, "held": held, "cancelled": cancelled, "child": child}
    return {name: ObjectId(one) for name, one in named.items()} | {"worker": ObjectId(player.id)}


def wrong(store: Store, *tasks: ObjectId) -> list[Finding]:
    """What the doctor says of these tasks."""
    subjects = set(map(str, tasks))
    return [one for one in examine(store, again_after_seconds=0) if one.subject in subjects]


def test_who_has_the_id_of_a_forgotten_parent_is_none(store: Store, tasks: Tasks) -> None:
    """The child was another owner's, tied to it by an operator, and has been retried since."""
    of_another = {"owner": "another", "continuations": []}
    store["tasks"].update_one({"_id": tasks["other"]}, {"$set": of_another})
    assert not wrong(store, tasks["child"])


def put(name: str, **fields: Any) -> Break:
    return lambda store, tasks: store["tasks"].update_one({"_id": tasks[name]}, {"$set": fields})


def put_attempt(name: str, **fields: Any) -> Break:
    def break_it(store: Store, tasks: Tasks) -> None:
        store["attempts"].update_one({"task": tasks[name]}, {"$set": fields})

    return break_it


def second_success(store: Store, tasks: Tasks) -> None:
    record = store["attempts"].find_one({"task": tasks["parent"]}) or {}
    store["attempts"].insert_one({**record, "_id": ObjectId(), "attempt_count": 2})
    store["tasks"].update_one({"_id": tasks["parent"]}, {"$set": {"attempt_count": 2}})


def no_record(store: Store, tasks: Tasks) -> None:
    store["attempts"].delete_one({"task": tasks["parent"]})


def half_given_back(store: Store, tasks: Tasks) -> None:
    """The task is free again, and nobody has told the record of its attempt."""
    free = {"$set": {"state": "available"}, "$unset": {"holder": ""}}
    store["tasks"].update_one({"_id": tasks["held"]}, free)


def lapsed(store: Store, tasks: Tasks) -> None:
    """As if upkeep had missed it: a worker that is lost to it holds a task all the same."""
    gone = {"_id": ObjectId(), "lease_until": LONG_AGO, "mode": "lost", "account": "x"}
    store["workers"].insert_one(gone)
    store["tasks"].update_one({"_id": tasks["held"]}, {"$set": {"holder.worker": gone["_id"]}})


def unlisted(store: Store, tasks: Tasks) -> None:
    store["tasks"].update_one({"_id": tasks["other"]}, {"$set": {"continuations": []}})


def missed(store: Store, tasks: Tasks) -> None:
    """The child never heard that its parent has ended."""
    both = [tasks["parent"], tasks["other"]]
    fields = {"open_parents": both, "pending_dependency_count": 2}
    store["tasks"].update_one({"_id": tasks["child"]}, {"$set": fields})


BREAKS: list[tuple[str, str, Break]] = [
    ("states", "no state", put("other", state="sleeping")),
    ("states", "nothing about how it ended", put("parent", ended_as=None)),
    ("states", "has an outcome", put("other", outcome="success")),
    ("states", "its outcome is None", put("parent", outcome=None)),
    ("states", "differ", put("held", attempt_id=ObjectId())),
    ("states", "has no command", put("other", command=None)),
    ("states", "is to be settled", put("child", unsettled=True)),
    ("attempts", "there are records of", put("parent", attempt_count=3)),
    ("attempts", "there are records of []", no_record),
    ("attempts", "has no end", put_attempt("parent", time_terminated=None)),
    ("attempts", "does not hold it, and has no end", half_given_back),
    ("attempts", "was not retried", second_success),
    ("attempts", "of its last attempt", put_attempt("parent", exit_status="failure (1)")),
    ("dependencies", "it counts 7", put("child", pending_dependency_count=7)),
    ("dependencies", "is no parent of it", put("child", open_parents=[ObjectId()])),
    ("dependencies", "which has ended and counts as settled", missed),
    ("dependencies", "does not wait for", put("child", open_parents=[])),
    ("dependencies", "it is available, and waits", put("other", open_parents=[ObjectId()])),
    ("edges", "do not name it", unlisted),
    ("leases", "is over, and it is still held", lapsed),
    ("leases", "is not there", put("held", **{"holder.worker": ObjectId()})),
    ("shapes", "ask for something else", put("child", shape="0" * 32)),
    ("shapes", "ask for something else", put("held", queue="elsewhere")),
]
MENDED = {
    "does not hold it, and has no end",
    "which has ended and counts as settled",
    "is over, and it is still held",
    "ask for something else",
}


def test_it_says_nothing_of_a_sound_database(store: Store, tasks: Tasks):
    assert wrong(store, *tasks.values()) == []


@pytest.mark.parametrize(("check", "message", "break_it"), BREAKS)
def test_each_check_finds_what_was_broken(
    store: Store, tasks: Tasks, check: str, message: str, break_it: Break
):
    with quiet_upkeep(store):
        break_it(store, tasks)
        found = [one for one in wrong(store, *tasks.values()) if one.check == check]
        assert any(message in one.message for one in found), found
        if message in MENDED:
            assert repair(store, found) == []
            assert [one for one in wrong(store, *tasks.values()) if one.check == check] == []
    store["tasks"].delete_many({"_id": {"$in": list(tasks.values())}})
    store["attempts"].delete_many({"task": {"$in": list(tasks.values())}})


class quiet_upkeep:
    """The server's upkeep would mend some of it before the doctor looks."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def __enter__(self) -> None:
        self._set("the test", datetime.now(UTC) + timedelta(minutes=5))

    def __exit__(self, *error: object) -> None:
        self._set("", LONG_AGO)

    def _set(self, holder: str, until: datetime) -> None:
        fields = {"holder": holder, "until": until}
        self._store["duties"].update_one({"_id": "upkeep"}, {"$set": fields})


def test_an_end_that_stays_half_settled_is_found_and_settled(store: Store, play: Play):
    (parent,) = play.submit()
    (child,) = play.submit(after=[parent])
    player = play.player()
    player.end(player.claim_one(parent).json())
    with quiet_upkeep(store):
        ids = ObjectId(parent), ObjectId(child)
        store["tasks"].update_one(
            {"_id": ids[0]}, {"$set": {"unsettled": True, "_updated": LONG_AGO}}
        )
        waiting = {"state": "inactive", "open_parents": [ids[0]], "pending_dependency_count": 1}
        store["tasks"].update_one({"_id": ids[1]}, {"$set": waiting})
        (found,) = wrong(store, *ids)
        assert found.check == "settling"
        assert repair(store, [found]) == []
        assert play.task(child)["state"] == "available"
        assert wrong(store, *ids) == []


def test_a_cancelled_child_that_its_parent_still_names_is_taken_out(store: Store, play: Play):
    (parent,) = play.submit()
    (child,) = play.submit(after=[parent])
    play.server.provider.post(f"tasks/{child}/cancel")
    ids = ObjectId(parent), ObjectId(child)
    eventually(lambda: wrong(store, *ids) == [])
    store["tasks"].update_one({"_id": ids[0]}, {"$set": {"continuations": [ids[1]]}})
    (found,) = wrong(store, *ids)
    assert (found.check, found.remedy) == ("edges", "settle")
    assert repair(store, [found]) == []
    assert wrong(store, *ids) == []


def test_records_and_output_without_a_task_are_found_and_removed(store: Store):
    task, attempt = ObjectId(), ObjectId()
    store["attempts"].insert_one({"_id": attempt, "task": task, "attempt_count": 1})
    chunk = {"attempt": attempt, "task": task, "offset": 0, "stream": "stdout", "data": b"x"}
    store["log_chunks"].insert_one(chunk)
    found = wrong(store, task)
    assert sorted(one.message.split(" is there")[0] for one in found) == [
        "output of an attempt",
        "the record of an attempt",
    ]
    assert repair(store, found) == []
    assert wrong(store, task) == []


def test_a_missing_index_is_found(store: Store):
    index = store["attempts"].index_information()["worker_id"]["key"]
    store["attempts"].drop_index("worker_id")
    (found,) = [one for one in examine(store, 0) if one.check == "indexes"]
    assert found.subject == "attempts.worker_id"
    store["attempts"].create_index(index, name="worker_id")


def test_what_is_only_on_its_way_is_not_told(store: Store, tasks: Tasks):
    """It is wrong at the first look, and right at the second."""
    ended = {"task": tasks["parent"]}
    record = store["attempts"].find_one_and_update(ended, {"$set": {"time_terminated": None}})
    assert record is not None
    assert wrong(store, tasks["parent"])
    end = {"$set": {"time_terminated": record["time_terminated"]}}
    pauses: list[float] = []

    def put_right(seconds: float) -> None:
        pauses.append(seconds)
        store["attempts"].update_one({"_id": record["_id"]}, end)

    found = examine(store, wait=put_right)
    assert [one for one in found if one.subject == str(tasks["parent"])] == []
    assert pauses[0] > 0


def test_the_command_tells_mends_and_ends_with_its_code(
    processes: Processes, store: Store, module_database: str
):
    task, attempt = ObjectId(), ObjectId()
    surroundings = {"BANYAN_MONGO_URI": module_database, "BANYAN_UPKEEP_SECONDS": "0.05"}

    def doctor(*options: str) -> tuple[int, str]:
        program = [sys.executable, "-m", "banyan", "doctor", *options]
        started = processes.start(program, surroundings)
        return started.wait(60), started.stdout

    code, told = doctor()
    assert (code, told.splitlines()[0]) == (0, "nothing is wrong")
    store["attempts"].insert_one({"_id": attempt, "task": task, "attempt_count": 1})
    code, told = doctor("--json")
    (found,) = json.loads(told)["found"]
    assert (code, found["check"], found["subject"]) == (1, "orphans", str(task))
    code, told = doctor()
    assert code == 1
    assert str(attempt) in told
    assert "--repair" in told
    code, told = doctor("--repair")
    assert code == 0
    assert "1 found, 1 mended" in told
    assert doctor()[0] == 0
