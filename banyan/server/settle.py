"""Ended parents -> their children, level by level, to any depth.

Called after every write that ends tasks, and by upkeep for what a killed server left
half done: everything here may be done again. It must never decide from memory what a
child's state will be; the write that empties the child's set decides that.
"""

from collections.abc import Collection
from time import monotonic

from bson import ObjectId

from banyan.domain.continuations import Cancel, settle
from banyan.domain.lifecycle import is_group
from banyan.domain.states import Ending, State
from banyan.server.store import edges
from banyan.server.store.mongo import Document, Store

# A request goes on for so long, then leaves the rest of a very deep graph to upkeep.
REQUEST_SECONDS = 2.0
PARENTS_AT_ONCE = 1000


def settle_ended(
    store: Store, task_ids: Collection[ObjectId] | None, seconds: float = REQUEST_SECONDS
) -> bool:
    """Settle the children of these ended tasks, or of any that upkeep finds unsettled.

    Three or four commands a level, however wide it is. Returns False where time ran out.
    """
    deadline = monotonic() + seconds
    level = edges.unsettled(store, task_ids, PARENTS_AT_ONCE)
    while level:
        following = _settle_level(store, level)
        edges.mark_settled(store, [parent["_id"] for parent in level])
        if monotonic() > deadline:
            return not following
        level = edges.unsettled(store, following, PARENTS_AT_ONCE) if following else []
    return True


def _settle_level(store: Store, parents: list[Document]) -> list[ObjectId]:
    """Settle the children of these parents; returns the children that may have ended.

    A cancelled task is taken out of the lists that name it here, on its own level: its
    mark stays until that is done, whoever cancelled it.
    """
    edges.take_out(store, [task for task in parents if task["state"] == State.CANCELLED])
    endings = {parent["_id"]: Ending(parent["ended_as"]) for parent in parents}
    children = {child["_id"]: child for child in edges.waiting_for(store, endings)}
    decided = [one for child in children.values() if (one := settle(child, endings))]
    if not decided:
        return []
    edges.write_settlements(store, children, decided)
    cancelled = [one.child for one in decided if isinstance(one, Cancel)]
    groups = [child_id for child_id, child in children.items() if is_group(child)]
    return list(dict.fromkeys([*cancelled, *groups]))
