"""A task stands in the queue under the shape of what it asks for: claims go by it."""

from collections.abc import Iterator

from banyan.domain.states import ENDED
from banyan.server.doctor.finding import Finding
from banyan.server.shapes import of_task
from banyan.server.store.inspection import Batch

CHECK = "shapes"
RESHAPE = "reshape"
_MESSAGE = "it stands among tasks that ask for something else, and may never be claimed"
_ADVICE = "`--repair` puts it where it belongs"


def check(batch: Batch) -> Iterator[Finding]:
    """Findings of the check `shapes`."""
    for task in batch.tasks:
        if task["state"] not in ENDED and task.get("shape") != of_task(task):
            subject = str(task["_id"])
            yield Finding(CHECK, subject, _MESSAGE, _ADVICE, RESHAPE, subject)
