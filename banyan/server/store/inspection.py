"""What the doctor reads: tasks, a few hundred at a time, with all that hangs on them.

Each batch is one snapshot of the database, so that what is compared was there together.
Nothing is written here, and what is read is never more than a batch.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from bson import ObjectId
from pymongo.client_session import ClientSession

from banyan.domain.continuations import CHILD_LISTS, PARENT_LISTS, children_of, parents_of
from banyan.domain.scheduling import DURATIONS
from banyan.server.store.indexes import INDEXES
from banyan.server.store.mongo import Document, Store

TASKS_AT_ONCE = 500
_TASK_FIELDS = [
    "state", "command", "owner", "outcome", "ended_as", "unsettled", "revival_count", "holder",
    "attempt_id", "attempt_count", "open_parents", "pending_dependency_count", "seq", "_updated",
    "shape", "requested_resources", "queue", "labels", *DURATIONS, *CHILD_LISTS, *PARENT_LISTS,
]  # fmt: skip
_RELATED_FIELDS = [
    "state", "owner", "ended_as", "unsettled", "revival_count", *CHILD_LISTS, *PARENT_LISTS,
]  # fmt: skip
_ATTEMPT_FIELDS = [
    "task", "task_seq", "attempt_count", "worker", "time_terminated", "exit_status",
]  # fmt: skip
# Collections whose documents belong to a task, by the field that names it.
_OF_TASKS = {"attempts": "_id", "log_chunks": "attempt"}


@dataclass(frozen=True)
class Batch:
    """Some tasks as they were at one instant.

    related:  the tasks at the other ends of their edges, these included, as far as they exist.
    attempts: the records of each task's attempts, the first first.
    workers:  those that hold any of them, as far as they exist.
    time:     of the database, when it was read.
    """

    tasks: Sequence[Document]
    related: Mapping[ObjectId, Document]
    attempts: Mapping[ObjectId, Sequence[Document]]
    workers: Mapping[ObjectId, Document]
    time: datetime


def batches(store: Store, task_ids: Collection[ObjectId] | None = None) -> Iterator[Batch]:
    """All tasks, or these, in the order of their ids."""
    last: ObjectId | None = None
    while True:
        bounds: dict[str, Any] = {"$gt": last} if last else {}
        if task_ids is not None:
            bounds["$in"] = list(task_ids)
        time = store.database.command("hello")["localTime"].replace(tzinfo=UTC)
        with store.client.start_session(snapshot=True) as session:
            batch = _batch(store, session, {"_id": bounds} if bounds else {}, time)
        if not batch.tasks:
            return
        yield batch
        last = batch.tasks[-1]["_id"]


def _batch(store: Store, session: ClientSession, query: Mapping[str, Any], time: datetime) -> Batch:
    found = store["tasks"].find(query, _TASK_FIELDS, session=session, sort=[("_id", 1)])
    tasks = list(found.limit(TASKS_AT_ONCE))
    ids = {task["_id"] for task in tasks}
    named = {other for task in tasks for other in (*children_of(task), *parents_of(task))}
    others = {"_id": {"$in": list(named - ids)}}
    related = {task["_id"]: task for task in tasks}
    for other in store["tasks"].find(others, _RELATED_FIELDS, session=session):
        related[other["_id"]] = other
    attempts: dict[ObjectId, list[Document]] = {one: [] for one in ids}
    mine = {"task": {"$in": list(ids)}}
    in_order = store["attempts"].find(mine, _ATTEMPT_FIELDS, session=session)
    for attempt in in_order.sort("attempt_count", 1):
        task = related[attempt["task"]]
        # One that had the id before may have been forgotten: what is left of it goes soon.
        if attempt.get("task_seq") in (None, task.get("seq")):
            attempts[task["_id"]].append(attempt)
    holding = {task["holder"]["worker"] for task in tasks if task.get("holder")}
    gone = store["workers"].find({"_id": {"$in": list(holding)}}, session=session)
    return Batch(tasks, related, attempts, {one["_id"]: one for one in gone}, time)


def ownerless(store: Store, collection: str) -> Iterator[tuple[ObjectId, ObjectId]]:
    """(attempt, task) of records of attempts, or of output, whose task is not there."""
    key = _OF_TASKS[collection]
    pipeline: list[dict[str, Any]] = [
        {"$sort": {key: 1}},
        {"$group": {"_id": f"${key}", "task": {"$first": "$task"}}},
        {"$lookup": {"from": "tasks", "localField": "task", "foreignField": "_id",
                     "pipeline": [{"$project": {"_id": 1}}], "as": "found"}},
        {"$match": {"found": []}},
    ]  # fmt: skip
    for one in store[collection].aggregate(pipeline, allowDiskUse=True):
        yield one["_id"], one["task"]


def remove_ownerless(store: Store, attempts: Collection[ObjectId]) -> None:
    """Remove the records and the output of these attempts."""
    those = {"$in": list(attempts)}
    store["log_chunks"].delete_many({"attempt": those})
    store["attempts"].delete_many({"_id": those})


def missing_indexes(store: Store) -> list[str]:
    """Indexes that should be there, as `collection.name`."""
    return [
        f"{collection}.{index.document['name']}"
        for collection, indexes in INDEXES.items()
        for index in indexes
        if index.document["name"] not in store[collection].index_information()
    ]


def settle_again(store: Store, task_ids: Collection[ObjectId]) -> None:
    """Mark ended tasks as half settled, so that whoever settles next does it again."""
    ended = {"$in": ["terminated", "cancelled"]}
    query = {"_id": {"$in": list(task_ids)}, "state": ended}
    store["tasks"].update_many(query, {"$set": {"unsettled": True}})
