"""No end is left half settled for longer than the server needs to find it."""

from collections.abc import Iterator
from datetime import timedelta

from banyan.config import knobs
from banyan.domain.states import ENDED
from banyan.server.doctor.dependencies import SETTLE
from banyan.server.doctor.finding import Finding
from banyan.server.store.inspection import Batch
from banyan.server.upkeep.duties import SETTLE_SECONDS
from banyan.server.upkeep.loop import PERIODS_HELD

CHECK = "settling"
_ADVICE = "is a server running? It settles such tasks; `--repair` does it now"
_PERIODS = PERIODS_HELD + 2


def check(batch: Batch) -> Iterator[Finding]:
    """Findings of the check `settling`."""
    late = timedelta(seconds=SETTLE_SECONDS + _PERIODS * knobs().UPKEEP_SECONDS)
    for task in batch.tasks:
        is_late = batch.time - task["_updated"] > late
        if task["state"] in ENDED and task.get("unsettled") and is_late:
            message = "it has ended, and its continuations still wait to hear of it"
            subject = str(task["_id"])
            yield Finding(CHECK, subject, message, _ADVICE, SETTLE, subject)
