"""The periodic duties; each may be done by several processes at once without harm."""

import time
from collections.abc import Callable
from typing import Protocol

from banyan.domain.lifecycle import READ_AT_END
from banyan.server import exposition
from banyan.server.alarm import ALARM
from banyan.server.calls import Context
from banyan.server.quotas import QUOTAS
from banyan.server.settle import settle_ended
from banyan.server.shapes import SHAPES
from banyan.server.store import samples, tallies, tasks, workers
from banyan.server.store.mongo import now
from banyan.server.verbs.release import give_back
from banyan.server.verbs.statistics import now_of

SETTLE_SECONDS = 10.0
TALLY_SECONDS = 5.0
SAMPLE_SECONDS = 20.0
COUNTS_SECONDS = 5.0
LOOK_ON_SECONDS = 2.0
WOKEN_MAX = 1000  # tasks, at a time: leases may not wait for them


def leases(context: Context) -> None:
    """Give out again what lapsed workers hold.

    Asks who holds anything, then which of those live: a claim that was written after its
    worker had been given up is found as well.
    """
    workers.mark_lost(context.store)
    holding = tasks.workers_that_hold(context.store)
    if not holding:
        return
    gone = set(holding) - workers.live_among(context.store, holding)
    removed = workers.removed_among(context.store, gone)
    if removed:  # by an operator, who is no fault of the task: what that has left undone
        for held in tasks.held_in_pieces(context.store, removed, READ_AT_END):
            give_back(context, held, "its worker was removed")
    if gone - removed:
        for held in tasks.held_in_pieces(context.store, gone - removed, READ_AT_END):
            give_back(context, held, "lost with its worker", lost=True)


def releases(context: Context) -> None:
    """Settle what a killed server, or a very deep graph, has left half done."""
    for task_id in settle_ended(context.store, None, SETTLE_SECONDS):
        context.signals.signal(f"available:{task_id}")


def delays(context: Context) -> None:
    """Let tasks be claimed whose delay is over, a bounded number; wake those who wait for work."""
    woken = tasks.wake_due(context.store, WOKEN_MAX)
    if woken:
        context.signals.signal("available")
    if woken == WOKEN_MAX:  # there are more
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


DUTIES: tuple[Duty, ...] = (leases, releases, delays, Seldom(SAMPLE_SECONDS, sample))
TALLYING: tuple[Duty, ...] = (Seldom(TALLY_SECONDS, tally),)
