"""Tasks: the guarded write, and the reads that decisions are made from.

`apply` builds each filter from the Change itself, so that no caller can forget the
guard. It is the only way in which the state of a task is written; settling and linking
(`edges.py`) are its only company.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from bson import ObjectId
from pymongo import ReturnDocument, UpdateOne
from pymongo.client_session import ClientSession
from pymongo.errors import BulkWriteError

from banyan.domain.lifecycle import Change
from banyan.server.store.mongo import (
    BATCH,
    DUPLICATE_KEY,
    Document,
    Store,
    losers,
    new_etag,
    now,
)
from banyan.server.store.told import told_etag

_VALIDATION_FAILED = 121


def find(
    store: Store,
    task_ids: Collection[ObjectId],
    scope: Mapping[str, Any] | None = None,
    fields: Sequence[str] | Mapping[str, Any] | None = None,
) -> dict[ObjectId, Document]:
    """The tasks with these ids that are within the caller's scope, by id, in one query.

    fields: their names, or a projection.
    """
    query = {"_id": {"$in": list(task_ids)}, **(scope or {})}
    return {task["_id"]: task for task in store["tasks"].find(query, fields, batch_size=BATCH)}


def apply(store: Store, changes: Sequence[Change]) -> list[Document | None]:
    """Write each change where the task still is as the change expects.

    One command, however many changes. Returns for each the fields that were written, with
    the task's new version, or None where it lost a race.
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
        for place in losers(error, DUPLICATE_KEY, _VALIDATION_FAILED):
            written[place] = None
    return written


def apply_one(store: Store, change: Change) -> Document | None:
    """As `apply`, of one change: the whole task as it is then, or None where it lost a race."""
    update = _update(change, {**change.set, "_etag": told_etag(), "_updated": now()})
    query = {"_id": change.task_id, **change.expected}
    return store["tasks"].find_one_and_update(query, update, return_document=ReturnDocument.AFTER)


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
    """All tasks that these workers hold."""
    query = {"holder.worker": {"$in": list(workers)}, "state": {"$in": list(_HELD)}}
    return list(store["tasks"].find(query, fields, batch_size=BATCH))


def of_attempt(store: Store, attempt_id: ObjectId) -> Document | None:
    """The task that this attempt holds now."""
    attempt = store["attempts"].find_one({"_id": attempt_id}, ["task"])
    query = {"holder.attempt": attempt_id, "state": {"$in": list(_HELD)}}
    return attempt and store["tasks"].find_one({"_id": attempt["task"], **query}, ["owner"])


def held(store: Store, query: Mapping[str, Any]) -> list[Document]:
    """Tasks that some worker holds and that match."""
    query = {"state": {"$in": list(_HELD)}, **query}
    return list(store["tasks"].find(query, batch_size=BATCH))


def workers_that_hold(store: Store) -> list[ObjectId]:
    """The workers that hold at least one task: one index seek each."""
    found: set[ObjectId] = set()
    for state in _HELD:  # both at once would cost a look at every task
        query = {"state": state, "holder.worker": {"$gte": _LEAST}}
        found.update(store["tasks"].distinct("holder.worker", query))
    return list(found)


def claimed_with(store: Store, worker: ObjectId, claim_id: str) -> list[Document]:
    """What an earlier request of this worker with the same claim_id has claimed."""
    query = {"holder.claim_id": claim_id, "holder.worker": worker}
    found = list(store["tasks"].find(query, batch_size=BATCH))
    return sorted(found, key=lambda task: (-task["priority"], task["seq"]))  # as it was answered


def wake_due(store: Store) -> int:
    """Take the mark off tasks whose delay is over, which wakes whoever waits for work."""
    # The type is that of the index's own filter, without which MongoDB would not use it.
    query = {"wake_at": {"$lte": now(), "$type": "date"}, "state": "available"}
    update = {"$set": {"wake_at": None, "_etag": new_etag(), "_updated": now()}}
    return store["tasks"].update_many(query, update).modified_count


_HELD = ("running", "pending_cancellation")
_LEAST = ObjectId("0" * 24)
