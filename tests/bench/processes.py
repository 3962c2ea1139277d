"""What the processes of a stack use, apart by kind: read from /proc, so Linux only.

Kinds: server (supervisor and server processes), mongod, worker (agent and launcher) and
task (whatever the launcher has started and waited for, or that still runs).
"""

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

KINDS = ("server", "mongod", "worker", "task")
_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_MARKS = {"banyan.server": "server", "banyan.worker": "worker"}
_LAUNCHER = "from banyan.worker import launcher"  # which is no module that Python is started with


@dataclass(frozen=True, slots=True)
class Process:
    """One process now; CPU in seconds, memory in bytes.

    children_seconds: of children that have ended and were waited for, and of theirs.
    """

    pid: int
    parent: int
    command: str
    own_seconds: float
    children_seconds: float
    resident_bytes: int


def tree(root: int) -> list[Process]:
    """This process and all that descend from it, parents first."""
    found = {one.pid: one for one in map(_read, _pids()) if one}
    kept = [root] if root in found else []
    for pid in kept:  # grows while it is walked
        kept += [one.pid for one in found.values() if one.parent == pid]
    return [found[pid] for pid in kept]


def _pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def _read(pid: int) -> Process | None:
    with contextlib.suppress(OSError):
        stat = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b") ")[2].split()
        command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
        user, system, children_user, children_system = (int(word) / _TICKS for word in stat[11:15])
        return Process(
            pid,
            int(stat[1]),
            command,
            user + system,
            children_user + children_system,
            int(stat[21]) * _PAGE_BYTES,
        )
    return None  # it has ended meanwhile


def kind_of(process: Process, root: int) -> str:
    """server, mongod, worker or task."""
    words = process.command.split()
    if process.pid == root:
        return "server"
    if words and words[0].endswith("/mongod"):
        return "mongod"
    if "banyan worker" in process.command or _LAUNCHER in process.command:
        return "worker"
    return next((kind for mark, kind in _MARKS.items() if mark in words_of_module(words)), "task")


def words_of_module(words: list[str]) -> str:
    """The module that a Python process was started with, or nothing."""
    return words[words.index("-m") + 1] if "-m" in words[:-1] else ""


def cpu_seconds(root: int) -> dict[str, float]:
    """Seconds of CPU that each kind has used so far, those of ended tasks included."""
    used = dict.fromkeys(KINDS, 0.0)
    for process in tree(root):
        kind = kind_of(process, root)
        used[kind] += process.own_seconds
        # What a worker has waited for were tasks; what a task has waited for was its own.
        used["task" if kind in ("worker", "task") else kind] += process.children_seconds
    return used


def own_cpu_seconds() -> float:
    """Of this process alone, its threads included."""
    times = os.times()
    return times.user + times.system


def resident_bytes(root: int) -> dict[str, list[int]]:
    """Resident memory of each process, by kind."""
    found: dict[str, list[int]] = {kind: [] for kind in KINDS}
    for process in tree(root):
        found[kind_of(process, root)].append(process.resident_bytes)
    return found
