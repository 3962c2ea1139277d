"""The records of a task's attempts: numbered without gaps, and each but a living one has an end."""

from collections.abc import Iterator, Sequence

from banyan.domain.attempts import outcome_of
from banyan.domain.lifecycle import is_group
from banyan.domain.states import HELD, State
from banyan.server.doctor.finding import Finding
from banyan.server.store.inspection import Batch
from banyan.server.store.mongo import Document

CHECK = "attempts"
END = "end"
_REPORT = "nothing runs because of it; report this"


def check(batch: Batch) -> Iterator[Finding]:
    """Findings of the check `attempts`."""
    for task in batch.tasks:
        records = batch.attempts[task["_id"]]
        yield from _numbers(task, records)
        yield from _ends(task, records)
        yield from _results(task, records)


def _numbers(task: Document, records: Sequence[Document]) -> Iterator[Finding]:
    count = task.get("attempt_count") or 0
    found = [record["attempt_count"] for record in records]
    # The record of a claim may be forgotten in a crash; the attempt's end makes it again.
    bare = count - 1 if task["state"] in HELD else count
    if found not in (list(range(1, count + 1)), list(range(1, bare + 1))):
        message = f"it had {count} attempts, and there are records of {found}"
        yield Finding(CHECK, str(task["_id"]), message, _REPORT)


def _ends(task: Document, records: Sequence[Document]) -> Iterator[Finding]:
    live = task["holder"]["attempt"] if task["state"] in HELD and task.get("holder") else None
    for record in records:
        if record["_id"] == live:
            continue
        if record.get("time_terminated") is None or record.get("exit_status") is None:
            message = f"attempt {record['attempt_count']} does not hold it, and has no end"
            subject, attempt = str(task["_id"]), str(record["_id"])
            if record["_id"] == task["attempt_id"] and task["state"] == State.TERMINATED:
                yield Finding(CHECK, subject, message, _REPORT)  # it was not lost
            else:
                advice = "`--repair` ends it as lost; nothing runs because of it"
                yield Finding(CHECK, subject, message, advice, END, attempt)


def _results(task: Document, records: Sequence[Document]) -> Iterator[Finding]:
    succeeded = [one["attempt_count"] for one in records if one.get("exit_status") == "success"]
    if len(succeeded) > 1 + (task.get("revival_count") or 0):
        message = f"attempts {succeeded} have all succeeded, and it was not retried"
        yield Finding(CHECK, str(task["_id"]), message, _REPORT)
    last = {record["_id"]: record.get("exit_status") for record in records}.get(task["attempt_id"])
    if task["state"] != State.TERMINATED or last is None or is_group(task):
        return  # without a command it has ended without an attempt, whatever came before
    if outcome_of(last) != task["outcome"]:
        message = f"its outcome is {task['outcome']}, and that of its last attempt {last}"
        yield Finding(CHECK, str(task["_id"]), message, _REPORT)
