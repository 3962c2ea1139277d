"""What the tasks of a worker use at the moment: cores and memory.

Called with each beat, from the thread that beats. It only looks, and never for long: however many
processes there are, the lease must be renewed.
"""

import os
import time
from collections.abc import Callable, Iterator
from typing import Any

import psutil

from banyan.worker import memory, tree

_LOOK_SECONDS = 0.5


class Usage:
    """Of everything below one process: the launcher. Of thousands, of those that it gets to."""

    def __init__(self, root: Callable[[], int | None]) -> None:
        """`root` is asked each time: a launcher may be replaced."""
        self._root = root
        self._cpu_seconds: dict[int, float] = {}
        self._looked_at = time.monotonic()

    def now(self) -> dict[str, Any]:
        """{"cores": mean since the last call, "memory_bytes": resident now}."""
        root = self._root()
        memory_bytes = 0
        cpu_seconds: dict[int, float] = {}
        for pid in _below(root) if root else []:
            try:
                process = psutil.Process(pid)
                memory_bytes += memory.resident_bytes([pid])
                times = process.cpu_times()
            except (psutil.Error, OSError):
                continue  # it has ended meanwhile; its number may be another's by now
            cpu_seconds[pid] = times.user + times.system
        used = sum(total - self._cpu_seconds.get(pid, 0.0) for pid, total in cpu_seconds.items())
        seconds = max(time.monotonic() - self._looked_at, 0.001)
        self._cpu_seconds, self._looked_at = cpu_seconds, time.monotonic()
        cores = min(max(used / seconds, 0.0), float(os.cpu_count() or 1))
        return {"cores": round(cores, 2), "memory_bytes": memory_bytes}


def _below(root: int) -> Iterator[int]:
    """Its descendants, as many as there is time for."""
    until = time.monotonic() + _LOOK_SECONDS
    waiting, seen = tree.children(root), set[int]()
    while waiting and time.monotonic() < until:
        pid = waiting.pop()
        if pid not in seen:  # a number may have been used anew
            seen.add(pid)
            yield pid
            waiting += tree.children(pid)
