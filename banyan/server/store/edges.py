"""Writes that touch both ends of an edge, and the settling of ended parents.

Edges are written in transactions, both ends at once: a crash leaves a whole edge or
none. Settling needs none: it takes parents out of sets, so any part of it may be done
again, and the mark `unsettled` on the parent stays until all of it is done.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

from bson import ObjectId
from pymongo import UpdateMany, UpdateOne
from pymongo.client_session import ClientSession

from banyan.domain.continuations import (
    CHILD_LISTS,
    EDGES,
    PARENT_LISTS,
)
from banyan.domain.states import State
from banyan.errors import BanyanError
from banyan.server.store.mongo import BATCH, Document, Store, new_etag, now
from banyan.server.store.sizes import RELATIVES_MAX

T = TypeVar("T")
Edge = tuple[str, ObjectId, ObjectId]  # the parent's list, the parent, the child

_GRAPH_FIELDS = ["state", *CHILD_LISTS]
PARENT_FIELDS = ["state", "ended_as", *CHILD_LISTS]


class GraphChangedError(Exception):
    """A task at one end of an edge is no longer as it was read: read again, decide again.

    Its arguments: ended tasks that are to be settled before that.
    """


def serialised(store: Store, work: Callable[[ClientSession], T]) -> T:
    """Run a transaction that adds edges between existing tasks, one at a time everywhere.

    Two requests could each add half of a cycle, which neither would see in its own
    snapshot. Both write this one document, so that the second runs again after the first.
    """

    def guarded(session: ClientSession) -> T:
        guard = {"$inc": {"version": 1}}
        store["guards"].update_one({"_id": "edges"}, guard, upsert=True, session=session)
        return work(session)

    return store.transaction(guarded)


def descendants(
    store: Store, task_ids: Iterable[ObjectId], session: ClientSession
) -> dict[ObjectId, Document]:
    """All inactive tasks below these, themselves included, level by level.

    A cycle could only consist of inactive tasks: what waits for itself never started.
    """
    seen: dict[ObjectId, Document] = {}
    level = set(task_ids)
    while level:
        query = {"_id": {"$in": list(level)}, "state": State.INACTIVE}
        found = {t["_id"]: t for t in store["tasks"].find(query, _GRAPH_FIELDS, session=session)}
        seen.update(found)
        named = {child for task in found.values() for name in CHILD_LISTS for child in task[name]}
        level = named - seen.keys()
    return seen


def link_parents(
    store: Store, to_parents: Iterable[Edge], session: ClientSession
) -> dict[ObjectId, Document]:
    """Write edges from existing parents to new children at the parents' ends.

    Returns the parents by id: how they are now they are at the end of this transaction, for
    nobody else may write them until then. The sooner in the transaction the better: one in which
    a worker writes what it is about to write is begun anew, and those who run a thousand parents
    write all the time.
    Errors: GraphChangedError where one of them is there no more; `too_large`.
    """
    parents, updates = _parent_ends(to_parents)
    if store["tasks"].bulk_write(updates, session=session).matched_count != len(parents):
        raise GraphChangedError
    query = {"_id": {"$in": parents}}
    read = store["tasks"].find(query, PARENT_FIELDS, batch_size=BATCH, session=session)
    found = {task["_id"]: task for task in read}
    for task in found.values():
        _refuse_more(task, CHILD_LISTS, "wait for it")
    return found


def _refuse_more(task: Document, lists: Sequence[str], what: str) -> None:
    """Errors: `too_large` where a task has more relatives than its document has room for."""
    count = sum(len(task.get(name) or ()) for name in lists)
    if count > RELATIVES_MAX:
        message = (
            f"of task {task['_id']} {count} tasks would {what}, and at most {RELATIVES_MAX} may"
        )
        raise BanyanError("too_large", f"{message}: put a group in between")


def insert(
    store: Store,
    tasks: Sequence[Document],
    to_children: Iterable[Edge],
    session: ClientSession | None,
) -> None:
    """Store new tasks, and the other ends of their edges to tasks that exist.

    to_children: edges from new parents to existing children, which must be inactive.
    Errors: GraphChangedError; DuplicateKeyError or BulkWriteError where an id is taken.
    """
    store["tasks"].insert_many(tasks, session=session)
    updates = _child_ends(to_children)
    if updates:
        result = store["tasks"].bulk_write(updates, session=session)
        if result.matched_count != len(updates):
            raise GraphChangedError
        _refuse_too_many_parents(store, {child for _, _, child in to_children}, session)


def _refuse_too_many_parents(
    store: Store, children: Iterable[ObjectId], session: ClientSession | None
) -> None:
    """Errors: `too_large`; what this transaction has written is undone then."""
    # The last place that may be taken tells it from the outside of the list.
    full = [
        {f"{name}.{RELATIVES_MAX // len(PARENT_LISTS)}": {"$exists": True}} for name in PARENT_LISTS
    ]
    query = {"_id": {"$in": list(children)}, "$or": full}
    for task in store["tasks"].find(query, list(PARENT_LISTS), session=session):
        _refuse_more(task, PARENT_LISTS, "be what it waits for")


def _child_ends(edges: Iterable[Edge]) -> list[UpdateOne]:
    added: dict[ObjectId, dict[str, list[ObjectId]]] = {}
    for name, parent, child in edges:
        added.setdefault(child, {}).setdefault(EDGES[name], []).append(parent)
    return [
        UpdateOne({"_id": child, "state": State.INACTIVE}, with_parents(lists))
        for child, lists in added.items()
    ]


def with_parents(lists: Mapping[str, list[ObjectId]]) -> list[Document]:
    """The pipeline that makes a child wait for more parents; its count follows its set."""
    everyone = list(dict.fromkeys(p for parents in lists.values() for p in parents))
    fields = {name: _union(f"${name}", parents) for name, parents in lists.items()}
    return [
        {"$set": {**fields, "open_parents": _union("$open_parents", everyone)}},
        {"$set": {"pending_dependency_count": {"$size": "$open_parents"}, **_stamp()}},
    ]


def without_parents(parents: list[ObjectId], kept: Mapping[str, list[ObjectId]]) -> list[Document]:
    """The pipeline that takes edges off a child.

    parents: those with which it has no edge any more; kept: its lists as they shall be.
    """
    left = {"$setDifference": ["$open_parents", parents]}
    return [
        {"$set": {**kept, "open_parents": left}},
        {"$set": {"pending_dependency_count": {"$size": "$open_parents"}, **_stamp()}},
    ]


def _union(field: str, ids: list[ObjectId]) -> Document:
    """What the array holds, and after it those of `ids` that it lacks, in their order."""
    return {"$concatArrays": [field, {"$setDifference": [ids, field]}]}


def _parent_ends(edges: Iterable[Edge]) -> tuple[list[ObjectId], list[UpdateMany]]:
    """The parents, and one statement for all that get the same children."""
    added: dict[ObjectId, dict[str, list[ObjectId]]] = {}
    for name, parent, child in edges:
        added.setdefault(parent, {}).setdefault(name, []).append(child)
    alike: dict[str, list[ObjectId]] = {}
    for parent, lists in added.items():
        alike.setdefault(repr(lists), []).append(parent)
    updates = []
    for parents in alike.values():
        push = {name: {"$each": children} for name, children in added[parents[0]].items()}
        query = {"_id": {"$in": parents}}
        updates.append(UpdateMany(query, {"$push": push, "$set": _stamp()}, hint="_id_"))
    return list(added), updates


def write_links(
    store: Store, parent_write: UpdateOne | None, child_writes: Sequence[UpdateOne],
    children: Iterable[ObjectId], session: ClientSession,
) -> None:  # fmt: skip
    """The two ends of edges between existing tasks. Errors: GraphChangedError, `too_large`.

    children: those that get more parents.
    """
    writes = [*([parent_write] if parent_write else []), *child_writes]
    if writes and store["tasks"].bulk_write(writes, session=session).matched_count != len(writes):
        raise GraphChangedError
    _refuse_too_many_parents(store, children, session)


def _stamp() -> Document:
    return {"_etag": new_etag(), "_updated": now()}
