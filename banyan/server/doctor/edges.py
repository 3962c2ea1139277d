"""An edge stands at both of its ends."""

from collections.abc import Iterator

from banyan.domain.continuations import EDGES
from banyan.domain.states import State
from banyan.server.doctor.finding import Finding
from banyan.server.store.inspection import Batch
from banyan.server.store.mongo import Document

CHECK = "edges"
_ADVICE = "remove the edge and add it again; then report this"


def check(batch: Batch) -> Iterator[Finding]:
    """Findings of the check `edges`."""
    for task in batch.tasks:
        for to_children, to_parents in EDGES.items():
            yield from _children(task, batch, to_children, to_parents)
            yield from _parents(task, batch, to_children, to_parents)


def _children(task: Document, batch: Batch, to_children: str, to_parents: str) -> Iterator[Finding]:
    for child_id in task.get(to_children) or ():
        child = batch.related.get(child_id)
        if child is None:
            continue  # it was removed with its graph's last days; nobody waits for it
        if task["_id"] not in (child.get(to_parents) or ()):
            message = f"its {to_children} name {child_id}, whose {to_parents} do not name it"
            yield Finding(CHECK, str(task["_id"]), message, _ADVICE)
        elif child["state"] == State.CANCELLED and not child.get("unsettled"):
            message = f"its {to_children} name {child_id}, which is cancelled"
            advice = "`--repair` has the cancelled task settled again"
            yield Finding(CHECK, str(task["_id"]), message, advice, "settle", str(child_id))


def _parents(task: Document, batch: Batch, to_children: str, to_parents: str) -> Iterator[Finding]:
    if task["state"] == State.CANCELLED:
        return  # it is taken out of its parents' lists, and keeps its own
    for parent_id in task.get(to_parents) or ():
        parent = batch.related.get(parent_id)
        if parent is None or task["_id"] in (parent.get(to_children) or ()):
            continue
        if parent["owner"] != task["owner"]:
            continue  # it has the id of one that was forgotten
        # Retried, it stands in the lists of those only that it waits for again.
        if not task.get("revival_count") or parent_id in task["open_parents"]:
            message = f"its {to_parents} name {parent_id}, whose {to_children} do not name it"
            yield Finding(CHECK, str(task["_id"]), message, _ADVICE)
