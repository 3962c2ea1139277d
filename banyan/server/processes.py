"""Child processes that end with their parent, and how one is ended in order.

Called by the supervisor and by the private MongoDB. `spawn` must be called from the
main thread: the kernel ties a child's end to the *thread* that started it.
"""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

_LAST_WILL = Path(__file__).with_name("last_will.py")


class Child:
    """A process that was started here; only its own process id is ever signalled."""

    def __init__(self, name: str, process: "subprocess.Popen[bytes]") -> None:
        self.name = name
        self.process = process

    @property
    def pid(self) -> int:
        """The process id, which stays that of the program after the exec."""
        return self.process.pid

    def ended(self) -> int | None:
        """The exit code (negative: the signal) once it has ended, else None."""
        return self.process.poll()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal; nothing happens where the process has ended."""
        self.process.send_signal(number)

    def stop(self, seconds: float) -> int:
        """SIGTERM, wait for `seconds`, then SIGKILL; the exit code."""
        self.signal(signal.SIGTERM)
        return self.wait_or_kill(seconds)

    def wait_or_kill(self, seconds: float) -> int:
        """Wait for its end for `seconds`, then SIGKILL; the exit code."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()


def spawn(
    name: str,
    arguments: Sequence[str],
    environment: Mapping[str, str] | None = None,
    inherited: Sequence[int] = (),
    apart: Path | None = None,
    directory: Path | None = None,
) -> Child:
    """Start a program that ends with this process, in a session of its own.

    Its own session: Ctrl-C at the terminal reaches this process alone, which then ends
    the children in their order. What a child prints goes to this process's stderr, so
    that stdout stays free for the one line that a program reads.
    environment: all of the child's; None: this process's own.
    inherited: file descriptors that stay open in the child, under the same numbers.
    apart:     where its errors go instead, a file that is made anew; all else is thrown away.
    directory: its working directory; None: this process's own.
    """
    if threading.current_thread() is not threading.main_thread():
        raise RuntimeError("a child would end with the thread that started it")
    errors = None if apart is None else _new(apart)
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", str(_LAST_WILL), str(os.getpid()), *arguments],
        env=None if environment is None else dict(environment),
        stdin=subprocess.DEVNULL,
        stdout=2 if errors is None else subprocess.DEVNULL,
        stderr=errors,
        pass_fds=inherited,
        cwd=directory,
        start_new_session=True,
    )
    if errors is not None:
        os.close(errors)
    return Child(name, process)


def _new(path: Path) -> int:
    path.unlink(missing_ok=True)
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
