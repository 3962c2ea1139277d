"""How many processes and threads all tasks of a worker may have together.

Asked by `cells`, which bounds the cgroup above all cells by it. Standard library only. It only
looks.
"""

import os
from pathlib import Path

from banyan.worker import cgroups
from banyan.worker.cell import count

_PROCESSES_LEAST = 4096  # that all tasks may have, whatever the machine
_PROCESSES_EACH_CORE = 1024
_KERNEL_COUNTS = ("/proc/sys/kernel/pid_max", "/proc/sys/kernel/threads-max")
_RESERVE_PART = 8  # one in so many processes is for others than tasks


def processes_left() -> int:
    """How many the tasks may have, so that what else there is, and is to come, has enough.

    By the cores, too: tens of thousands that fork and end keep the kernel itself busy.
    """
    most = max(_PROCESSES_LEAST, _PROCESSES_EACH_CORE * len(os.sched_getaffinity(0)))
    running = int(cgroups.text(Path("/proc/loadavg")).split()[3].partition("/")[2])
    bounds = [(_number(name), running) for name in _KERNEL_COUNTS]
    bounds += [(_number(f"{place}/pids.max"), count(str(place))) for place in cgroups.own("pids")]
    left = [
        max(bound - used - bound // _RESERVE_PART, bound // _RESERVE_PART)
        for bound, used in bounds
        if bound
    ]
    return min([most, *left])


def _number(path: str) -> int:
    said = cgroups.read_short(path).strip()
    return int(said) if said.isdigit() else 0
