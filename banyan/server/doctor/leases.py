"""No task is held past its worker's lease and margin."""

from collections.abc import Iterator
from datetime import timedelta

from banyan.config import knobs
from banyan.domain.states import HELD
from banyan.server.doctor.finding import Finding
from banyan.server.store.inspection import Batch
from banyan.server.store.mongo import Document
from banyan.server.upkeep.loop import PERIODS_HELD

CHECK = "leases"
GIVE_BACK = "give back"
_ADVICE = "is a server running? It gives such tasks out again; `--repair` does it now"
_PERIODS = PERIODS_HELD + 2  # a server that was killed holds the duty for so many


def check(batch: Batch) -> Iterator[Finding]:
    """Findings of the check `leases`."""
    late = knobs().LEASE_MARGIN_SECONDS + _PERIODS * knobs().UPKEEP_SECONDS
    for task in batch.tasks:
        if task["state"] not in HELD or not task.get("holder"):
            continue
        worker = batch.workers.get(task["holder"]["worker"])
        message = _wrong(worker, batch, timedelta(seconds=late))
        if message:
            yield Finding(CHECK, str(task["_id"]), message, _ADVICE, GIVE_BACK)


def _wrong(worker: Document | None, batch: Batch, late: timedelta) -> str | None:
    if worker is None:
        return "the worker that holds it is not there"
    over = batch.time - worker["lease_until"]
    if over > late:
        return f"the lease of worker {worker['_id']} is over, and it is still held"
    return None
