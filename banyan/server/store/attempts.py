"""The record of each attempt: made at the claim, filled in at the end, never overwritten.

The truth about who holds a task stands in the task. These records follow it, and every
write here may be repeated.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bson import ObjectId
from pymongo import UpdateOne

from banyan.domain.lifecycle import Change
from banyan.server.store.mongo import Document, Store, new_etag, now

# Samples of usage kept for one attempt; the oldest go first, the peaks stay.
SAMPLES_MAX = 500


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


def record(store: Store, changes: Sequence[Change]) -> None:
    """Write what these changes say of their attempts."""
    report(store, [Addition(one.attempt_id, one.task_id, one.attempt) for one in changes])


def report(store: Store, additions: Sequence[Addition]) -> None:
    """Write all additions in one command.

    As upserts: a record is made here too if a server was killed after the claim.
    """
    updates = [
        _update(one)
        for one in additions
        if one.attempt_id and (one.fields or one.lists or one.peaks)
    ]
    if updates:
        store["attempts"].bulk_write(updates, ordered=False)


def _update(one: Addition) -> UpdateOne:
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
    return UpdateOne({"_id": one.attempt_id}, update, upsert=True)


def find(
    store: Store, attempt_ids: Collection[ObjectId], fields: Sequence[str] | None = None
) -> dict[ObjectId, Document]:
    """The records with these ids, by id, in one query."""
    found = store["attempts"].find({"_id": {"$in": list(attempt_ids)}}, fields)
    return {attempt["_id"]: attempt for attempt in found}


def of_task(store: Store, task_id: ObjectId) -> list[Document]:
    """All attempts of a task, the first first."""
    return list(store["attempts"].find({"task": task_id}).sort("attempt_count", 1))
