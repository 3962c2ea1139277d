"""Tasks: the guarded write, and the reads that decisions are made from.

`apply` builds each filter from the Change itself, so that no caller can forget the
guard. It is the only way in which the state of a task is written; settling and linking
(`edges.py`) are its only company.
"""

import logging
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

from bson import ObjectId
from pymongo import ReturnDocument, UpdateOne
from pymongo.client_session import ClientSession
from pymongo.errors import BulkWriteError, OperationFailure

from banyan.domain.lifecycle import Change
from banyan.domain.states import ENDED, State
from banyan.domain.tallies import RESOURCES
from banyan.server.store import pages, sizes, walks
from banyan.server.store.mongo import (
    BATCH,
    DUPLICATE_KEY,
    FORGETTABLE,
    Document,
    Store,
    losers,
    new_etag,
    now,
)
from banyan.server.store.told import told_etag

HELD_MAX = 100_000  # that a beat may name
HELD_AT_ONCE = 500  # given back in one transaction
HELD_INDEX = "held_of_owner"
DELAYED_INDEX = "wake_of_owner"
_VALIDATION_FAILED = 121
# In place of what was written: MongoDB has refused it, as the task would be too large.
TOO_LARGE: Document = {}
# What a task can do without when its state cannot be written else, and what one that ends can.
_LARGE = ("progress", "result")
_LARGE_AT_END = (*_LARGE, "env", "tags")

logger = logging.getLogger(__name__)


# Of many tasks their results would be more than an answer has room for.
WITHOUT_RESULT: Mapping[str, Any] = {"result": 0}


def find(
    store: Store,
    task_ids: Collection[ObjectId],
    scope: Mapping[str, Any] | None = None,
    fields: Sequence[str] | Mapping[str, Any] | None = None,
    bounded: bool = False,
) -> dict[ObjectId, Document]:
    """The tasks with these ids that are within the caller's scope, by id, in one query.

    fields:  their names, or a projection.
    bounded: see `walks.bounded`. Errors: `too_large`.
    """
    query = {"_id": {"$in": list(task_ids)}, **(scope or {})}
    found: Iterable[Document] = store["tasks"].find(query, fields, batch_size=BATCH)
    return {task["_id"]: task for task in (walks.bounded(found) if bounded else found)}


def apply(store: Store, changes: Sequence[Change]) -> list[Document | None]:
    """Write each change where the task still is as the change expects.

    One command, however many changes. Returns for each the fields that were written, with
    the task's new version, None where it lost a race, or TOO_LARGE. A task that is too large to
    change its state gives up what `without_payload` names first.
    A plain bulk write tells only how many matched. As upserts, those whose guard does not
    match try to insert a task that exists, and are named one by one as duplicates.
    """
    if not changes:
        return []
    written: list[Document | None] = [
        {**change.set, "_etag": new_etag(), "_updated": now()} for change in changes
    ]
    updates = [_guarded(one, fields or {}) for one, fields in zip(changes, written, strict=True)]
    try:
        store["tasks"].bulk_write(updates, ordered=False)
    except BulkWriteError as error:
        lost = losers(error, DUPLICATE_KEY, _VALIDATION_FAILED, *sizes.CODES)
        refused = {
            one["index"] for one in error.details["writeErrors"] if one["code"] in sizes.CODES
        }
        for place in lost:
            written[place] = _once_more(store, changes[place]) if place in refused else None
    return written


def apply_one(store: Store, change: Change) -> Document | None:
    """As `apply`, of one change; what was written is the whole task as it is then."""
    try:
        return _write_one(store, change)
    except OperationFailure as error:
        if not sizes.is_too_large(error):
            raise
    return _once_more(store, change)


def _write_one(store: Store, change: Change) -> Document | None:
    update = _update(change, {**change.set, "_etag": told_etag(), "_updated": now()})
    query = {"_id": change.task_id, **change.expected}
    return store["tasks"].find_one_and_update(query, update, return_document=ReturnDocument.AFTER)


def _once_more(store: Store, change: Change) -> Document | None:
    """Writes a change that was refused for its size with ever less of the task."""
    for smaller in without_payload(change):
        try:
            written = _write_one(store, smaller)
        except OperationFailure as error:
            if not sizes.is_too_large(error):
                raise
            continue
        if written:
            lost = ", ".join(sorted(set(smaller.unset) - set(change.unset)))
            told = "task %s was too large to become %s: it has lost its %s"
            logger.error(told, change.task_id, change.set["state"], lost)
        return written
    logger.error("task %s is too large to be changed", change.task_id)
    return TOO_LARGE


