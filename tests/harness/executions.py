"""The log that executed tasks write themselves, each line on the disk before it goes on.

    start <task> <attempt> <count> <process id> <seconds since boot> alone|beside
    end   <task> <attempt> <count> <process id> <seconds since boot> <exit code>

`beside`: a process of another attempt of the same task was alive, as a lock on a file tells.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Record = Mapping[str, Any]

OWN_CODES = (0, 3)  # with which a task that writes this log ends by itself


@dataclass(frozen=True)
class Execution:
    """One start, and its end where it came to it."""

    task: str
    attempt: str
    count: int
    started: float
    ended: float | None
    code: int | None
    alone: bool


def read(path: Path) -> list[Execution]:
    """All starts, in the order of the log. A line that was cut off by a kill is left out."""
    starts: list[list[str]] = []
    ends: dict[tuple[str, str], list[str]] = {}
    for line in path.read_text().splitlines():
        words = line.split()
        if len(words) != 7:
            continue
        if words[0] == "start":
            starts.append(words)
        else:
            ends[words[2], words[4]] = words
    return [_execution(words, ends.get((words[2], words[4]))) for words in starts]


def _execution(start: list[str], end: list[str] | None) -> Execution:
    _, task, attempt, count, _, seconds, how = start
    ended, code = (float(end[5]), int(end[6])) if end else (None, None)
    return Execution(task, attempt, int(count), float(seconds), ended, code, how == "alone")


def check(
    executions: Iterable[Execution],
    attempts: Mapping[str, Record],
    may_overlap: Collection[str] = (),
) -> list[tuple[str, str]]:
    """What is wrong, as (task, message).

    attempts:    the records by id: `task`, `attempt_count`, `exit_status`, `exit_code`.
    may_overlap: tasks of which a process may have run beside the next attempt's, as they were
                 on a worker that stood still as a whole.
    """
    wrong: list[tuple[str, str]] = []
    seen: dict[str, Execution] = {}
    for one in executions:
        record = attempts.get(one.attempt)
        if one.attempt in seen:
            wrong.append((one.task, f"attempt {one.attempt} was started twice"))
        if record is None or (str(record["task"]), record["attempt_count"]) != (
            one.task,
            one.count,
        ):
            wrong.append((one.task, f"attempt {one.count} ran, and there is no record of it"))
        if not one.alone and one.task not in may_overlap:
            wrong.append((one.task, f"attempt {one.count} began beside a process of another"))
        seen[one.attempt] = one
    for attempt, record in attempts.items():
        wrong += [(str(record["task"]), text) for text in _unlike(record, seen.get(attempt))]
    return wrong


def _unlike(record: Record, ran: Execution | None) -> list[str]:
    """How the record of an attempt and what ran differ."""
    status, count = record.get("exit_status"), record["attempt_count"]
    if record.get("exit_code") not in OWN_CODES:
        return []  # ended from outside, or its shell could not go on: at whatever point
    if ran is None:
        return [f"attempt {count} ended in {status}, and nothing ran"]
    if ran.ended is None or ran.code != record["exit_code"]:
        return [f"attempt {count} ended in {status}, and what ran ended in {ran.code}"]
    return []


def out_of_order(
    executions: Iterable[Execution], parents: Mapping[str, Collection[str]]
) -> list[tuple[str, str]]:
    """Tasks that began before a parent's last attempt was over, as (task, message)."""
    first: dict[str, float] = {}
    last: dict[str, float] = {}
    for one in executions:
        first[one.task] = min(first.get(one.task, one.started), one.started)
        last[one.task] = max(last.get(one.task, 0.0), one.ended or one.started)
    return [
        (child, f"it began before its parent {parent} had ended")
        for child, above in parents.items()
        for parent in above
        if child in first and parent in last and first[child] < last[parent]
    ]
