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
)
from banyan.domain.states import ENDED, State
from banyan.server.store.mongo import Document, Store, new_etag, now

T = TypeVar("T")
Edge = tuple[str, ObjectId, ObjectId]  # the parent's list, the parent, the child

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
    # First what workers write as well, who run these parents: a transaction in which they write
    # what it is about to is begun anew.
    parents, updates = _parent_ends(to_parents, tasks)
    children = _child_ends(to_children)
    if parents or children:
        result = store["tasks"].bulk_write([*updates, *children], session=session)
        if result.matched_count != parents + len(children):
            raise GraphChangedError
    store["tasks"].insert_many(tasks, session=session)


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


def _parent_ends(edges: Iterable[Edge], tasks: Sequence[Document]) -> tuple[int, list[UpdateMany]]:
    """How many parents there are, and one statement for all that get the same children."""
    waiting = {task["_id"]: set(task["open_parents"]) for task in tasks}
    added: dict[tuple[ObjectId, bool], dict[str, list[ObjectId]]] = {}
    for name, parent, child in edges:
        is_open = parent in waiting[child]
        added.setdefault((parent, is_open), {}).setdefault(name, []).append(child)
    alike: dict[tuple[bool, str], list[ObjectId]] = {}
    for (parent, is_open), lists in added.items():
        alike.setdefault((is_open, repr(lists)), []).append(parent)
    updates = []
    for (is_open, _), parents in alike.items():
        lists = added[parents[0], is_open]
        guard = {"state": {"$nin": _ENDED}} if is_open else {}
        push = {name: {"$each": children} for name, children in lists.items()}
        query = {"_id": {"$in": parents}, **guard}
        updates.append(UpdateMany(query, {"$push": push, "$set": _stamp()}, hint="_id_"))
    return len(added), updates


def write_links(
    store: Store, parent_write: UpdateOne | None, child_writes: Sequence[UpdateOne],
    session: ClientSession,
) -> None:  # fmt: skip
    """The two ends of edges between existing tasks. Errors: GraphChangedError."""
    writes = [*([parent_write] if parent_write else []), *child_writes]
    if writes and store["tasks"].bulk_write(writes, session=session).matched_count != len(writes):
        raise GraphChangedError


def _stamp() -> Document:
    return {"_etag": new_etag(), "_updated": now()}
