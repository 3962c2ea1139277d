"""The record of each attempt: made at the claim, filled in at the end.

The truth about who holds a task stands in the task; these records tell its story. Every
write here may be repeated.
"""

import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from bson import ObjectId
from pymongo import UpdateOne
from pymongo.client_session import ClientSession
from pymongo.errors import BulkWriteError, DocumentTooLarge, OperationFailure
from pymongo.write_concern import WriteConcern

from banyan.domain.lifecycle import Change
from banyan.server.store import pages, sizes, together
from banyan.server.store.logs import STORED
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
LISTS = ("memory_usage", "cpu_utilization", "gpu_usage", "messages")
_NO_GUARD: Mapping[str, Any] = {}
_OPEN: Mapping[str, Any] = {"time_terminated": None}
# Short output, which stands in the record (`logs.py`), is read by who asks for it.
# What else is not in its schema is nobody's but the server's.
_SHOWN = {"output": 0, "task_seq": 0, STORED: 0}
_TIMES = ["time_claimed", "time_started", "time_terminated"]
_MEASURED_MAX = 1000
_TIMED_MAX = 10_000
_AT_ONCE = 100  # samples of a hundred attempts are some ten megabytes
_OF_LOG = ["attempt_count", "time_terminated", "time_log_removed", "output"]


@dataclass(frozen=True)
class Addition:
    """What a report adds to the record of its attempt.

    fields: set as they are; lists: samples to append; peaks: values that only grow; counts: added.
    since_claim: set where there is no record yet.
    """

    attempt_id: ObjectId | None
    task_id: ObjectId
    fields: Mapping[str, Any]
    lists: Mapping[str, list[Any]] = field(default_factory=dict)
    peaks: Mapping[str, float] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)
    since_claim: Mapping[str, Any] = field(default_factory=dict)


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
        written = _ended_together(store, group, concern)
        if written.matched < len(ends):
            others = list(additions)  # what was written is not written again
    _write(store, others, MAJORITY, _OPEN)
    return written


def _ended_together(store: Store, group: together.Each, concern: WriteConcern) -> together.Written:
    """All ends at once; where one record is too large, they count as not written."""
    try:
        return together.update(store, "attempts", [group], concern)
    except (OperationFailure, DocumentTooLarge) as error:
        if not sizes.is_too_large(error):
            raise
        return together.Written(0, None)


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
    telling = [
        one for one in additions if one.attempt_id and (one.fields or one.lists or one.peaks)
    ]
    guards = [end_guard if "time_terminated" in one.fields else _NO_GUARD for one in telling]
    updates = [_update(one, guard) for one, guard in zip(telling, guards, strict=True)]
    if not updates:
        return
    collection = store["attempts"].with_options(write_concern=concern)
    try:
        collection.bulk_write(updates, ordered=False)
    except BulkWriteError as error:
        losers(error, DUPLICATE_KEY, *sizes.CODES)
        refused = [
            one["index"] for one in error.details["writeErrors"] if one["code"] in sizes.CODES
        ]
        smaller = [_without_lists(telling[place], guards[place]) for place in refused]
        if smaller:
            collection.bulk_write(smaller, ordered=False)


def _without_lists(one: Addition, guard: Mapping[str, Any]) -> UpdateOne:
    """Of a record that would be too large the end and the peaks; its samples and messages go."""
    fields = {name: value for name, value in one.fields.items() if name != "output"}
    update: Document = {
        "$set": {**fields, "_etag": new_etag(), "_updated": now()},
        "$unset": dict.fromkeys(LISTS, ""),
    }
    if one.peaks:
        update["$max"] = dict(one.peaks)
    return UpdateOne({"_id": one.attempt_id, **guard}, update)


def _update(one: Addition, guard: Mapping[str, Any]) -> UpdateOne:
    time = now()
    update: Document = {
        "$set": {**one.fields, "_etag": new_etag(), "_updated": time},
        "$setOnInsert": {"_created": time, **one.since_claim},
    }
    if "task" not in one.fields:
        update["$setOnInsert"]["task"] = one.task_id
    if one.lists:
        update["$push"] = {
            name: {"$each": values, "$slice": -SAMPLES_MAX} for name, values in one.lists.items()
        }
    if one.peaks:
        update["$max"] = dict(one.peaks)
    if one.counts:
        update["$inc"] = dict(one.counts)
    return UpdateOne({"_id": one.attempt_id, **guard}, update, upsert=True)


def find(
    store: Store, attempt_ids: Collection[ObjectId], fields: Sequence[str] | None = None
) -> dict[ObjectId, Document]:
    """The records with these ids, by id, in one query."""
    query = {"_id": {"$in": list(attempt_ids)}}
    found = store["attempts"].find(query, fields or _SHOWN, batch_size=BATCH)
    return {attempt["_id"]: attempt for attempt in found}


def find_within(
    store: Store,
    attempt_ids: Sequence[ObjectId | None],
    fields: Sequence[str] | Literal[False],
    bytes_max: int,
) -> tuple[dict[ObjectId, Document], int]:
    """(records by id, for how many of these ids they were looked for): as far as they fit in.

    fields: False: all of them, without short output.
    """
    found: dict[ObjectId, Document] = {}
    for start in range(0, len(attempt_ids), _AT_ONCE):
        piece = attempt_ids[start : start + _AT_ONCE]
        query = {"_id": {"$in": [one for one in piece if one]}}
        asked = pages.Asked(query, fields or _SHOWN, limit=_AT_ONCE)
        part = pages.read(store["attempts"], asked, bytes_max)
        read = {one["_id"]: one for one in part.documents}
        found |= read
        bytes_max -= part.size_bytes
        if part.is_cut or (bytes_max <= 0 and start + _AT_ONCE < len(attempt_ids)):
            whole = (n for n, one in enumerate(piece) if one and one not in read)
            return found, max(start + (next(whole, len(piece)) if part.is_cut else len(piece)), 1)
    return found, len(attempt_ids)


# What a task must be read with to ask for its attempts.
ASKED_WITH = ("owner", "seq")


def _of(task: Document) -> Document:
    """The query for the attempts of this task, and of no forgotten one that had its id before.

    Those of a forgotten task go after it, and meanwhile anybody may submit one with its id.
    Records of earlier versions name only the owner.
    """
    of_this = {"$in": [task.get("seq"), None]}
    return {"task": task["_id"], "owner": task["owner"], "task_seq": of_this}


def of_task(store: Store, task: Document, bytes_max: int = sys.maxsize) -> pages.Part:
    """The attempts of a task, the first first; where they are too many, the last ones."""
    newest_first = [("attempt_count", -1)]
    asked = pages.Asked(_of(task), _SHOWN, newest_first)
    part = pages.read(store["attempts"], asked, bytes_max)
    return part._replace(documents=part.documents[::-1])


def times_of_task(store: Store, task: Document) -> list[Document]:
    """When the attempts of a task were claimed, began and ended, the first first.

    A worker may claim a task and give it back without end: of so many the first ones.
    """
    found = store["attempts"].find(_of(task), _TIMES).sort("attempt_count", 1)
    return list(found.limit(_TIMED_MAX))


def one_of_task(store: Store, task: Document, attempt_count: int | None) -> Document | None:
    """The attempt of a task with this number, else the latest, with its short output."""
    query = _of(task)
    if attempt_count is not None:
        query["attempt_count"] = attempt_count
    return store["attempts"].find_one(query, _OF_LOG, sort=[("attempt_count", -1)])


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
