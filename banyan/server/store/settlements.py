"""Ended parents and the children that wait for them: what is read, and the one write a level.

Called by `banyan.server.settle`. The write is in one command and in order: first what becomes
of the children, then the marks of their parents. A server killed in between leaves the marks,
and upkeep does it again, which changes nothing that was done. No write is sent again by itself.
"""

import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from bson import ObjectId
from pymongo import UpdateMany
from pymongo.client_session import ClientSession
from pymongo.errors import OperationFailure

from banyan.domain.continuations import CHILD_LISTS, PARENT_LISTS, Cancel, Release, parents_of
from banyan.domain.lifecycle import activated, ended
from banyan.domain.states import Ending, State
from banyan.server.store import sizes
from banyan.server.store.mongo import BATCH, FORGETTABLE, MAJORITY, Document, Store, new_etag, now

IDS_AT_ONCE = 50_000  # in the lists of tasks that are read together; one may have more

_REVIVED = -1  # no count of revivals
_CHILD_FIELDS = ["state", "command", "not_before", "revival_count"]
_PARENT_FIELDS: Document = {
    **dict.fromkeys(("state", "ended_as", "revival_count"), 1),
    "parent_count": {"$add": [{"$size": {"$ifNull": [f"${name}", []]}} for name in PARENT_LISTS]},
}

# What a child that is too large to be settled gives up; else it is cancelled, and gives up more.
_LARGE = ("progress", "result")
_LARGE_AT_END = (*_LARGE, "env", "tags")
_TOO_LARGE = "its record is too large to be changed: submit it anew, with less"

logger = logging.getLogger(__name__)


class Update(NamedTuple):
    """One statement: of these tasks those that match are changed alike."""

    ids: Sequence[ObjectId]
    query: Mapping[str, Any]
    change: Document | list[Document]

    def statement(self) -> UpdateMany:
        """As the driver has it."""
        query = {"_id": {"$in": list(self.ids)}, **self.query}
        return UpdateMany(query, self.change, hint="_id_")


def unsettled(store: Store, task_ids: Collection[ObjectId]) -> list[Document]:
    """Those of these tasks that ended, and whose children are not all settled."""
    query = {"_id": {"$in": list(task_ids)}, "unsettled": True}
    return list(store["tasks"].find(query, _PARENT_FIELDS, batch_size=BATCH))


def owners_unsettled(store: Store) -> list[str]:
    """Whose tasks are such, one index seek for each owner."""
    return list(store["tasks"].distinct("owner", {"unsettled": True}))


def any_unsettled(store: Store, owner: str, limit: int) -> list[ObjectId]:
    """Such tasks of one owner, so many at most."""
    query = {"unsettled": True, "owner": owner}
    found = store["tasks"].find(query, ["_id"], batch_size=BATCH, hint="unsettled_of_owner")
    return [parent["_id"] for parent in found.limit(limit)]


class Children(NamedTuple):
    """Children by id; whether these are all."""

    by_id: dict[ObjectId, Document]
    is_whole: bool


