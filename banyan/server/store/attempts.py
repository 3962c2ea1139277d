"""The record of each attempt: made at the claim, filled in at the end.

The truth about who holds a task stands in the task; these records tell its story. Every
write here may be repeated.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bson import ObjectId
from pymongo import UpdateOne
from pymongo.client_session import ClientSession
from pymongo.errors import BulkWriteError
from pymongo.write_concern import WriteConcern

from banyan.domain.lifecycle import Change
from banyan.server.store import together
from banyan.server.store.mongo import (
    BATCH,
    DUPLICATE_KEY,
    FORGETTABLE,
    MAJORITY,
    Document,
    Store,
    losers,
    new_etag,
    now,
)

# Samples of usage kept for one attempt; the oldest go first, the peaks stay.
SAMPLES_MAX = 500
_NO_GUARD: Mapping[str, Any] = {}
_OPEN: Mapping[str, Any] = {"time_terminated": None}
# Short output, which stands in the record (`logs.py`), is read by who asks for it.
_WITHOUT_OUTPUT = {"output": 0}
_WITHOUT_SAMPLES = {"memory_usage": 0, "cpu_utilization": 0, "gpu_usage": 0, "messages": 0}
TIMES = ["time_claimed", "time_started", "time_terminated"]
_MEASURED_MAX = 1000


@dataclass(frozen=True)
class Addition:
    """What a report adds to the record of its attempt.

    fields: set as they are; lists: samples to append; peaks: values that only grow.
    """

    attempt_id: ObjectId | None
    task_id: ObjectId
    fields: Mapping[str, Any]
    lists: Mapping[str, list[Any]] = field(default_factory=dict)
    peaks: Mapping[str, float] = field(default_factory=dict)


def begin(store: Store, changes: Sequence[Change]) -> None:
    """Make the records of attempts that were just claimed.

    One that is forgotten in a crash is made again at the attempt's end: the task knows all
    that stands in it. One that is there already, because somebody was quick to end it, stays.
    """
    time = now()
    stamp = {"_created": time, "_updated": time, "_etag": new_etag()}
    records = [{"_id": one.attempt_id, **one.attempt, **stamp} for one in changes]
    if not records:
        return
    try:
        collection = store["attempts"].with_options(write_concern=FORGETTABLE)
        collection.insert_many(records, ordered=False)
    except BulkWriteError as error:
        losers(error, DUPLICATE_KEY)


def write(store: Store, additions: Sequence[Addition], session: ClientSession) -> None:
    """Write records in a transaction, which also writes the tasks that they are about."""
    updates = [_update(one, _NO_GUARD) for one in additions if one.attempt_id and one.fields]
    if updates:
        store["attempts"].bulk_write(updates, ordered=False, session=session)


def report(
    store: Store, additions: Sequence[Addition], concern: WriteConcern = MAJORITY
) -> together.Written:
    """What workers report, before it is known whether their attempts still hold their tasks.

    So the end of a record that has one is left alone: `lost` may stand there already,
    and where that is still to be said, it will overwrite this.
    concern: FORGETTABLE where a write follows that a majority acknowledges. That tells of this
    one too if both were made in one term of the primary, which is returned; else say it again.
    """
    written = together.Written(0, None)
    ends: dict[ObjectId, Document] = {}
    others = []
    stamp = {"_etag": new_etag(), "_updated": now()}
    for one in additions:
        if one.attempt_id in ends or one.lists or "time_terminated" not in one.fields:
            others.append(one)
        elif one.attempt_id:
            ends[one.attempt_id] = {**one.fields, **one.peaks, **stamp}
    if ends:
        peaks = sorted({name for one in additions for name in one.peaks})
        group = together.Each(_OPEN, ends, peaks)
        written = together.update(store, "attempts", [group], concern)
        if written.matched < len(ends):
            others = list(additions)  # what was written is not written again
    _write(store, others, MAJORITY, _OPEN)
    return written


def _write(
    store: Store,
    additions: Sequence[Addition],
    concern: WriteConcern,
    end_guard: Mapping[str, Any] = _NO_GUARD,
) -> None:
    """One command for all of them.

    As upserts: a record is made here too if a server was killed after the claim. Where the
    guard does not match, the upsert finds the record there and changes nothing.
    """
    updates = [
        _update(one, end_guard if "time_terminated" in one.fields else _NO_GUARD)
        for one in additions
        if one.attempt_id and (one.fields or one.lists or one.peaks)
    ]
    if not updates:
        return
    try:
        collection = store["attempts"].with_options(write_concern=concern)
        collection.bulk_write(updates, ordered=False)
    except BulkWriteError as error:
        losers(error, DUPLICATE_KEY)


def _update(one: Addition, guard: Mapping[str, Any]) -> UpdateOne:
    time = now()
    update: Document = {
        "$set": {**one.fields, "_etag": new_etag(), "_updated": time},
        "$setOnInsert": {"_created": time},
    }
    if "task" not in one.fields:
        update["$setOnInsert"]["task"] = one.task_id
    if one.lists:
        update["$push"] = {
            name: {"$each": values, "$slice": -SAMPLES_MAX} for name, values in one.lists.items()
        }
    if one.peaks:
        update["$max"] = dict(one.peaks)
    return UpdateOne({"_id": one.attempt_id, **guard}, update, upsert=True)


def find(
    store: Store, attempt_ids: Collection[ObjectId], fields: Sequence[str] | None = None
) -> dict[ObjectId, Document]:
    """The records with these ids, by id, in one query."""
    query = {"_id": {"$in": list(attempt_ids)}}
    found = store["attempts"].find(query, fields or _WITHOUT_OUTPUT, batch_size=BATCH)
    return {attempt["_id"]: attempt for attempt in found}


def of_task(store: Store, task_id: ObjectId, fields: Sequence[str] | None = None) -> list[Document]:
    """All attempts of a task, the first first."""
    found = store["attempts"].find({"task": task_id}, fields or _WITHOUT_OUTPUT)
    return list(found.sort("attempt_count", 1))


def one_of_task(store: Store, task_id: ObjectId, attempt_count: int | None) -> Document | None:
    """An attempt with its short output: this one, or the last."""
    query: dict[str, Any] = {"task": task_id}
    if attempt_count is not None:
        query["attempt_count"] = attempt_count
    return store["attempts"].find_one(query, _WITHOUT_SAMPLES, sort=[("attempt_count", -1)])


def mean_milliseconds(store: Store, names: Collection[str], owner: str) -> dict[str, int]:
    """How long the successful attempts of the owner's tasks with these names took, by name."""
    if not names:
        return {}
    found = store["tasks"].find(
        {"name": {"$in": list(names)}, "owner": owner, "outcome": "success"}, ["name", "attempt_id"]
    )
    name_of = {one["attempt_id"]: one["name"] for one in found.limit(_MEASURED_MAX)}
    took: dict[str, list[int]] = {}
    for attempt in find(store, name_of, ["time_started", "time_terminated"]).values():
        if attempt.get("time_started") and attempt.get("time_terminated"):
            spent = attempt["time_terminated"] - attempt["time_started"]
            milliseconds = max(0, int(spent.total_seconds() * 1000))
            took.setdefault(name_of[attempt["_id"]], []).append(milliseconds)
    return {name: sum(times) // len(times) for name, times in took.items()}
