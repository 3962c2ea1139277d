"""Ended parents -> their children, level by level, to any depth.

Called after every write that ends tasks, and by upkeep for what a killed server left
half done: everything here may be done again. It must never decide from memory what a
child's state will be; the write that empties the child's set decides that.
"""

from collections.abc import Collection
from dataclasses import dataclass
from time import monotonic

from bson import ObjectId

from banyan.domain.continuations import Cancel, Release, settle
from banyan.domain.lifecycle import is_group
from banyan.domain.states import Ending, State
from banyan.server.store import settlements
from banyan.server.store.mongo import Document, Store

# A request goes on for so long, then leaves the rest of a very deep graph to upkeep.
REQUEST_SECONDS = 2.0
PARENTS_AT_ONCE = 1000
CHILDREN_AT_ONCE = 10_000  # a parent may have any number of them


@dataclass(frozen=True)
class Level:
    """What settling one level came to.

    ended: children that may have ended by it; ready: children that wait for nothing more.
    left: parents that have further children.
    """

    ended: list[ObjectId]
    ready: list[ObjectId]
    left: list[ObjectId]


def settle_ended(
    store: Store, task_ids: Collection[ObjectId] | None, seconds: float = REQUEST_SECONDS
) -> list[ObjectId]:
    """Settle the children of these ended tasks, or of any that upkeep finds unsettled.

    Three commands a level, up to a thousand parents wide, or ten thousand children. Returns
    the children that wait for nothing more.
    """
    deadline = monotonic() + seconds
    ready: list[ObjectId] = []
    waiting = None if task_ids is None else list(task_ids)
    while waiting is None or waiting:
        asked = _any_unsettled(store) if waiting is None else waiting[:PARENTS_AT_ONCE]
        if not asked:
            break
        level = _settle_level(store, asked)
        ready += level.ready
        if waiting is not None:
            waiting = level.left + waiting[PARENTS_AT_ONCE:] + level.ended
        if monotonic() > deadline:
            break
    return ready


def _any_unsettled(store: Store) -> list[ObjectId]:
    return [parent["_id"] for parent in settlements.unsettled(store, None, PARENTS_AT_ONCE)]


def _settle_level(store: Store, parent_ids: list[ObjectId]) -> Level:
    """Settle the children of these parents; of fewer, where together they have very many.

    Of a single parent that has so many it settles some: the mark stays until none is left.
    The children are read first: where a parent is retried in between, its children wait anew,
    and what was read of them holds no longer. The other way round an end of the parent's life
    before would be told to children of its new one.
    A cancelled task is taken out of the lists that name it here, on its own level: its
    mark stays until that is done, whoever cancelled it.
    """
    asked, children = _children(store, parent_ids)
    is_whole = len(children) <= CHILDREN_AT_ONCE
    parents = settlements.unsettled(store, asked, len(asked))
    left = parent_ids[len(asked) :]
    if not parents:
        return Level([], [], left)
    endings = {parent["_id"]: Ending(parent["ended_as"]) for parent in parents}
    decided = [one for child in children.values() if (one := settle(child, endings))]
    cancelled = [one.child for one in decided if isinstance(one, Cancel)]
    groups = [child_id for child_id, child in children.items() if is_group(child)]
    ready = [
        one.child
        for one in decided
        if isinstance(one, Release)
        and len(one.parents) == len(children[one.child]["open_parents"])
        and not is_group(children[one.child])
    ]
    left = left if is_whole else parent_ids
    level = Level(list(dict.fromkeys([*cancelled, *groups])), ready, left)
    cancelled_parents = [task for task in parents if task["state"] == State.CANCELLED]
    updates = [
        *settlements.without(cancelled_parents),
        *settlements.of_children(children, decided),
        *(settlements.marks(parents) if is_whole else ()),
    ]
    settlements.write(store, updates, confirmed=bool(ready) or not level.ended)
    return level


def _children(
    store: Store, parent_ids: list[ObjectId]
) -> tuple[list[ObjectId], dict[ObjectId, Document]]:
    """So many of the parents as have not too many children; of a single one all the same."""
    while True:
        found = settlements.waiting_for(store, parent_ids, CHILDREN_AT_ONCE + 1)
        if len(found) <= CHILDREN_AT_ONCE or len(parent_ids) == 1:
            return parent_ids, {child["_id"]: child for child in found}
        parent_ids = parent_ids[: len(parent_ids) // 2]
