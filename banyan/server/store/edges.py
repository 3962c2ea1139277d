"""Writes that touch both ends of an edge, and the settling of ended parents.

Edges are written in transactions, both ends at once: a crash leaves a whole edge or
none. Settling needs none: it takes parents out of sets, so any part of it may be done
again, and the mark `unsettled` on the parent stays until all of it is done.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from bson import ObjectId
from pymongo import UpdateMany, UpdateOne
from pymongo.client_session import ClientSession

from banyan.domain.continuations import (
    CHILD_LISTS,
    EDGES,
    PARENT_LISTS,
    Cancel,
    Release,
    parents_of,
)
from banyan.domain.lifecycle import activated, ended
from banyan.domain.states import ENDED, Ending, State
from banyan.server.store.mongo import BATCH, Document, Store, new_etag, now

T = TypeVar("T")
Edge = tuple[str, ObjectId, ObjectId]  # the parent's list, the parent, the child

CHILD_FIELDS = ["state", "command", "open_parents", "not_before", "revival_count", *PARENT_LISTS]
_GRAPH_FIELDS = ["state", *CHILD_LISTS]
_ENDED = [str(state) for state in ENDED]


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


def insert(
    store: Store,
    tasks: Sequence[Document],
    to_children: Iterable[Edge],
    to_parents: Iterable[Edge],
    session: ClientSession | None,
) -> None:
    """Store new tasks, and the other ends of their edges to tasks that exist.

    to_children: edges from new parents to existing children, which must be inactive.
    to_parents:  edges from existing parents to new children; a parent that was open when
                 the children were made must still be.
    Errors: GraphChangedError; DuplicateKeyError or BulkWriteError where an id is taken.
    """
    store["tasks"].insert_many(tasks, session=session)
    updates = [*_child_ends(to_children), *_parent_ends(to_parents, tasks)]
    if updates:
        result = store["tasks"].bulk_write(updates, session=session)
        if result.matched_count != len(updates):
            raise GraphChangedError


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


def _parent_ends(edges: Iterable[Edge], tasks: Sequence[Document]) -> list[UpdateOne]:
    waiting = {task["_id"]: set(task["open_parents"]) for task in tasks}
    added: dict[tuple[ObjectId, bool], dict[str, list[ObjectId]]] = {}
    for name, parent, child in edges:
        is_open = parent in waiting[child]
        added.setdefault((parent, is_open), {}).setdefault(name, []).append(child)
    updates = []
    for (parent, is_open), lists in added.items():
        guard = {"state": {"$nin": _ENDED}} if is_open else {}
        push = {name: {"$each": children} for name, children in lists.items()}
        updates.append(UpdateOne({"_id": parent, **guard}, {"$push": push, "$set": _stamp()}))
    return updates


def write_links(
    store: Store, parent_write: UpdateOne | None, child_writes: Sequence[UpdateOne],
    session: ClientSession,
) -> None:  # fmt: skip
    """The two ends of edges between existing tasks. Errors: GraphChangedError."""
    writes = [*([parent_write] if parent_write else []), *child_writes]
    if writes and store["tasks"].bulk_write(writes, session=session).matched_count != len(writes):
        raise GraphChangedError


# --- Settling ---------------------------------------------------------------------------


def unsettled(store: Store, task_ids: Collection[ObjectId] | None, limit: int) -> list[Document]:
    """Ended tasks whose children are not all settled: of these ids, or any."""
    query: dict[str, Any] = {"unsettled": True}
    if task_ids is not None:
        query["_id"] = {"$in": list(task_ids)}
    fields = ["state", "ended_as", "revival_count", *PARENT_LISTS]
    return list(store["tasks"].find(query, fields, batch_size=BATCH).limit(limit))


def waiting_for(store: Store, parents: Collection[ObjectId]) -> list[Document]:
    """The children that still count one of these parents as open."""
    query = {"open_parents": {"$in": list(parents)}, "state": State.INACTIVE}
    return list(store["tasks"].find(query, CHILD_FIELDS, batch_size=BATCH))


def write_settlements(
    store: Store, children: Mapping[ObjectId, Document], decided: Sequence[Release | Cancel]
) -> None:
    """One bulk write; each part holds only while the child still waits for the parent.

    A child that was retried since it was read waits anew, for another end of its parent.
    """
    updates = [
        _release(children[one.child], one)
        if isinstance(one, Release)
        else _cancel(children[one.child], one)
        for one in decided
    ]
    store["tasks"].bulk_write(updates, ordered=False)


def _release(child: Document, release: Release) -> UpdateOne:
    """Take ended parents out of the set; the write that empties it moves the child on."""
    time = now()
    ready = {name: {"$literal": value} for name, value in activated(child, time).items()}
    is_ready = {"$eq": [{"$size": "$open_parents"}, 0]}
    parents = list(release.parents)
    return UpdateOne(
        {**_as_read(child), "open_parents": {"$in": parents}},
        [
            {"$set": {"open_parents": {"$setDifference": ["$open_parents", parents]}, **_stamp()}},
            {"$set": {"pending_dependency_count": {"$size": "$open_parents"}}},
            {"$set": {name: _if(is_ready, value, name) for name, value in ready.items()}},
        ],
    )


def _as_read(child: Document) -> Document:
    revival_count = child.get("revival_count")
    return {"_id": child["_id"], "state": State.INACTIVE, "revival_count": revival_count}


def _if(condition: Document, value: Document, field: str) -> Document:
    return {"$cond": [condition, value, f"${field}"]}


def _cancel(child: Document, cancel: Cancel) -> UpdateOne:
    how = "was cancelled" if cancel.ending is Ending.CANCELLED else f"ended in {cancel.ending}"
    fields = ended(None, Ending.CANCELLED, f"parent {cancel.parent} {how}")
    return UpdateOne(
        {**_as_read(child), "open_parents": cancel.parent},
        {"$set": {**fields, "cancelled_because": cancel.parent, **_stamp()}},
    )


def take_out(store: Store, cancelled: Sequence[Document]) -> None:
    """Take cancelled children out of every list that names them."""
    parents = {parent for task in cancelled for parent in parents_of(task)}
    if parents:
        pulls = {name: {"$in": [task["_id"] for task in cancelled]} for name in CHILD_LISTS}
        query = {"_id": {"$in": list(parents)}}
        update = {"$pull": pulls, "$set": _stamp()}
        store["tasks"].bulk_write([UpdateMany(query, update)])


def mark_settled(store: Store, parents: Collection[Document]) -> None:
    """Their children are all settled: upkeep need not look at them again.

    Only this end of theirs is meant: a task that was retried may have ended once more.
    """
    ended: dict[int | None, list[ObjectId]] = {}
    for parent in parents:
        ended.setdefault(parent.get("revival_count"), []).append(parent["_id"])
    for revival_count, ids in ended.items():
        query = {"_id": {"$in": ids}, "unsettled": True, "revival_count": revival_count}
        store["tasks"].update_many(query, {"$set": {"unsettled": False}})


def _stamp() -> Document:
    return {"_etag": new_etag(), "_updated": now()}
