"""Looking after memory and processes of attempts while they run; samples of what they use.

Called by the launcher's loop a few times a second while anything runs. Standard library only.
It must cost next to nothing for an attempt that is well below its bound.
"""

import os
import time
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

from banyan.worker import memory, open_files, tree
from banyan.worker.cell import Cell
from banyan.worker.cells import Cells
from banyan.worker.limits import Limits
from banyan.worker.memory import Looks, Seen
from banyan.worker.running import Running
from banyan.worker.timers import now

LOOK_SECONDS = 0.25
_FIRST_SAMPLE_SECONDS = 1.0
_SAMPLE_SECONDS = 10.0
_WORTH_A_LOOK = 1.02  # so much more than at the last exact look

Unsure = Iterable[tuple[frozenset[str], list[int]]]


def too_large(running: Running, pids: list[int], looks: Looks) -> str | None:
    """Why an attempt with these processes must end for its memory, or None; notes the peak."""
    if _out_of_memory(running):
        return _said(running, None)
    if not _is_worth_a_look(running, pids, looks):
        return None
    known = _seen(running, pids, looks).size
    running.peak_bytes = max(running.peak_bytes, known)
    limits = running.limits
    bounded = running.cell and running.cell.bound_bytes
    if not bounded and limits.by_watching and known > limits.memory_bytes:
        return _said(running, known)
    return None


def _is_worth_a_look(running: Running, pids: list[int], looks: Looks) -> bool:
    """Whether it may use more than ever; in a cell that may be cache, which tells nothing."""
    if running.cell:
        return running.cell.usage_bytes() > running.peak_bytes
    if looks.is_unfinished(running.attempt):
        return True
    held = memory.held_bytes(pids)
    if held <= max(running.peak_bytes, running.looked_at_bytes * _WORTH_A_LOOK):
        return False
    running.looked_at_bytes = held
    return True


def _seen(running: Running, pids: list[int], looks: Looks) -> Seen:
    """What an attempt uses; the kernel keeps account of a cell, so that nothing takes long."""
    if running.cell:
        return Seen(running.cell.held_bytes(running.cell.usage_bytes()), True)
    return _seen_of(running.attempt, pids, looks)


def _seen_of(key: Hashable, pids: list[int], looks: Looks) -> Seen:
    """While a look goes on, what it has found, or what one process has that others can't share."""
    seen = looks.at(key, pids)
    return seen if seen.whole else Seen(max(seen.size, memory.largest_bytes(pids)[1]), False)


def too_many(running: Running, pids: list[int]) -> str | None:
    """Why it must end for the number of its processes, or None."""
    most = running.limits.processes
    if not most or len(pids) <= most or (running.cell and running.cell.bound_processes):
        return None
    return f"it had {len(pids):,} processes, and a task may have {most:,} on this worker"


def crowding(cells: Cells, running: Iterable[Running]) -> tuple[Running, str] | None:
    """Where all together leave no processes or files to others: who has most, and why it must end.

    One at a time: what it leaves may be enough. So while processes stay of the one that has most,
    killed or told as ended, no other ends in its place. It is also the time to see what memory all
    of them may have.
    """
    cells.bound_all()
    if not cells.are_crowded():
        return _crowding_files(running)
    return _first({each: each.cell.count() for each in running if each.cell}, "processes")


def _crowding_files(running: Iterable[Running]) -> tuple[Running, str] | None:
    """The same of open files, where all together have most of those that there may be."""
    most = open_files.too_many()
    if not most:
        return None
    counts = {each: open_files.count(processes(each, [])) for each in running}
    return _first(counts, "open files") if sum(counts.values()) > most else None


def _first(counts: Mapping[Running, int], what: str) -> tuple[Running, str] | None:
    most = max(counts.values(), default=0)
    for each, count in counts.items():
        if count == most and not each.is_being_killed:
            return each, f"all tasks of this worker had too many {what}, and it had {most}"
    return None


