"""Workers that are short of files or processes."""

import contextlib
import os
import resource
from pathlib import Path
from random import Random

from tests.chaos.faults.fault import Fault, Heal
from tests.chaos.stage import Stage, children_of

_PIDS = Path("/sys/fs/cgroup/pids")
_FILES_LEFT = 2


def no_files(stage: Stage, chance: Random) -> Heal | None:
    """The launcher can open hardly anything more."""
    return _without_files(stage.post(chance).launcher)


def no_files_for_agent(stage: Stage, chance: Random) -> Heal | None:
    """The agent can open hardly anything more: no connection, above all."""
    agent = stage.post(chance).agent
    return _without_files(agent.pid if agent else None)


def _without_files(pid: int | None) -> Heal | None:
    if pid is None:
        return None
    highest = max(map(int, os.listdir(f"/proc/{pid}/fd")))
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (highest + _FILES_LEFT, before[1]))

    def heal() -> None:
        with contextlib.suppress(ProcessLookupError):
            resource.prlimit(pid, resource.RLIMIT_NOFILE, before)

    return heal


def no_processes(stage: Stage, chance: Random) -> Heal | None:
    """The launcher and what it has started can start nothing more."""
    post = stage.post(chance)
    launcher = post.launcher
    if launcher is None:
        return None
    group = _PIDS / f"chaos-{os.getpid()}-{post.name}"
    group.mkdir(exist_ok=True)
    for pid in (launcher, *children_of(launcher)):
        with contextlib.suppress(OSError):
            (group / "cgroup.procs").write_text(str(pid))
    (group / "pids.max").write_text((group / "pids.current").read_text())

    def heal() -> None:
        (group / "pids.max").write_text("max")
        for pid in (group / "cgroup.procs").read_text().split():
            with contextlib.suppress(OSError):
                (_PIDS / "cgroup.procs").write_text(pid)
        with contextlib.suppress(OSError):  # a task in the middle of its end: it goes with it
            group.rmdir()

    return heal


def _why_no_pids() -> str | None:
    if not os.access(_PIDS / "cgroup.procs", os.W_OK):
        return "needs a writable pids cgroup of version 1"
    return None


FAULTS = [
    Fault("no-files", "F18", "a launcher is out of file descriptors", no_files, (3, 8)),
    Fault("no-files-agent", "F18", "an agent is", no_files_for_agent, (3, 8)),
    Fault(
        "no-processes", "F18", "a launcher is out of processes", no_processes, (3, 8), _why_no_pids
    ),
]
