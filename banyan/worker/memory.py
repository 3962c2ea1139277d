"""How much memory and time a tree of processes uses, read from /proc.

Called by the launcher a few times a second for each attempt that lives so long. Standard
library only. Pages that processes share are counted once where that decides something.
"""

import os
from collections.abc import Iterable

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_TICKS = os.sysconf("SC_CLK_TCK")


def resident_bytes(pids: Iterable[int]) -> int:
    """Resident memory, what is shared counted for each process: cheap, and never too little."""
    return sum(int(fields[1]) for pid in pids if (fields := _fields(pid, "statm"))) * _PAGE_BYTES


def virtual_bytes(pids: Iterable[int]) -> int:
    """Address space."""
    return sum(int(fields[0]) for pid in pids if (fields := _fields(pid, "statm"))) * _PAGE_BYTES


def proportional_bytes(pids: Iterable[int]) -> int:
    """Resident and swapped memory, what is shared counted once."""
    return sum(_proportional_bytes(pid) for pid in pids)


def cpu_seconds(pids: Iterable[int]) -> float:
    """Time used by these and by their children that have ended and were waited for."""
    total = 0
    for pid in pids:
        after_name = _read(pid, "stat").rpartition(b")")[2].split()
        total += sum(map(int, after_name[11:15]))
    return total / _TICKS


def _proportional_bytes(pid: int) -> int:
    found = 0
    for line in _read(pid, "smaps_rollup").splitlines():
        if line.startswith((b"Pss:", b"SwapPss:")):
            found += int(line.split()[1]) * 1024
    if found:
        return found
    fields = _fields(pid, "statm")  # no such file in old kernels: less what may be shared
    return max(int(fields[1]) - int(fields[2]), 0) * _PAGE_BYTES if fields else 0


def _fields(pid: int, name: str) -> list[bytes]:
    return _read(pid, name).split()


def _read(pid: int, name: str) -> bytes:
    try:
        with open(f"/proc/{pid}/{name}", "rb", buffering=0) as file:
            return file.readall()
    except OSError:  # it has ended meanwhile
        return b""
