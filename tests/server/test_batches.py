"""Batches of claims and ends: each task gets its own fields, and who lost is told so."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from bson import ObjectId

from banyan.domain import lifecycle
from banyan.domain.lifecycle import Change
from banyan.domain.states import State
from banyan.server.auth import attempt_token
from banyan.server.calls import Call, Caller, Context, Silent
from banyan.server.store import accounts, attempts, batches, tasks, together
from banyan.server.store.indexes import prepare_database
from banyan.server.store.mongo import Document, Store, new_etag, now
from banyan.server.verbs import report

OWNER = "0" * 24
END = {"exit_status": "success", "time_terminated": now()}


@pytest.fixture(scope="module")
def store(module_database: str) -> Iterator[Store]:
    prepare_database(module_database)
    made = Store(module_database)
    yield made
    made.close()


def waiting(store: Store, count: int) -> list[Document]:
    """New tasks that may be claimed, with the fields that decisions look at."""
    made = [
        {
            "_id": ObjectId(),
            "owner": OWNER,
            "state": "available",
            "command": ["true"],
            "continuations": [],
            "failure_continuations": [],
            "final_continuations": [],
            "attempt_count": 0,
            "max_attempt_count": 1,
            "max_lost_count": 3,
            "wake_at": now(),
            "_etag": new_etag(),
        }
        for _ in range(count)
    ]
    store["tasks"].insert_many(made)
    return made


def claims_of(found: list[Document]) -> list[Change]:
    """What a worker that claims these tasks would write."""
    worker = ObjectId()
    return [change_of(lifecycle.claim(task, holder(worker), {})) for task in found]


def holder(worker: ObjectId) -> Document:
    granted = {"cores": 1}
    return {
        "attempt": ObjectId(), "worker": worker, "account": "a", "granted": granted,
        "claimed": now(), "started": True, "spare": False,
    }  # fmt: skip


def ends_of(found: list[Document]) -> list[Change]:
    return [
        change_of(lifecycle.finish(task, State.TERMINATED, {**END, "reason": str(n)}, now()))
        for n, task in enumerate(found)
    ]


def change_of(decision: lifecycle.Decision) -> Change:
    assert isinstance(decision, Change)
    return decision


def stored(store: Store, found: list[Document]) -> list[Document]:
    by_id = tasks.find(store, [task["_id"] for task in found])
    return [by_id[task["_id"]] for task in found]


@pytest.mark.parametrize("count", [1, 2, 600])
def test_each_task_gets_its_own_fields(store: Store, count: int):
    found = waiting(store, count)
    changes = claims_of(found)
    written = batches.apply(store, changes).written
    for change, fields, task in zip(changes, written, stored(store, found), strict=True):
        assert fields
        assert task["state"] == "running"
        assert task["holder"] == change.set["holder"] == fields["holder"]
        assert task["_etag"] == fields["_etag"]
        assert task["command"] == ["true"]
        assert "wake_at" not in task
    ended = batches.apply(store, ends_of(stored(store, found))).written
    assert all(ended)
    assert {task["state"] for task in stored(store, found)} == {"terminated"}


@pytest.mark.parametrize("count", [1, 2])
def test_a_claim_is_lost_where_another_has_come_and_gone_since_it_looked(store: Store, count: int):
    found = waiting(store, count)
    assert all(batches.apply(store, claims_of(found)).written)
    ids = [task["_id"] for task in found]
    store["tasks"].update_many({"_id": {"$in": ids}}, {"$set": {"state": "available"}})
    assert not any(batches.apply(store, claims_of(found)).written)
    assert not any(tasks.apply_one(store, change) for change in claims_of(found))
    again = claims_of(stored(store, found))
    assert all(tasks.apply_one(store, change) for change in again)
    assert [task["attempt_count"] for task in stored(store, found)] == [2] * count


def test_who_lost_is_told_and_writes_nothing(store: Store):
    found = waiting(store, 9)
    gone, other, cancelled = found[0], found[4], found[8]
    changes = claims_of(found)
    store["tasks"].delete_one({"_id": gone["_id"]})
    (first,) = batches.apply(store, claims_of([other])).written
    store["tasks"].update_one({"_id": cancelled["_id"]}, {"$set": {"state": "cancelled"}})
    written = batches.apply(store, changes).written
    assert [bool(fields) for fields in written] == [False, *[True] * 3, False, *[True] * 3, False]
    assert first
    assert stored(store, [other])[0]["holder"] == first["holder"]
    assert stored(store, [cancelled])[0]["state"] == "cancelled"
    assert not tasks.find(store, [gone["_id"]])


def test_a_task_that_is_cancelled_while_it_is_won_stays_won(
    store: Store, monkeypatch: pytest.MonkeyPatch
):
    """Its worker gets it, and hears of the cancellation with its next beat."""
    found = waiting(store, 2)
    lost = waiting(store, 1)
    changes = claims_of([*found, *lost])
    store["tasks"].delete_one({"_id": lost[0]["_id"]})
    looked = batches._won

    def cancelled_before_that(*arguments: Any) -> list[int]:
        update = {"$set": {"state": "pending_cancellation", "_etag": new_etag()}}
        store["tasks"].update_one({"_id": found[0]["_id"]}, update)
        return looked(*arguments)

    monkeypatch.setattr(batches, "_won", cancelled_before_that)
    assert [bool(fields) for fields in batches.apply(store, changes).written] == [True, True, False]


def test_an_end_needs_its_own_attempt(store: Store):
    found = waiting(store, 3)
    batches.apply(store, claims_of(found))
    held = stored(store, found)
    strangers = {**held[1], "holder": {**held[1]["holder"], "attempt": ObjectId()}}
    written = batches.apply(store, ends_of([held[0], strangers, held[2]])).written
    assert [bool(fields) for fields in written] == [True, False, True]
    assert [task["state"] for task in stored(store, found)] == [
        "terminated", "running", "terminated",
    ]  # fmt: skip


def test_changes_of_many_kinds_go_together(store: Store):
    """Ends with and without children, one of a task that is being cancelled, and a start."""
    found = waiting(store, 4)
    batches.apply(store, claims_of(found))
    store["tasks"].update_one({"_id": found[1]["_id"]}, {"$set": {"continuations": [ObjectId()]}})
    store["tasks"].update_one({"_id": found[2]["_id"]}, {"$set": {"state": "pending_cancellation"}})
    *ending, starting = stored(store, found)
    guard = {"holder.attempt": starting["holder"]["attempt"], "state": "running"}
    start = Change(starting["_id"], guard, {"holder.spare": False, "progress": {"done": 1}})
    changes = [start, *ends_of(ending)]
    assert all(batches.apply(store, changes).written)
    plain, parent, cancelled, started = stored(store, found)
    assert (plain["state"], plain["unsettled"]) == ("terminated", False)
    assert (parent["state"], parent["unsettled"]) == ("terminated", True)
    assert (cancelled["state"], cancelled["ended_as"]) == ("terminated", "cancelled")
    assert (started["state"], started["progress"]) == ("running", {"done": 1})


def test_ends_with_large_results_go_together(store: Store):
    """All of them would be too large for one statement."""
    found = waiting(store, 3)
    batches.apply(store, claims_of(found))
    *large, small = ends_of(stored(store, found))
    large = [replace(one, set={**one.set, "result": "x" * 9_000_000}) for one in large]
    assert all(batches.apply(store, [*large, small]).written)
    assert [len(task.get("result", "")) for task in stored(store, found)] == [9e6, 9e6, 0]


def test_of_two_changes_of_one_task_the_first_stands(store: Store):
    found = waiting(store, 1)
    first, second = claims_of(found) + claims_of(found)
    written = batches.apply(store, [first, second]).written
    assert [bool(fields) for fields in written] == [True, False]
    assert stored(store, found)[0]["holder"] == first.set["holder"]


# --- The records of attempts ------------------------------------------------------------


def record(store: Store, attempt_id: ObjectId) -> Document:
    return attempts.find(store, [attempt_id])[attempt_id]


def end_of(attempt_id: ObjectId, **fields: Any) -> attempts.Addition:
    peaks = {"peak_memory_bytes": fields.pop("peak")} if "peak" in fields else {}
    return attempts.Addition(attempt_id, ObjectId(), {**END, **fields}, {}, peaks)


def begun(store: Store, count: int) -> list[ObjectId]:
    ids = [ObjectId() for _ in range(count)]
    record = {"task": ObjectId(), "time_terminated": None}
    attempts.begin(store, [Change(ObjectId(), {}, {}, (), one, record) for one in ids])
    return ids


def test_each_record_gets_its_own_end_and_peaks_only_grow(store: Store):
    ids = begun(store, 3)
    attempts.report(
        store, [attempts.Addition(ids[0], ObjectId(), {}, {}, {"peak_memory_bytes": 9})]
    )
    ends = [end_of(ids[0], peak=3), end_of(ids[1], peak=4), end_of(ids[2], reason="x")]
    attempts.report(store, ends)
    assert record(store, ids[0])["peak_memory_bytes"] == 9
    assert record(store, ids[1])["peak_memory_bytes"] == 4
    assert "peak_memory_bytes" not in record(store, ids[2])
    assert record(store, ids[2])["reason"] == "x"


def test_a_record_that_was_never_made_is_made_at_the_end(store: Store):
    known, unknown = begun(store, 1)[0], ObjectId()
    attempts.report(store, [end_of(known, reason="one"), end_of(unknown, reason="two")])
    assert record(store, known)["reason"] == "one"
    assert record(store, unknown)["reason"] == "two"


def test_the_first_end_of_an_attempt_stands(store: Store):
    (one,) = begun(store, 1)
    attempts.report(store, [end_of(one, reason="first"), end_of(one, reason="second")])
    attempts.report(store, [end_of(one, reason="third")])
    assert record(store, one)["reason"] == "first"


def test_a_record_that_was_ended_before_it_was_begun_stays_ended(store: Store):
    """A thief may be quicker than the server that the victim's claim goes through."""
    one = ObjectId()
    attempts.report(store, [end_of(one, reason="stolen")])
    change = Change(ObjectId(), {}, {}, (), one, {"time_terminated": None})
    attempts.begin(store, [change])
    assert record(store, one)["reason"] == "stolen"
    assert record(store, one)["time_terminated"] is not None


