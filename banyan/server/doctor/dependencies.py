"""What a task still waits for is what it has as parents and has not ended."""

from collections.abc import Iterator

from banyan.domain.continuations import parents_of
from banyan.domain.states import ENDED, State
from banyan.server.doctor.finding import Finding
from banyan.server.store.inspection import Batch
from banyan.server.store.mongo import Document

CHECK = "dependencies"
SETTLE = "settle"
_REPORT = "cancel it, or take the edge off; then report this"


def check(batch: Batch) -> Iterator[Finding]:
    """Findings of the check `dependencies`."""
    for task in batch.tasks:
        yield from _of_one(task, batch)


def _of_one(task: Document, batch: Batch) -> Iterator[Finding]:
    subject, open_parents = str(task["_id"]), task.get("open_parents") or []
    if task["pending_dependency_count"] != len(open_parents):
        message = f"it counts {task['pending_dependency_count']} open parents of {open_parents}"
        yield Finding(CHECK, subject, message, "report this")
    if task["state"] not in (State.INACTIVE, State.CANCELLED) and open_parents:
        message = f"it is {task['state']}, and waits for {_listed(open_parents)}"
        yield Finding(CHECK, subject, message, "report this")
    if task["state"] != State.INACTIVE:
        return
    parents = set(parents_of(task))
    for parent_id in open_parents:
        parent = batch.related.get(parent_id)
        if parent_id not in parents:
            message = f"it waits for {parent_id}, which is no parent of it"
            yield Finding(CHECK, subject, message, _REPORT)
        elif parent is None:
            message = f"it waits for {parent_id}, which is not there"
            yield Finding(CHECK, subject, message, _REPORT)
        elif parent["state"] in ENDED and not parent.get("unsettled"):
            message = f"it waits for {parent_id}, which has ended and counts as settled"
            advice = "`--repair` has the parent settled again"
            yield Finding(CHECK, subject, message, advice, SETTLE, str(parent_id))
    for parent_id in parents - set(open_parents):
        parent = batch.related.get(parent_id)
        # A parent that is retried alone runs again, and what it had released waits no more.
        if parent and parent["state"] not in ENDED and not parent.get("revival_count"):
            message = f"it does not wait for {parent_id}, which has not ended"
            yield Finding(CHECK, subject, message, _REPORT)


def _listed(ids: list[object]) -> str:
    return ", ".join(map(str, ids))