def waiting_for(store: Store, parents: Collection[ObjectId], limit: int) -> Children:
    """The children that still count one of these parents as open; at most so many.

    Of their lists they have these parents alone: each may wait for a hundred thousand others.
    `open_count` says for how many they wait in all.
    """
    asked = list(parents)
    lists = {name: _among(f"${name}", asked) for name in ("open_parents", *PARENT_LISTS)}
    count = {"$size": "$open_parents"}
    fields: Document = {**dict.fromkeys(_CHILD_FIELDS, 1), **lists, "open_count": count}
    query = {"open_parents": {"$in": asked}, "state": State.INACTIVE}
    batch = max(1, min(BATCH, IDS_AT_ONCE // max(1, len(asked))))
    found = store["tasks"].find(query, fields, batch_size=batch).limit(limit + 1)
    children, is_whole = _bounded(found, ("open_parents", *PARENT_LISTS))
    is_whole = is_whole and len(children) <= limit
    return Children({child["_id"]: child for child in children[:limit]}, is_whole)


def _among(field: str, asked: list[ObjectId]) -> Document:
    """Those in a list who are asked for, in its order."""
    # $setIsSubset keeps a set of what it is given; $in and $setIntersection would go through it.
    is_asked = {"$setIsSubset": [["$$this"], asked]}
    return {"$filter": {"input": {"$ifNull": [field, []]}, "cond": is_asked}}


def _bounded(found: Iterable[Document], lists: Collection[str]) -> tuple[list[Document], bool]:
    """The first of them, until their lists are long together; whether these are all."""
    read: list[Document] = []
    left = IDS_AT_ONCE
    for task in found:
        left -= sum(len(task.get(name) or ()) for name in lists)
        if left < 0 and read:
            return read, False
        read.append(task)
    return read, True


def with_parents(store: Store, cancelled: Iterable[Document]) -> list[Document]:
    """Of these tasks the first, with the lists of their parents, until these are long together."""
    some: list[Document] = []
    left = IDS_AT_ONCE
    for task in cancelled:
        left -= task["parent_count"]
        if left < 0 and some:
            break
        some.append(task)
    named = [task["_id"] for task in some if task["parent_count"]]
    if not named:
        return some
    found = store["tasks"].find({"_id": {"$in": named}}, list(PARENT_LISTS), batch_size=BATCH)
    lists = {task["_id"]: task for task in found}
    return [{**task, **lists.get(task["_id"], {})} for task in some]


def write(store: Store, updates: Sequence[Update], confirmed: bool = True) -> None:
    """One command for all of them, one after the other.

    confirmed: wait until a majority has it, and all that was written before; only then do
    other processes hear of it, and readers see it. In the middle of a graph one member is
    enough: what it forgets in a crash, the marks of the parents as well, upkeep does again.
    """
    if updates:
        concern = MAJORITY if confirmed else FORGETTABLE
        collection = store["tasks"].with_options(write_concern=concern)
        try:
            collection.bulk_write([one.statement() for one in updates], ordered=True)
        except OperationFailure as error:
            if not sizes.is_too_large(error):
                raise
            _write_apart(store, updates)


def _write_apart(store: Store, updates: Sequence[Update]) -> None:
    """Task by task, in the same order: one that is too large must not hold up the others."""
    for update in updates:
        for task_id in update.ids:
            one = update._replace(ids=[task_id])
            if not any(_written(store, smaller) for smaller in (one, *_smaller(one))):
                logger.error("task %s is too large to be settled: it is left as it is", task_id)


def _written(store: Store, update: Update) -> bool:
    try:
        store["tasks"].bulk_write([update.statement()])
    except OperationFailure as error:
        if not sizes.is_too_large(error):
            raise
        return False
    return True


def _smaller(update: Update) -> list[Update]:
    gone, gone_at_end = dict.fromkeys(_LARGE, ""), dict.fromkeys(_LARGE_AT_END, "")
    if isinstance(update.change, list):
        cancelled = {**ended(None, Ending.CANCELLED, _TOO_LARGE), **_stamp()}
        released = [*update.change, {"$unset": list(gone)}]
        changes: list[Any] = [released, {"$set": cancelled, "$unset": gone_at_end}]
    else:
        changes = [{**update.change, "$unset": fields} for fields in (gone, gone_at_end)]
    return [update._replace(change=change) for change in changes]


def of_children(
    children: Mapping[ObjectId, Document], decided: Sequence[Release | Cancel], time: datetime
) -> list[Update]:
    """What was decided, those alike together; each holds only while the child still waits.

    A child that was retried since it was read waits anew, for another end of its parent.
    time: the present; children whose `not_before` is later wait for it.
    """
    alike: dict[Any, list[Release | Cancel]] = {}
    for one in decided:
        kind = None if isinstance(one, Release) else (one.parent, one.ending)
        alike.setdefault((kind, children[one.child].get("revival_count")), []).append(one)
    updates = []
    for group in alike.values():
        first = group[0]
        ids = [one.child for one in group]
        as_read = {
            "state": State.INACTIVE,
            "revival_count": children[first.child].get("revival_count"),
        }
        if isinstance(first, Cancel):
            updates.append(_cancel(ids, as_read, first))
        else:
            parents = {p for one in group if isinstance(one, Release) for p in one.parents}
            updates.append(_release(ids, as_read, list(parents), time))
    return updates


def _release(
    ids: Sequence[ObjectId], query: Document, parents: list[ObjectId], time: datetime
) -> Update:
    """Take ended parents out of the set; the write that empties it moves the child on.

    Whether the child has a command, and from when on it may run, is asked by the write itself:
    its owner may have changed both since it was read.
    parents: of all these children; one that a child does not wait for is not in its set.
    """
    return Update(
        ids,
        {**query, "open_parents": {"$in": parents}},
        [
            {"$set": {"open_parents": {"$setDifference": ["$open_parents", parents]}, **_stamp()}},
            {"$set": {"pending_dependency_count": {"$size": "$open_parents"}}},
            {"$set": _moved(time)},
        ],
    )


def _moved(time: datetime) -> Document:
    """What `lifecycle.activated` says of a task that waits for none, in the database's words."""
    is_ready = {"$eq": [{"$size": "$open_parents"}, 0]}
    is_group = {"$in": [{"$ifNull": ["$command", ""]}, ["", []]]}
    later = {"$cond": [{"$gt": ["$not_before", time]}, "$not_before", None]}
    as_group = _literally(activated({}, time))
    as_task = {**_literally(activated({"command": "any"}, time)), "wake_at": later}
    moved = {}
    for name in as_group | as_task:
        kept = f"${name}"
        then = {"$cond": [is_group, as_group.get(name, kept), as_task.get(name, kept)]}
        moved[name] = {"$cond": [is_ready, then, kept]}
    return moved


def _literally(fields: Mapping[str, Any]) -> Document:
    return {name: {"$literal": value} for name, value in fields.items()}


def _cancel(ids: Sequence[ObjectId], query: Document, cancel: Cancel) -> Update:
    how = "was cancelled" if cancel.ending is Ending.CANCELLED else f"ended in {cancel.ending}"
    fields = ended(None, Ending.CANCELLED, f"parent {cancel.parent} {how}")
    return Update(
        ids,
        {**query, "open_parents": cancel.parent},
        {"$set": {**fields, "cancelled_because": cancel.parent, **_stamp()}},
    )


def take_out(store: Store, cancelled: Sequence[Document]) -> None:
    """Take these out of every list that names them, those that are cancelled still.

    In one transaction: a retry that puts one back into a list comes before it, or after it.
    """
    if not any(map(parents_of, cancelled)):
        return

    def work(session: ClientSession) -> None:
        query = {"_id": {"$in": [one["_id"] for one in cancelled]}, "state": State.CANCELLED}
        found = store["tasks"].find(query, ["revival_count"], batch_size=BATCH, session=session)
        now_cancelled = {one["_id"]: one.get("revival_count") for one in found}
        updates = _without(
            [
                one
                for one in cancelled
                if now_cancelled.get(one["_id"], _REVIVED) == one.get("revival_count")
            ]
        )
        if updates:
            writes = [one.statement() for one in updates]
            store["tasks"].bulk_write(writes, session=session)

    store.transaction(work)


def _without(cancelled: Sequence[Document]) -> list[Update]:
    parents = {parent for task in cancelled for parent in parents_of(task)}
    if not parents:
        return []
    pulls = {name: {"$in": [task["_id"] for task in cancelled]} for name in CHILD_LISTS}
    return [Update(list(parents), {}, {"$pull": pulls, "$set": _stamp()})]


def marks(parents: Collection[Document]) -> list[Update]:
    """Their children are all settled: upkeep need not look at them again.

    Only this end of theirs is meant: a task that was retried may have ended once more.
    """
    ended: dict[int | None, list[ObjectId]] = {}
    for parent in parents:
        ended.setdefault(parent.get("revival_count"), []).append(parent["_id"])
    return [
        Update(
            ids,
            {"unsettled": True, "revival_count": revival_count},
            {"$set": {"unsettled": False}},
        )
        for revival_count, ids in ended.items()
    ]


def _stamp() -> Document:
    return {"_etag": new_etag(), "_updated": now()}
