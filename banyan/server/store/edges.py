"""Writes that touch both ends of an edge, and the settling of ended parents.

Edges are written in transactions, both ends at once: a crash leaves a whole edge or
none. Settling needs none: it takes parents out of sets, so any part of it may be done
again, and the mark `unsettled` on the parent stays until all of it is done.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence

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
from banyan.server.store import walks
from banyan.server.store.mongo import BATCH, Document, Store, new_etag, now
from banyan.server.store.sizes import RELATIVES_MAX

Edge = tuple[str, ObjectId, ObjectId]  # the parent's list, the parent, the child

PARENT_FIELDS = ["state", "ended_as", "owner"]
_LENGTHS = [{"$size": {"$ifNull": [f"${name}", []]}} for name in CHILD_LISTS]


class GraphChangedError(Exception):
    """A task at one end of an edge is no longer as it was read: read again, decide again.

    Its arguments: ended tasks that are to be settled before that.
    """


def guard(store: Store, owners: Collection[str], session: ClientSession) -> None:
    """Let transactions that decide by the edges of one of these owners come one after another.

    Two requests could each add half of a cycle, which neither would see in its own snapshot.
    Both write one document of each owner whose tasks they go by, so that the second begins anew
    after the first. It may be called at any moment of a transaction that has written nothing
    yet; the later, the less it is in others' way.
    """
    touch = {"$inc": {"version": 1}}
    updates = [UpdateOne({"_id": f"edges of {one}"}, touch, upsert=True) for one in sorted(owners)]
    if updates:
        store["guards"].bulk_write(updates, session=session)


def owners_of(store: Store, task_ids: Collection[ObjectId], session: ClientSession) -> set[str]:
    """Whose tasks these are."""
    query = {"_id": {"$in": list(task_ids)}}
    return set(store["tasks"].distinct("owner", query, session=session)) if task_ids else set()


def children_among(
    store: Store,
    parents: Collection[ObjectId],
    children: Collection[ObjectId],
    session: ClientSession,
) -> dict[ObjectId, set[ObjectId]]:
    """Of each of these parents, which of these tasks it names as its children."""
    if not parents:
        return {}
    lists = [{"$ifNull": [f"${name}", []]} for name in CHILD_LISTS]
    named = {"$setIntersection": [{"$setUnion": lists}, list(children)]}
    query = {"_id": {"$in": list(parents)}}
    found = store["tasks"].find(query, {"named": named}, batch_size=BATCH, session=session)
    return {task["_id"]: set(task["named"]) for task in found}


def waits_around(
    store: Store,
    parents: Collection[ObjectId],
    children: Collection[ObjectId],
    owners: set[str],
    session: ClientSession,
) -> set[walks.Pair]:
    """Who waits for whom where edges between these might close a cycle; all owners are guarded.

    owners: of the parents and the children. Two that add parts of one cycle have one in common:
    each has looked at an end of the other's edge.
    Errors: `invalid` where it is too much to look at.
    """
    try:
        found = walks.waits_around(store, parents, children, session)
    except walks.TooFarError:
        message = (
            f"whether this makes a cycle can't be seen within {walks.BOUNDS_TOLD} above and "
            "below: make such edges together with their tasks"
        )
        raise BanyanError("invalid", message) from None
    guard(store, found.owners | owners, session)
    return found.pairs


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
    # Their lists may be long, and are not needed.
    fields = {**dict.fromkeys(PARENT_FIELDS, 1), "child_count": {"$add": _LENGTHS}}
    read = store["tasks"].find(query, fields, batch_size=BATCH, session=session)
    found = {task["_id"]: task for task in read}
    for task in found.values():
        _refuse_beyond(task["_id"], task.pop("child_count"), "wait for it")
    return found


def _refuse_more(task: Document, lists: Sequence[str], what: str) -> None:
    """Errors: `too_large` where a task has more relatives than its document has room for."""
    _refuse_beyond(task["_id"], sum(len(task.get(name) or ()) for name in lists), what)


def _refuse_beyond(task_id: ObjectId, count: int, what: str) -> None:
    if count > RELATIVES_MAX:
        message = (
            f"of task {task_id} {count:,} tasks would {what}, and at most {RELATIVES_MAX:,} may"
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


def without_parents(parents: list[ObjectId], lists: Mapping[str, list[ObjectId]]) -> list[Document]:
    """The pipeline that takes edges off a child.

    parents: those with which it has no edge any more; lists: whom to take off which list.
    """
    left = {"$setDifference": ["$open_parents", parents]}
    # No $filter: it compares each of the one with each of the other.
    kept = {name: {"$setDifference": [f"${name}", gone]} for name, gone in lists.items()}
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
    store: Store,
    writes: Sequence[UpdateOne],
    children: Iterable[ObjectId],
    session: ClientSession,
) -> None:
    """The two ends of edges between existing tasks. Errors: GraphChangedError, `too_large`.

    children: those that get more parents.
    """
    if writes and store["tasks"].bulk_write(writes, session=session).matched_count != len(writes):
        raise GraphChangedError
    _refuse_too_many_parents(store, children, session)


def _stamp() -> Document:
    return {"_etag": new_etag(), "_updated": now()}
