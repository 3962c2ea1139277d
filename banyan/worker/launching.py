"""Finding the launcher of a state directory, or starting one.

Called by the agent, which holds the directory's lock, so that nobody else does the same at
the same time. It must never start a second launcher beside one that lives.
"""

import contextlib
import os
import select
import signal
import subprocess
import sys
from pathlib import Path
from typing import BinaryIO

import banyan
from banyan import ownership
from banyan.worker import cells, cgroups, secrets_file, tree, wire
from banyan.worker.launcher import OUTPUT, SOCKET

_STDERR = "launcher.stderr"
PID = "launcher.pid"
_KILL_SECONDS = 5.0
# Where Banyan is comes last: nothing beside it stands in for a module of the library.
_BOOT = """
import sys
sys.path.append(sys.argv.pop(1))
from banyan.worker import launcher
launcher.main()
"""
_NOT_HANDED_ON = {"BANYAN_ATTEMPT", "BANYAN_TASK_TOKEN", "BANYAN_TOKEN", "BANYAN_MONGO_URI"}


def find(state_directory: Path) -> wire.Line | None:
    """A conversation with the launcher that serves this directory; None where there is none."""
    try:
        return wire.connect(state_directory / SOCKET)
    except wire.Gone:
        return None


def start(state_directory: Path) -> tuple[wire.Line, subprocess.Popen[bytes]]:
    """A new launcher, and the conversation with it.

    It inherits a socket that listens already, with the agent's connection in its queue: so
    nobody has to wait for it, and if the agent dies now, it finds nobody there and ends.
    """
    cells.clear(state_directory)  # of one that was killed
    cells.clear_forsaken()
    (state_directory / OUTPUT).mkdir(exist_ok=True)
    with wire.listen(state_directory / SOCKET) as listener:
        line = wire.connect(state_directory / SOCKET)
        with _new(state_directory / _STDERR) as stderr:
            process = subprocess.Popen(
                [*_python(), str(listener.fileno()), str(state_directory)],
                env=_environment(),
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                pass_fds=[listener.fileno()],
                start_new_session=True,  # a signal to the agent's group is not for it
            )
    note(state_directory, process.pid)
    return line, process


def note(state_directory: Path, pid: int) -> None:
    """Which process is the launcher of this directory. Errors: OSError."""
    with _new(state_directory / PID) as noted:
        noted.write(_note_of(pid).encode())


def stderr(state_directory: Path) -> str:
    """What the last launcher has complained about."""
    try:
        file = ownership.open_file(state_directory / _STDERR, os.O_RDONLY)
    except FileNotFoundError:
        return ""
    with os.fdopen(file, errors="replace") as said:
        return said.read()


def kill(state_directory: Path) -> None:
    """Kills the launcher of this directory, one that does not answer, and waits for its end."""
    pid = _pid_of(state_directory)
    if pid is None:
        return
    with contextlib.suppress(ProcessLookupError):
        end = os.pidfd_open(pid)
        try:
            if _pid_of(state_directory) == pid:  # the number has not changed hands meanwhile
                signal.pidfd_send_signal(end, signal.SIGKILL)
                select.select([end], [], [], _KILL_SECONDS)
        finally:
            os.close(end)


def clear(state_directory: Path) -> None:
    """After the end of the last launcher: removes what it needed, and an empty complaint."""
    (state_directory / PID).unlink(missing_ok=True)
    if not stderr(state_directory):
        (state_directory / _STDERR).unlink(missing_ok=True)


def _new(path: Path) -> BinaryIO:
    """A new file in place of what is there: a link goes, and is not followed."""
    path.unlink(missing_ok=True)
    return path.open("xb")


def _pid_of(state_directory: Path) -> int | None:
    try:
        noted = ownership.read_text(state_directory / PID)
        pid = int(noted.partition(" ")[0])
    except (OSError, ValueError):
        return None
    return pid if tree.birth_of(pid).ticks and noted == _note_of(pid) else None


def _note_of(pid: int) -> str:
    """What tells a process from all others, of whatever time.

    Its command line would not do: that is memory of its choice, of any size, and may let whoever
    reads it wait for ever.
    """
    boot = cgroups.text(Path("/proc/sys/kernel/random/boot_id"))
    return f"{pid} {tree.birth_of(pid).ticks} {boot}"


def _python() -> list[str]:
    """A Python that imports from its own library and from where Banyan is, and nowhere else.

    Nothing of the current directory or of PYTHON... variables: others may write in that directory,
    and the launcher may be root. Without `site`: it needs no installed package, and starts sooner.
    The words of tasks are UTF-8, whatever the locale is: see `environment.for_launcher`.
    """
    own = str(Path(banyan.__file__).parents[1])
    return [sys.executable, "-I", "-S", "-X", "utf8", "-c", _BOOT, own]


def _environment() -> dict[str, str]:
    """The agent's, less its secrets, and what a task is known by (the agent may run in one)."""
    return {
        name: value
        for name, value in os.environ.items()
        if name not in _NOT_HANDED_ON and not name.startswith(secrets_file.PREFIX)
    }