def without_payload(change: Change) -> list[Change]:
    """What may be written where a change of state is refused for the size of its task.

    No state may depend on how much a task has said: what cannot be ended would hold its worker.
    """
    if "state" not in change.set:
        return []
    stages: list[Sequence[str]] = [_LARGE]
    if State(change.set["state"]) in {*ENDED, State.PENDING_CANCELLATION}:
        stages.append(_LARGE_AT_END)
    return [_without(change, names) for names in stages]


def _without(change: Change, names: Sequence[str]) -> Change:
    kept = {name: value for name, value in change.set.items() if name not in names}
    if kept["state"] == State.AVAILABLE:
        kept["reason"] = None  # the record of the attempt has it
    return replace(change, set=kept, unset=(*change.unset, *names))


def write(store: Store, changes: Sequence[Change], session: ClientSession) -> list[Document]:
    """Write changes of tasks that this transaction has seen to be as they are expected."""
    written = [{**change.set, "_etag": new_etag(), "_updated": now()} for change in changes]
    if changes:
        updates = [_guarded(*one, upsert=False) for one in zip(changes, written, strict=True)]
        store["tasks"].bulk_write(updates, ordered=False, session=session)
    return written


def _guarded(change: Change, fields: Document, upsert: bool = True) -> UpdateOne:
    query = {"_id": change.task_id, **change.expected}
    return UpdateOne(query, _update(change, fields), upsert=upsert)


def _update(change: Change, fields: Document) -> Document:
    return {"$set": fields, **({"$unset": dict.fromkeys(change.unset, "")} if change.unset else {})}


def states(store: Store, task_ids: Iterable[ObjectId]) -> dict[ObjectId, str]:
    """What state these tasks are in now: what a loser is told."""
    query = {"_id": {"$in": list(task_ids)}}
    found = store["tasks"].find(query, {"state": 1}, batch_size=BATCH)
    return {task["_id"]: task["state"] for task in found}


def newest(store: Store, query: Mapping[str, Any], limit: int) -> list[ObjectId]:
    """The ids of the tasks that match, the newest first; at most so many."""
    found = store["tasks"].find(query, ["_id"], batch_size=BATCH)
    return [task["_id"] for task in found.sort("_id", -1).limit(limit)]


def held_by(
    store: Store, workers: Collection[ObjectId], fields: Sequence[str] | None = None
) -> list[Document]:
    """All tasks that these workers hold, as far as a beat may name them."""
    return list(store["tasks"].find(_held_by(workers), fields, batch_size=BATCH, limit=HELD_MAX))


def held_in_pieces(
    store: Store, workers: Collection[ObjectId], fields: Sequence[str], owner: str | None = None
) -> Iterator[list[Document]]:
    """All tasks that these workers hold, some at a time: nothing says how many they claim.

    owner: whose tasks; None: everybody's.
    """
    query = {**_held_by(workers), **({} if owner is None else {"owner": owner})}
    # The other index of owners would go through all tasks of theirs that run anywhere.
    found = store["tasks"].find(query, fields, batch_size=HELD_AT_ONCE, hint=HELD_INDEX)
    while piece := list(islice(found, HELD_AT_ONCE)):
        yield piece


def owners_held_by(store: Store, workers: Collection[ObjectId]) -> set[str]:
    """Whose tasks these workers hold: one index seek for each worker and owner."""
    owners: set[str] = set()
    for state in _HELD:
        query = {"state": state, "holder.worker": {"$in": list(workers)}}
        owners.update(store["tasks"].distinct("owner", query))
    return owners


def granted_by(
    store: Store, workers: Collection[ObjectId]
) -> Iterator[tuple[ObjectId, Mapping[str, Any]]]:
    """(worker, what it has granted) of each task that one of these workers holds."""
    fields = ["holder.worker", "holder.granted"]
    for task in store["tasks"].find(_held_by(workers), fields, batch_size=BATCH):
        yield task["holder"]["worker"], task["holder"]["granted"]


def reserved_by(store: Store, workers: Collection[ObjectId]) -> dict[ObjectId, Document]:
    """{"running", "cores", "memory_bytes", "gpu_count"} of each worker that holds any task."""
    sums = {name: {"$sum": f"$holder.granted.{name}"} for name in RESOURCES}
    group = {"_id": "$holder.worker", "running": {"$sum": 1}, **sums}
    found = store["tasks"].aggregate([{"$match": _held_by(workers)}, {"$group": group}])
    return {one.pop("_id"): one for one in found}