# --- One wait for the majority ----------------------------------------------------------


def caller_of(store: Store) -> Call:
    return Call(
        Context(store, Silent()), Caller("a", frozenset({"worker"})), "tasks", None, None,
        {}, {"Prefer": "return=minimal"},
    )  # fmt: skip


def ending(store: Store, count: int = 2) -> list[report.Report]:
    """What a worker reports that ends tasks which it has claimed just now."""
    found = waiting(store, count)
    changes = claims_of(found)
    assert all(batches.apply(store, changes).written)
    attempts.begin(store, changes)
    return [
        report.Report(
            one.task_id,
            State.TERMINATED,
            {**END, "token": attempt_token(accounts.attempt_secret(store), one.attempt_id)},
            {},
        )
        for one in changes
    ]


def ended_as(store: Store, reports: list[report.Report]) -> list[Any]:
    found = tasks.find(store, [one.task_id for one in reports]).values()
    return [attempts.of_task(store, task).documents[0].get("exit_status") for task in found]


def test_records_are_written_again_where_the_primary_has_changed_in_between(
    store: Store, monkeypatch: pytest.MonkeyPatch
):
    """The first write of them may have been undone with the primary that had it alone."""
    reports = ending(store)
    update, sent = together.update, []

    def undone(at: Store, collection: str, *arguments: Any) -> together.Written:
        written = update(at, collection, *arguments)
        sent.append(collection)
        if sent == ["attempts"]:
            tasks_of = {"task": {"$in": [one.task_id for one in reports]}}
            gone = {"$set": {"time_terminated": None}, "$unset": {"exit_status": ""}}
            at["attempts"].update_many(tasks_of, gone)
            return written._replace(term="the one before")
        return written

    monkeypatch.setattr(together, "update", undone)
    results = report.report_many(caller_of(store), reports)
    assert [one["_status"] for one in results if isinstance(one, dict)] == ["OK", "OK"]
    assert sent == ["attempts", "tasks", "attempts"]
    assert ended_as(store, reports) == ["success", "success"]


def test_an_end_that_is_repeated_fills_in_a_record_that_lacks_it(store: Store):
    reports = ending(store)
    call = caller_of(store)
    report.report_many(call, reports)
    assert ended_as(store, reports) == ["success", "success"]
    lost = {"$set": {"time_terminated": None}, "$unset": {"exit_status": ""}}
    store["attempts"].update_one({"task": reports[0].task_id}, lost)
    store["attempts"].delete_one({"task": reports[1].task_id})
    report.report_many(call, reports)
    assert ended_as(store, reports) == ["success", "success"]
    other = [replace(one, data={**one.data, "exit_status": "failure (1)"}) for one in reports]
    report.report_many(call, other)
    assert ended_as(store, reports) == ["success", "success"]
