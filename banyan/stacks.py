"""The stacks of this machine: which process serves a data directory, and how to end it.

Asked by the command line for its profiles, and by `banyan down`. The lock of a data directory is
held as long as its supervisor lives (see `banyan.server.directory`), so nothing has to be tidied
up after a kill. Nobody must be signalled whose lock that is not.
"""

import contextlib
import fcntl
import os
import re
import select
import signal
from pathlib import Path

from banyan import ownership
from banyan.errors import BanyanError

LOCK = "lock"
_TEXT_BYTES = 100
_NUMBER = re.compile(rb"\s*([1-9][0-9]{0,6})\s*")  # no process has a greater one


def process_in(text: bytes) -> int | None:
    """The process that a lock names; None where somebody else has written there, or nobody yet."""
    found = _NUMBER.fullmatch(text)
    return int(found[1]) if found else None


def runs(directory: Path) -> bool:
    """Whether a process serves this data directory, as far as we may see that."""
    try:
        return _read_held(directory) is not None
    except (OSError, BanyanError):
        return False


def supervisor(directory: Path) -> "Supervisor | None":
    """The process that serves this data directory; None where none does.

    Errors: `usage` where the directory is none, or others could have written there, or the
    process is another user's, or is in another container, or the lock does not name it.
    """
    lock = directory / LOCK
    try:
        ownership.check_file(lock)
        held = _read_held(directory)
        if held is None:
            return None
        process = process_in(held)
        if process is None:
            message = f"{lock} is held, but names no process: find it with 'fuser {lock}', end it "
            raise BanyanError("usage", f"{message}with 'kill'")
        return Supervisor(directory, process)
    except ProcessLookupError:
        return None  # it has ended in this moment
    except OSError as problem:
        message = f"{directory} is no data directory of a server here: {problem.strerror}"
        raise BanyanError("usage", f"{message}; name one with --data") from None


class Supervisor:
    """A process that holds the lock of a data directory: that one, and none of its number later."""

    def __init__(self, directory: Path, process: int) -> None:
        """Errors: ProcessLookupError; `usage` where it does not hold that lock, or is not ours."""
        self.process = process
        self._file = os.pidfd_open(process)
        try:
            self._check(directory / LOCK)
        except BaseException:
            self.close()
            raise

    def end(self) -> None:
        """Tells it to end."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._file, signal.SIGTERM)

    def has_ended(self, seconds: float) -> bool:
        """Whether it has, within this time."""
        return bool(select.select([self._file], [], [], seconds)[0])

    def close(self) -> None:
        """Closes the file by which it is known."""
        os.close(self._file)

    def _check(self, lock: Path) -> None:
        found = lock.stat()
        opened = Path(f"/proc/{self.process}/fd")
        try:
            files = [one.path for one in os.scandir(opened)]
        except PermissionError:
            message = f"process {self.process} is another user's: do this as that user, or as root"
            raise BanyanError("usage", message) from None
        except FileNotFoundError:
            raise ProcessLookupError(self.process) from None
        if not any(_is(file, found) for file in files):
            message = f"process {self.process} does not hold {lock}: its server is in another "
            raise BanyanError("usage", f"{message}container, or on another machine; end it there")


def _is(file: str, found: os.stat_result) -> bool:
    with contextlib.suppress(OSError):  # closed meanwhile
        return os.path.samestat(os.stat(file), found)
    return False


def _read_held(directory: Path) -> bytes | None:
    """What stands in the lock of a data directory; None where nobody holds it."""
    # Where others may write, a pipe could stand there, for which one would wait for ever.
    file = ownership.open_file(directory / LOCK, os.O_RDONLY | os.O_NONBLOCK)
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)  # for a moment: see DirectoryLock
    except BlockingIOError:
        return os.read(file, _TEXT_BYTES)
    finally:
        os.close(file)
    return None
