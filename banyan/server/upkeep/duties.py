"""The periodic duties; each may be done by several processes at once without harm."""

import logging
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from itertools import repeat
from typing import Protocol

from bson import ObjectId

from banyan.config import knobs
from banyan.domain.lifecycle import READ_AT_END
from banyan.server import exposition
from banyan.server.alarm import ALARM
from banyan.server.calls import Context
from banyan.server.quotas import QUOTAS
from banyan.server.rota import Rota
from banyan.server.settle import settle_rest
from banyan.server.shapes import SHAPES
from banyan.server.store import samples, tallies, tasks, workers
from banyan.server.store.indexes import SETTLING, TALLIES, UPKEEP
from banyan.server.store.mongo import Document, Store, now
from banyan.server.verbs.release import give_back
from banyan.server.verbs.statistics import now_of

logger = logging.getLogger(__name__)

LEASES_SECONDS = 5.0  # then it looks anew at who has lost anything
SETTLE_SECONDS = 10.0
TALLY_SECONDS = 5.0
SAMPLE_SECONDS = 20.0
COUNTS_SECONDS = 5.0
LOOK_ON_SECONDS = 2.0
WOKEN_MAX = 1000  # tasks, at a time: leases may not wait for them

logger = logging.getLogger(__name__)

# Whose turn it is. Of lapsed leases: of an owner, an account, and whether its workers were removed.
_LAPSED = Rota[tuple[str, str, bool]]()
_UNSETTLED = Rota[str]()
_DUE = Rota[str]()


def leases(context: Context) -> None:
    """Give out again what lapsed workers hold, for so long at most; the next round goes on.

    Asks who holds anything, then which of those live: a claim that was written after its
    worker had been given up is found as well. Owners take turns, and so do of each owner the
    accounts whose workers hold its tasks: however many one has lost, the others wait for a piece.
    """
    until = time.monotonic() + LEASES_SECONDS
    for worker in workers.mark_lost(context.store):
        logger.warning(
            "worker %s (%s) is lost: nothing was heard of it for %g s; what it ran goes to others",
            worker["host"],
            worker["_id"],
            knobs().LEASE_SECONDS,
        )
    holding = tasks.workers_that_hold(context.store)
    if not holding:
        return
    gone = set(holding) - workers.live_among(context.store, holding)
    if not gone:
        return
    for held, removed in _LAPSED.pieces(_held_by(context.store, gone)):
        if removed:  # by an operator, who is no fault of the task: what that has left undone
            give_back(context, held, "its worker was removed")
        else:
            give_back(context, held, "lost with its worker", lost=True)
        if time.monotonic() > until:
            break


def _held_by(
    store: Store, gone: Collection[ObjectId]
) -> dict[tuple[str, str, bool], Iterator[tuple[list[Document], bool]]]:
    """(tasks, whether their workers were removed) in pieces, by owner and the workers' account."""
    return {
        (owner, account, removed): zip(
            tasks.held_in_pieces(store, those, READ_AT_END, owner), repeat(removed), strict=False
        )
        for (account, removed), those in workers.gone_by_account(store, gone).items()
        for owner in tasks.owners_held_by(store, those)
    }


def releases(context: Context) -> None:
    """Settle what a killed server, or a very deep graph, has left half done; owners take turns."""
    for ready in settle_rest(context.store, _UNSETTLED, SETTLE_SECONDS):
        for task_id in ready:
            context.signals.signal(f"available:{task_id}")


def delays(context: Context) -> None:
    """Let tasks be claimed whose delay is over, a bounded number; wake those who wait for work.

    Each owner has a share of that number.
    """
    owners = tasks.owners_due(context.store)
    share = max(1, WOKEN_MAX // max(1, len(owners)))
    woken: list[ObjectId] = []
    is_more = False
    for owner in _DUE.turn(owners):
        due = tasks.due(context.store, owner, share)
        is_more |= len(due) == share
        woken += due
        if len(woken) >= WOKEN_MAX:
            is_more = True
            break
    if woken:
        tasks.wake(context.store, woken)
        context.signals.signal("available")
    if is_more:
        ALARM.set(now())


def tally(context: Context) -> bool:
    """Add up what has ended, a bounded part of it; whether there is more."""
    return tallies.advance(context.store)


def sample(context: Context) -> bool:
    """Note what workers have and what of it is in use."""
    live = workers.live(context.store, {}, workers.FIGURES)
    samples.put(context.store, now(), now_of(context.store, live))
    return False


def hand_on_counts(context: Context) -> bool:
    """Add what this process has counted to what all have; each process does it for itself."""
    exposition.flush(context.store)
    return False


def recount(context: Context) -> bool:
    """Count again what owners have who go on submitting; each process does it for itself."""
    QUOTAS.refresh(context.store)
    return False


def look_on(context: Context) -> bool:
    """Let who waits for work look at another part, where no claim sees all shapes that wait.

    Each process does it for those who wait in it.
    """
    if SHAPES.left_some_out(context.store):
        context.signals.signal("available:rest")
    return False


class Duty(Protocol):
    """What is done again and again, and counted by its name."""

    __name__: str

    def __call__(self, context: Context) -> None:
        """Do it."""


class Seldom:
    """A duty that is not done in every round, unless it has left something undone."""

    def __init__(self, seconds: float, duty: Callable[[Context], bool]) -> None:
        self.__name__ = duty.__name__
        self._seconds = seconds
        self._duty = duty
        self._due = 0.0

    def __call__(self, context: Context) -> None:
        """Do it if it is time."""
        begun = time.monotonic()
        if begun >= self._due:
            self._due = begun + self._seconds
            if self._duty(context):
                self._due = begun


# By the name of the lease that a process needs for them; each name has a thread of its own. Those
# of one name take a bounded time.
DUTIES: Mapping[str, tuple[Duty, ...]] = {
    UPKEEP: (delays, leases, Seldom(SAMPLE_SECONDS, sample)),
    SETTLING: (releases,),
    TALLIES: (Seldom(TALLY_SECONDS, tally),),
}
