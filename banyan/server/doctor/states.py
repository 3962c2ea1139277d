"""A task's fields say one thing: its state, how it ended, who holds it."""

from collections.abc import Iterator

from banyan.domain.lifecycle import is_group
from banyan.domain.states import ENDED, HELD, Ending, Outcome, State
from banyan.server.doctor.finding import Finding
from banyan.server.store.inspection import Batch
from banyan.server.store.mongo import Document

_ADVICE = "report this, with the answer to GET /tasks/<id>/history"
_WAITING = (State.INACTIVE, State.AVAILABLE)


def check(batch: Batch) -> Iterator[Finding]:
    """Findings of the check `states`."""
    for task in batch.tasks:
        for message in _wrong(task):
            yield Finding("states", str(task["_id"]), message, _ADVICE)


def _wrong(task: Document) -> Iterator[str]:
    state = task.get("state")
    if state not in list(State):
        yield f"{state!r} is no state"
        return
    outcome, ended_as = task.get("outcome"), task.get("ended_as")
    if state in ENDED and ended_as not in list(Ending):
        yield f"it is {state}, and says nothing about how it ended"
    if state not in ENDED and (outcome or ended_as):
        yield f"it is {state}, and has an outcome"
    if (state == State.TERMINATED) != (outcome in list(Outcome)):
        yield f"it is {state}, and its outcome is {outcome}"
    if state in HELD and (task.get("holder") or {}).get("attempt") != task.get("attempt_id"):
        yield "who holds it and its current attempt differ"
    if state in (State.AVAILABLE, *HELD) and is_group(task):
        yield f"it has no command, and is {state}"
    if state in _WAITING and task.get("unsettled"):
        yield f"it is {state}, and is to be settled"
