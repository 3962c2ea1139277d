"""What follows a write to tasks: continuations are settled, and who waits is woken."""

from collections.abc import Mapping, Sequence

from bson import ObjectId

from banyan.domain.lifecycle import Change
from banyan.domain.states import State
from banyan.server import represent
from banyan.server.calls import Context
from banyan.server.settle import settle_ended
from banyan.server.store import workers
from banyan.server.store.mongo import Document


def follow(context: Context, changes: Sequence[Change], found: Mapping[ObjectId, Document]) -> None:
    """After these changes were written. found: the tasks as they were before, by id."""
    ended = [change.task_id for change in changes if change.ends and change.set.get("unsettled")]
    if ended:
        represent.announce_available(context, settle_ended(context.store, ended))
    tell_workers(
        context,
        {
            found[change.task_id]["holder"]["worker"]
            for change in changes
            if change.set.get("state") == State.PENDING_CANCELLATION
        },
    )
    if changes:
        represent.announce(context, [{"_id": one.task_id, **one.set} for one in changes])


def tell_workers(context: Context, worker_ids: set[ObjectId]) -> None:
    """Wake the held beats of these workers, here and in the other server processes."""
    if worker_ids:
        workers.signal(context.store, worker_ids)
    for worker_id in worker_ids:
        context.signals.signal(f"worker:{worker_id}")
