"""The periodic duties; each may be done by several processes at once without harm."""

from banyan.server.calls import Context
from banyan.server.settle import settle_ended
from banyan.server.store import tasks, workers
from banyan.server.verbs.release import give_back

SETTLE_SECONDS = 10.0


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
    if gone:
        held = tasks.held_by(context.store, list(gone))
        give_back(context, held, "lost with its worker", lost=True)


def releases(context: Context) -> None:
    """Settle what a killed server, or a very deep graph, has left half done."""
    for task_id in settle_ended(context.store, None, SETTLE_SECONDS):
        context.signals.signal(f"available:{task_id}")


def delays(context: Context) -> None:
    """Wake those who wait for work when a task's delay is over."""
    if tasks.wake_due(context.store):
        context.signals.signal("available")


DUTIES = (leases, releases, delays)
