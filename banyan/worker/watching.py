"""Looking after memory and processes of attempts while they run; samples of what they use.

Called by the launcher's loop a few times a second while anything runs. Standard library only.
It must cost next to nothing for an attempt that is well below its bound.
"""

import time
from typing import Any

from banyan.worker import memory, tree
from banyan.worker.limits import Limits
from banyan.worker.running import Running
from banyan.worker.timers import now

LOOK_SECONDS = 0.25
_FIRST_SAMPLE_SECONDS = 1.0
_SAMPLE_SECONDS = 10.0
_WORTH_A_LOOK = 1.02  # so much more than at the last exact look


def too_large(running: Running, pids: list[int]) -> str | None:
    """Why an attempt with these processes must end for its memory, or None; notes the peak."""
    if out_of_memory(running):
        return _said(running, None)
    resident = memory.resident_bytes(pids)
    if resident <= max(running.peak_bytes, running.looked_at_bytes * _WORTH_A_LOOK):
        return None
    running.looked_at_bytes = resident
    exact = memory.proportional_bytes(pids)
    running.peak_bytes = max(running.peak_bytes, exact)
    limits = running.limits
    bounded = running.cell and running.cell.bound_bytes
    if not bounded and limits.by_watching and exact > limits.memory_bytes:
        return _said(running, exact)
    return None


def too_many(running: Running, pids: list[int]) -> str | None:
    """Why it must end for the number of its processes, or None."""
    most = running.limits.processes
    if not most or len(pids) <= most or (running.cell and running.cell.bound_processes):
        return None
    return f"it had {len(pids)} processes, and a task may have {most} on this worker"


def strays_too_large(suspects: list[Limits], strays: list[int]) -> bool:
    """Whether processes that may be of any of these use more than the largest of them may.

    They are nobody's for certain: they are bounded together, and nobody else pays for them.
    """
    pids = tree.descendants(strays)
    most = max((each.processes or len(pids) for each in suspects), default=0)
    if len(pids) > most:
        return True
    if not all(each.by_watching for each in suspects):
        return False
    bound = max((each.memory_bytes for each in suspects), default=0)
    return memory.resident_bytes(pids) > bound and memory.proportional_bytes(pids) > bound


def out_of_memory(running: Running) -> bool:
    """Whether the kernel has killed something of it for want of memory."""
    return running.cell is not None and running.cell.oom_kills() > 0


def kernel_said(running: Running) -> str:
    """The reason where the kernel was first."""
    return _said(running, None)


def sample(running: Running, pids: list[int]) -> dict[str, Any] | None:
    """What an attempt with these processes uses, where it is time for a sample."""
    if now() < running.sample_at:
        return None
    at, cpu_seconds = now(), memory.cpu_seconds(pids) + running.cpu_seconds
    seconds = max(at - running.sampled_at, 0.001)
    resident = memory.proportional_bytes(pids)
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


def _said(running: Running, used_bytes: int | None) -> str:
    asked = f"{running.limits.memory_bytes / 2**20:.0f} MiB"
    if used_bytes is None:
        return f"it used more than the {asked} of memory that it had asked for"
    return f"it used {used_bytes / 2**20:.0f} MiB of memory and had asked for {asked}"
