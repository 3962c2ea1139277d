"""How many cores other people's processes keep busy, for a worker that gives way to them.

Asked by the ledger whenever the agent's loop looks at what is free. It only looks, and not more
often than every few seconds.
"""

import math
import os
from collections.abc import Callable
from pathlib import Path

from banyan.worker import memory, tree
from banyan.worker.timers import now

_WINDOW_SECONDS = 2.0
_TICKS = os.sysconf("SC_CLK_TCK")


class Others:
    """What of the cores that a worker gives is taken by others."""

    def __init__(
        self,
        spare_cores: float,
        own_seconds: Callable[[], float],
        busy_seconds: Callable[[], float],
        clock: Callable[[], float] = now,
    ) -> None:
        """spare_cores: that the machine has and the worker does not give: others take these first.

        own_seconds and busy_seconds: CPU time used so far, by the worker with its tasks and
        by everything on the machine.
        """
        self._spare_cores = spare_cores
        self._own_seconds = own_seconds
        self._busy_seconds = busy_seconds
        self._clock = clock
        self._last = self._look()
        self._cores = 0

    def cores(self) -> int:
        """Whole cores; less than half of one is not worth giving way to."""
        at, own, busy = self._last
        if self._clock() - at >= _WINDOW_SECONDS:
            self._last = self._look()
            seconds = self._last[0] - at
            others = (self._last[2] - busy) - max(self._last[1] - own, 0.0)
            self._cores = max(math.floor(others / seconds - self._spare_cores + 0.5), 0)
        return self._cores

    def _look(self) -> tuple[float, float, float]:
        return self._clock(), self._own_seconds(), self._busy_seconds()


def others_beside(root: Callable[[], int | None], given_cores: float) -> Others:
    """Others than this process, and than the launcher `root` and all that it has started."""

    def own_seconds() -> float:
        launcher = root()
        return memory.cpu_seconds({os.getpid(), *tree.descendants([launcher] if launcher else [])})

    return Others((os.cpu_count() or 1) - given_cores, own_seconds, busy_seconds)


def busy_seconds(stat: Path = Path("/proc/stat")) -> float:
    """CPU time of the whole machine since it was started; waiting for disks is not in it."""
    user, nice, system, _idle, _waiting, irq, softirq = map(
        int, stat.read_text().split("\n", 1)[0].split()[1:8]
    )
    return (user + nice + system + irq + softirq) / _TICKS