def strays_too_large(unsure: Unsure, running: Mapping[str, Running], looks: Looks) -> list[int]:
    """The processes that may be of some attempts, and use more than the largest of them may.

    They are nobody's for certain: they are bounded together, and nobody else pays for them.
    """
    found = []
    for attempts, strays in unsure:
        suspects = [running[each].limits for each in attempts if each in running]
        if _are_too_large(attempts, suspects, tree.descendants(strays), looks):
            found += strays
    return found


def _are_too_large(
    attempts: frozenset[str], suspects: list[Limits], pids: list[int], looks: Looks
) -> bool:
    most = max((each.processes or len(pids) for each in suspects), default=0)
    if len(pids) > most:
        return True
    if not all(each.by_watching for each in suspects):
        return False
    bound = max((each.memory_bytes for each in suspects), default=0)
    return memory.held_bytes(pids) > bound and _seen_of(attempts, pids, looks).size > bound


def look_back(running: Running, left: Sequence[int]) -> None:
    """Looks once whether the kernel has killed something of it for want of memory.

    Called when its leader has ended, before what is left is killed. If it has, that is why the
    attempt ended. If it has not, and nothing is left, its cell can be used again without a look.
    """
    if running.left_nothing is not None:
        return
    killed = _out_of_memory(running)
    if killed and running.why is None:
        running.why, running.reason = "oom", _said(running, None)
    running.left_nothing = not (killed or left or running.spent)


def _out_of_memory(running: Running) -> bool:
    return running.cell is not None and running.cell.oom_kills() > 0


def sample(running: Running, pids: list[int], looks: Looks) -> dict[str, Any] | None:
    """What an attempt with these processes uses, where it is time for a sample.

    That waits for a look which takes long; in the end it says what is known, at least.
    """
    if now() < running.sample_at:
        return None
    seen = _seen(running, pids, looks)
    if not seen.whole and now() < running.sample_at + _SAMPLE_SECONDS:
        return None
    at, cpu_seconds = now(), memory.cpu_seconds(pids) + running.cpu_seconds
    seconds = max(at - running.sampled_at, 0.001)
    resident = seen.size if seen.whole else max(seen.size, memory.largest_bytes(pids)[0])
    percent = max(cpu_seconds - running.sampled_cpu_seconds, 0.0) / seconds * 100
    running.peak_bytes = max(running.peak_bytes, resident)
    running.sampled_at, running.sampled_cpu_seconds = at, cpu_seconds
    running.sample_at = at + _SAMPLE_SECONDS
    return {
        "is": "sample",
        "attempt": running.attempt,
        "time": time.time(),
        "resident_memory_bytes": resident,
        "virtual_memory_bytes": memory.virtual_bytes(pids),
        "utilization_percent": round(percent, 1),
        "peak_memory_bytes": running.peak_bytes,
    }


def begin(running: Running) -> None:
    """Lets the first sample be due some time after the start."""
    running.sampled_at = now()
    running.sample_at = running.sampled_at + _FIRST_SAMPLE_SECONDS


def processes(running: Running, orphans: list[int]) -> list[int]:
    """All that is for certain of an attempt, with these orphans of it."""
    if running.cell:
        return running.cell.pids()
    return tree.descendants([running.pid, *orphans])


def _others_had_it(cell: Cell) -> str:
    """Where the kernel has killed in a cell that was within its bound."""
    if Cell(os.path.dirname(cell.path)).has_hit_bound():
        return (
            "the tasks of this worker together, with what earlier ones have left in shared memory, "
            "used all memory that they may use, and the kernel chose this task"
        )
    return "the machine had no memory left, and the kernel chose this task"


def _said(running: Running, used_bytes: int | None) -> str:
    if used_bytes is None and running.cell and not running.cell.has_hit_bound():
        return _others_had_it(running.cell)
    asked = f"{running.limits.memory_bytes / 2**20:.0f} MiB"
    if used_bytes is None:
        return f"it used more than the {asked} of memory that it had asked for"
    return f"it used {used_bytes / 2**20:.0f} MiB of memory and had asked for {asked}"
