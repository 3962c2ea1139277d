"""Finding the launcher of a state directory, or starting one.

Called by the agent, which holds the directory's lock, so that nobody else does the same at
the same time. It must never start a second launcher beside one that lives.
"""

import os
import subprocess
import sys
from pathlib import Path

import banyan
from banyan.worker import wire
from banyan.worker.launcher import OUTPUT, SOCKET

_STDERR = "launcher.stderr"
_NOT_HANDED_ON = {"BANYAN_ATTEMPT", "BANYAN_TASK_TOKEN", "BANYAN_TOKEN"}


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
    (state_directory / OUTPUT).mkdir(exist_ok=True)
    with wire.listen(state_directory / SOCKET) as listener:
        line = wire.connect(state_directory / SOCKET)
        with (state_directory / _STDERR).open("wb") as stderr:
            process = subprocess.Popen(
                [*_python(), str(listener.fileno()), str(state_directory)],
                env=_environment(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                pass_fds=[listener.fileno()],
                start_new_session=True,  # a signal to the agent's group is not for it
            )
    return line, process


def _python() -> list[str]:
    """Without `site`: the launcher needs no installed package, and starts sooner."""
    return [sys.executable, "-s", "-S", "-m", "banyan.worker.launcher"]


def _environment() -> dict[str, str]:
    """The agent's, less what a task is known by (the agent may itself run in one)."""
    kept = {name: value for name, value in os.environ.items() if name not in _NOT_HANDED_ON}
    return {**kept, "PYTHONPATH": str(Path(banyan.__file__).parents[1])}
