"""Reading the marks of tasks in the environments of processes.

What a process shows as its environment is memory of its own choice, of any size. Whoever reads it
waits while the process changes what memory it has; a process that maps a file of a file system
which does not answer may do so for ever. So a process of ours reads it, a bounded part, and is
killed where it does not come back. Used by the launcher, and by the agent where a launcher has
died. Standard library only. It must never hold up who asks for long, nor often.
"""

import contextlib
import os
import select
import signal
import socket
import struct
import time
from typing import NamedTuple, NoReturn

from banyan.worker import tree

_NAMES = (tree.WORKER_VARIABLE, tree.ATTEMPT_VARIABLE)
_ANSWER_SECONDS = 1.0
_HELD_MAX = 4  # readers that do not come back, before nobody is asked about any more
_HELD_SECONDS = 60.0  # so long each of them counts, and as long as it lives
_ORDINARY_BYTES = 128 << 10  # so much is read of each environment
_SPARE_BYTES = 64 << 20  # and so much more of all of them together in a second
_REQUEST = struct.Struct("=qq")
_ANSWER_BYTES_MAX = 1 << 12
_IGNORED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Mark(NamedTuple):
    """Of which worker a process says that it is, and of which attempt; None: of none."""

    worker: str | None = None
    attempt: str | None = None


class _Reader(NamedTuple):
    pid: int
    ticks: int
    line: socket.socket


class Marks:
    """Asks one reader after another; what cannot be read has no mark."""

    def __init__(self) -> None:
        self.readers: set[int] = set()  # children of this process, those left behind too
        self.lacking = False  # no reader could be started for the last question
        self._reader: _Reader | None = None
        self._held: list[tuple[_Reader, float]] = []
        self._unreadable: dict[int, int] = {}  # process -> when it was started
        self._spare_bytes = _SPARE_BYTES
        self._spare_since = time.monotonic()

    def of(self, pid: int) -> Mark:
        """The mark in the environment of a process."""
        ticks = tree.birth_of(pid).ticks
        if not ticks or self._unreadable.get(pid) == ticks or not self._may_ask():
            return Mark()
        try:
            reader = self._reader = self._reader or self._started()
            reader.line.send(_REQUEST.pack(pid, self._spare()))
        except OSError:  # no process or file to be had, or somebody has killed it
            self.lacking = True
            self._drop()
            return Mark()
        self.lacking = False
        if not select.select([reader.line], [], [], _ANSWER_SECONDS)[0]:
            self._unreadable = {**self._unreadable, pid: ticks}
            self._leave_behind(reader)
            return Mark()
        return self._heard(reader)

    def _heard(self, reader: _Reader) -> Mark:
        answer = b""
        with contextlib.suppress(OSError):
            answer = reader.line.recv(_ANSWER_BYTES_MAX)
        if not answer:
            self.lacking = True
            self._drop()
            return Mark()
        spent, *values = answer.split(b"\0")
        self._spare_bytes -= max(int(spent) - _ORDINARY_BYTES, 0)
        return Mark(*[value.decode(errors="replace") or None for value in values])

    def forget(self, pid: int) -> None:
        """A child of this process was reaped: its number may be another's from now on."""
        self.readers.discard(pid)

    def close(self) -> None:
        """Ends the reader; one that is left behind ends when it can."""
        self._drop()
        self._may_ask()

    def _spare(self) -> int:
        if time.monotonic() - self._spare_since >= 1:
            self._spare_since = time.monotonic()
            self._spare_bytes = _SPARE_BYTES
        return max(self._spare_bytes, 0)

    def _may_ask(self) -> bool:
        """Whether few are held; whoever holds one again and again must not hold us up as often."""
        if self._held:
            past = time.monotonic() - _HELD_SECONDS
            self._held = [
                (reader, since)
                for reader, since in self._held
                if since > past or not self._has_ended(reader)
            ]
            known = self._unreadable.items()
            self._unreadable = {
                pid: ticks for pid, ticks in known if tree.birth_of(pid).ticks == ticks
            }
        return len(self._held) < _HELD_MAX

    def _has_ended(self, reader: _Reader) -> bool:
        with contextlib.suppress(ChildProcessError):
            if reader.pid in self.readers and os.waitpid(reader.pid, os.WNOHANG) == (0, 0):
                return False
        self.forget(reader.pid)
        return True

    def _leave_behind(self, reader: _Reader) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(reader.pid, signal.SIGKILL)
        reader.line.close()
        self._held.append((reader, time.monotonic()))
        self._reader = None

    def _drop(self) -> None:
        if self._reader:
            self._reader.line.close()  # which ends it
            with contextlib.suppress(ChildProcessError):
                os.waitpid(self._reader.pid, 0)
            self.forget(self._reader.pid)
        self._reader = None

    def _started(self) -> _Reader:
        """Errors: OSError."""
        ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        # What is sent to it before it ignores signals waits.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _IGNORED)
        try:
            pid = os.fork()
            if pid == 0:
                _be(its.fileno())
        except OSError:
            ours.close()
            raise
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            its.close()
        self.readers.add(pid)
        return _Reader(pid, tree.birth_of(pid).ticks, ours)


def _be(line: int) -> NoReturn:
    """The reader. It holds nothing of whoever asks, as it may stay."""
    try:
        signal.set_wakeup_fd(-1)
        for number in _IGNORED:
            signal.signal(number, signal.SIG_IGN)
        os.setsid()
        for file in map(int, os.listdir("/proc/self/fd")):
            if file != line:
                with contextlib.suppress(OSError):  # the one through which was listed
                    os.close(file)
        while request := os.read(line, _REQUEST.size):
            os.write(line, _answer(*_REQUEST.unpack(request)))
    finally:
        os._exit(0)


def _answer(pid: int, spare_bytes: int) -> bytes:
    found, spent = tree.variables_of(pid, _NAMES, _ORDINARY_BYTES + spare_bytes)
    return b"\0".join([str(spent).encode(), *(found.get(name, b"") for name in _NAMES)])
