"""Ended parents -> their children, level by level, to any depth.

Called after every write that ends tasks, and by upkeep for what a killed server left
half done: everything here may be done again. It must never decide from memory what a
child's state will be; the write that empties the child's set decides that.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from time import monotonic

from bson import ObjectId

from banyan.domain.continuations import Cancel, Release, settle
from banyan.domain.lifecycle import activated, is_group
from banyan.domain.states import Ending, State
from banyan.server.alarm import ALARM
from banyan.server.rota import Rota
from banyan.server.store import settlements
from banyan.server.store.mongo import Document, Store, now

# A request goes on for so long, then leaves the rest of a very deep graph to upkeep.
REQUEST_SECONDS = 2.0
PARENTS_AT_ONCE = 1000
CHILDREN_AT_ONCE = 2000  # a parent may have any number of them


@dataclass(frozen=True)
class Level:
    """What settling one level came to.

    ended: children that may have ended by it; ready: children that may be claimed now.
    left: parents that have further children.
    """

    ended: list[ObjectId]
    ready: list[ObjectId]
    left: list[ObjectId]


def settle_ended(
    store: Store, task_ids: Collection[ObjectId], seconds: float = REQUEST_SECONDS
) -> list[ObjectId]:
    """Settle the children of these ended tasks.

    Three commands a level, up to a thousand parents wide, two thousand children or fifty
    thousand edges; four more where some that waited for others were cancelled. Returns the
    children that may be claimed now; of those that wait for their time, the alarm is set.
    """
    deadline = monotonic() + seconds
    ready: list[ObjectId] = []
    waiting = list(task_ids)
    while waiting:
        level = _settle_level(store, waiting[:PARENTS_AT_ONCE])
        ready += level.ready
        waiting = level.left + waiting[PARENTS_AT_ONCE:] + level.ended
        if monotonic() > deadline:
            break
    return ready


def settle_rest(
    store: Store, rota: Rota[str], seconds: float = REQUEST_SECONDS
) -> Iterator[list[ObjectId]]:
    """Settle what others have left: of each owner one level, or a part of it, then the next.

    Yields the children that may be claimed now, after each.
    """
    deadline = monotonic() + seconds
    while owners := settlements.owners_unsettled(store):
        for owner in rota.turn(owners):
            asked = settlements.any_unsettled(store, owner, PARENTS_AT_ONCE)
            if asked:
                yield _settle_level(store, asked).ready
            if monotonic() > deadline:
                return


def _settle_level(store: Store, parent_ids: list[ObjectId]) -> Level:
    """Settle the children of these parents; some of them, where together they have very many.

    The marks stay until none is left.
    The children are read first: where a parent is retried in between, its children wait anew,
    and what was read of them holds no longer. The other way round an end of the parent's life
    before would be told to children of its new one.
    A cancelled task is taken out of the lists that name it here, on its own level: its
    mark stays until that is done, whoever cancelled it.
    """
    children, is_whole = settlements.waiting_for(store, parent_ids, CHILDREN_AT_ONCE)
    parents = settlements.unsettled(store, parent_ids)
    if not parents:
        return Level([], [], [])
    endings = {parent["_id"]: Ending(parent["ended_as"]) for parent in parents}
    decided = [one for child in children.values() if (one := settle(child, endings))]
    cancelled = [one.child for one in decided if isinstance(one, Cancel)]
    groups = [child_id for child_id, child in children.items() if is_group(child)]
    time = now()
    delayed = _delayed(children, decided, time)
    ready = [
        one.child
        for one in decided
        if isinstance(one, Release)
        and len(one.parents) == children[one.child]["open_count"]
        and not (is_group(children[one.child]) or one.child in delayed)
    ]
    settled, gone = _settled(store, parents) if is_whole else ([], [])
    done = {parent["_id"] for parent in settled}
    left = [parent["_id"] for parent in parents if parent["_id"] not in done]
    level = Level(list(dict.fromkeys([*cancelled, *groups])), ready, left)
    settlements.take_out(store, gone)
    updates = [
        *settlements.of_children(children, decided, time),
        *settlements.marks(settled),
    ]
    settlements.write(store, updates, confirmed=bool(ready or delayed) or not level.ended)
    for moment in delayed.values():
        ALARM.set(moment)
    return level


def _delayed(
    children: Mapping[ObjectId, Document], decided: Sequence[Release | Cancel], time: datetime
) -> dict[ObjectId, datetime]:
    """The children that are released before their time has come, and when it comes.

    Some may have other parents that are still open, or that are being settled at this moment.
    """
    released = [one.child for one in decided if isinstance(one, Release)]
    timed = [child for child in released if children[child].get("not_before")]
    moments = {child: activated(children[child], time).get("wake_at") for child in timed}
    return {child: moment for child, moment in moments.items() if moment}


def _settled(
    store: Store, parents: Sequence[Document]
) -> tuple[Sequence[Document], list[Document]]:
    """Those of the parents whose marks go, and those of them that go out of all lists."""
    cancelled = [one for one in parents if one["state"] == State.CANCELLED]
    gone = settlements.with_parents(store, cancelled)
    later = {one["_id"] for one in cancelled} - {one["_id"] for one in gone}
    return [one for one in parents if one["_id"] not in later], gone