def _held_by(workers: Collection[ObjectId]) -> Document:
    return {"holder.worker": {"$in": list(workers)}, "state": {"$in": list(_HELD)}}


def of_attempt(store: Store, attempt_id: ObjectId) -> Document | None:
    """The task that this attempt holds now.

    None also where the account of its owner, or of its worker, has been revoked. One command.
    """
    held = {"holder.attempt": attempt_id, "state": {"$in": list(_HELD)}}
    fields = {"owner": 1, "submission_depth": 1, "accounts": ["$owner", "$holder.account"]}
    task = {
        "from": "tasks",
        "localField": "task",
        "foreignField": "_id",
        "pipeline": [{"$match": held}, {"$project": fields}],
        "as": "task",
    }
    revoked = {
        "from": "accounts",
        "localField": "accounts",
        "foreignField": "name",
        "pipeline": [{"$match": {"revoked": True}}],
        "as": "revoked",
    }
    pipeline: list[Document] = [
        {"$match": {"_id": attempt_id}},
        {"$lookup": task},
        {"$unwind": "$task"},
        {"$replaceWith": "$task"},
        {"$lookup": revoked},
        {"$match": {"revoked": []}},
    ]
    return next(iter(store["attempts"].aggregate(pipeline)), None)


def held(
    store: Store, query: Mapping[str, Any], fields: Sequence[str] | None = None
) -> list[Document]:
    """Tasks that some worker holds and that match."""
    query = {"state": {"$in": list(_HELD)}, **query}
    return list(store["tasks"].find(query, fields, batch_size=BATCH))


def held_within(store: Store, query: Mapping[str, Any], bytes_max: int) -> pages.Part:
    """As `held`, as many as fit in."""
    query = {"state": {"$in": list(_HELD)}, **query}
    return pages.read(store["tasks"], pages.Asked(query), bytes_max)


def workers_that_hold(store: Store) -> list[ObjectId]:
    """The workers that hold at least one task: one index seek each."""
    found: set[ObjectId] = set()
    for state in _HELD:  # both at once would cost a look at every task
        query = {"state": state, "holder.worker": {"$gte": _LEAST}}
        found.update(store["tasks"].distinct("holder.worker", query))
    return list(found)


def count_submissions(store: Store, task_id: ObjectId, number: int, most: int) -> bool:
    """Add to the number of tasks that a task has submitted; False where it would pass `most`.

    An addition that is forgotten in a crash does no harm: it is a bound, not an account.
    """
    collection = store["tasks"].with_options(write_concern=FORGETTABLE)
    query = {"_id": task_id, "submission_count": {"$not": {"$gt": most - number}}}
    changed = {"_etag": new_etag(), "_updated": now()}
    update = {"$inc": {"submission_count": number}, "$set": changed}
    return number <= most and collection.update_one(query, update).matched_count == 1


def claimed_with(
    store: Store,
    worker: ObjectId,
    claim_id: str,
    fields: Sequence[str] | Mapping[str, Any] | None,
    bytes_max: int,
) -> list[Document]:
    """What an earlier request of this worker with the same claim_id has claimed; what fits in."""
    query = {"holder.claim_id": claim_id, "holder.worker": worker}
    found = pages.read(store["tasks"], pages.Asked(query, fields), bytes_max).documents
    return sorted(found, key=lambda task: (-task["priority"], task["seq"]))  # as it was answered


def owners_due(store: Store) -> list[str]:
    """Who has tasks whose delay is over: one index seek for each owner that delays any."""
    return list(store["tasks"].distinct("owner", _due()))


def due(store: Store, owner: str, limit: int) -> list[ObjectId]:
    """Of the owner's tasks whose delay is over those that wait longest, so many at most."""
    query = {"owner": owner, **_due()}
    found = store["tasks"].find(query, ["_id"], batch_size=BATCH, hint=DELAYED_INDEX)
    return [task["_id"] for task in found.sort("wake_at", 1).limit(limit)]


def wake(store: Store, task_ids: Collection[ObjectId]) -> None:
    """Take the mark off those of these tasks whose delay is over, so that they are claimed."""
    update = {"$set": {"wake_at": None, "_etag": new_etag(), "_updated": now()}}
    store["tasks"].update_many({"_id": {"$in": list(task_ids)}, **_due()}, update)


def _due() -> Document:
    # The type is that of the index's own filter, without which MongoDB would not use it.
    return {"state": "available", "wake_at": {"$lte": now(), "$type": "date"}}


_HELD = ("running", "pending_cancellation")
_LEAST = ObjectId("0" * 24)
