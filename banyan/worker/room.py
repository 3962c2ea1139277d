"""How much memory all tasks of a worker may have together, with what earlier ones have left.

Asked by `cells`, which bounds the cgroup above all cells by it. Standard library only. Pages of
files count for nothing here: the kernel gives them up before it kills anybody.
"""

import contextlib
import threading
import time
from pathlib import Path

from banyan.worker import cgroups
from banyan.worker.cell import Cell

ROOMY_BYTES = 64 << 20  # beside what is given: for cgroups themselves, and to start a task in
_RESERVE_BYTES = 256 << 20  # for what else there is to grow; less where there is little
_RESERVE_PART = 16
_LEAST_PART = 8  # one in so many is for tasks, whatever the others have
_NO_LIMIT_BYTES = 1 << 60  # version 1 writes "no limit" as a number close to 2**63
_AGAIN_SECONDS = 30.0  # after it was tried in vain, which has cost tasks their caches


class Making:
    """Has the kernel make room, in a thread: whoever wants it must not wait."""

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._again = 0.0

    @property
    def is_under_way(self) -> bool:
        """Whether the bound of the cgroup is in use for that."""
        return self._thread is not None and self._thread.is_alive()

    def begin(self, cell: Cell, size_bytes: int) -> None:
        """Unless it is under way, or was in vain just now."""
        if not self.is_under_way and time.monotonic() >= self._again:
            self._thread = threading.Thread(target=self._make, args=(cell, size_bytes), daemon=True)
            with contextlib.suppress(RuntimeError):  # tasks leave no room for a thread, either
                self._thread.start()

    def _make(self, cell: Cell, size_bytes: int) -> None:
        if not cell.make_room(size_bytes):
            self._again = time.monotonic() + _AGAIN_SECONDS


def bytes_for(root: Cell, given_bytes: int) -> int:
    """A bound for the cgroup of all tasks: what the worker gives, if there is so much.

    Never more than what others leave now, of the machine and of each cgroup above, as the kernel
    would choose among all processes there whom to kill: the database, say. Nor less than what is
    held there, for which nobody is to end who had room before.
    """
    held = root.held_bytes(root.usage_bytes())
    return max(min([given_bytes + ROOMY_BYTES, *_left(held)]), held)


def _left(held_bytes: int) -> list[int]:
    """What all others leave, in each place that has a limit."""
    return [
        max(limit - max(used - held_bytes, 0) - _reserve(limit), limit // _LEAST_PART)
        for limit, used in _places()
        if limit
    ]


def _reserve(limit: int) -> int:
    return min(_RESERVE_BYTES, limit // _RESERVE_PART)


def _places() -> list[tuple[int, int]]:
    """Limit and what is held; with limit 0 it tells nothing."""
    found = [_machine()]
    for place in cgroups.own("memory"):
        limit = _limit(str(place))
        if limit:
            cell = Cell(str(place))
            found.append((limit, cell.held_bytes(cell.usage_bytes())))
    return found


def _machine() -> tuple[int, int]:
    lines = (line.split() for line in cgroups.text(Path("/proc/meminfo")).splitlines())
    said = {line[0]: int(line[1]) << 10 for line in lines if line[1:] and line[1].isdigit()}
    total = said.get("MemTotal:", 0)
    return total, total - said.get("MemAvailable:", total)


def _limit(place: str) -> int:
    said = (
        cgroups.read_short(f"{place}/memory.limit_in_bytes")
        or cgroups.read_short(f"{place}/memory.max")
    ).strip()
    return int(said) if said.isdigit() and int(said) < _NO_LIMIT_BYTES else 0
