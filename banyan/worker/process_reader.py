"""Reading what a process can keep others from reading.

Its environment and how it shares its memory are told by the kernel under a lock of the process's
memory. A process that maps a file of a file system which does not answer may hold that for ever;
nothing else that we read of a process takes the lock. So a process of ours reads both, and is
killed where it does not come back. Used by the launcher, and by the agent where a launcher has
died. Standard library only. It must never hold up who asks for long, nor often.
"""

import contextlib
import enum
import os
import select
import signal
import socket
import struct
import time
from typing import NamedTuple, NoReturn

from banyan.worker import tree

MARKS = (tree.WORKER_VARIABLE, tree.ATTEMPT_VARIABLE)
HELD_MAX = 4  # readers that do not come back, before nobody is asked about any more
ANSWER_SECONDS = 1.0  # enough for everything but memory of very many pages
_HELD_SECONDS = 60.0  # so long each of them counts, and as long as it lives
_REQUEST = struct.Struct("=qqq")
_ANSWER_BYTES_MAX = 1 << 12
_IGNORED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Question(enum.IntEnum):
    """What is asked of a process, and what the answer is.

    MARKS:        how many bytes were read, then the values of these variables of its environment,
                  empty where it has none; NUL between them. At most as many bytes are read as asked
                  for.
    PROPORTIONAL: the bytes that it holds, swap included and mapped files not, what it shares
                  divided among those who share it; 0 where the kernel does not say. Kernels before
                  5.3 do not tell files apart: there at most as many as asked for.
    """

    MARKS = 0
    PROPORTIONAL = 1


class _Reader(NamedTuple):
    pid: int
    line: socket.socket


class ProcessReader:
    """Asks one reader after another. The first one is started when there is something to ask."""

    def __init__(self) -> None:
        self.readers: set[int] = set()  # children of this process, those left behind too
        self.lacking = False  # no reader could be started for the last question
        self._reader: _Reader | None = None
        self._held: list[tuple[_Reader, float]] = []
        self._unreadable: dict[int, int] = {}  # process -> when it was started

    def ask(
        self, question: Question, pid: int, most: int = 0, seconds: float = ANSWER_SECONDS
    ) -> bytes | None:
        """The answer; None where there is none within these seconds, or nobody can be asked."""
        ticks = tree.birth_of(pid).ticks
        if not ticks or self._unreadable.get(pid) == ticks or not self._may_ask():
            return None
        try:
            reader = self._reader = self._reader or self._started()
            reader.line.send(_REQUEST.pack(question, pid, most))
        except OSError:  # no process or file to be had, or somebody has killed it
            self._lack()
            return None
        self.lacking = False
        if not select.select([reader.line], [], [], seconds)[0]:
            if tree.cannot_be_interrupted(reader.pid):  # and is not only slow
                self._unreadable = {**self._unreadable, pid: ticks}
            self._leave_behind(reader)
            return None
        with contextlib.suppress(OSError):
            if answer := reader.line.recv(_ANSWER_BYTES_MAX):
                return answer
        self._lack()
        return None

    def is_unreadable(self, pid: int) -> bool:
        """Whether it has kept a reader from coming back."""
        return pid in self._unreadable and tree.birth_of(pid).ticks == self._unreadable[pid]

    def forget(self, pid: int) -> None:
        """A child of this process was reaped: its number may be another's from now on."""
        self.readers.discard(pid)

    def close(self) -> None:
        """Ends the reader; one that is left behind ends when it can."""
        self._drop()
        self._may_ask()

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
        return len(self._held) < HELD_MAX

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

    def _lack(self) -> None:
        self.lacking = True
        self._drop()

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
        return _Reader(pid, ours)


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
            question, pid, most = _REQUEST.unpack(request)
            told = _marks if question == Question.MARKS else _proportional
            os.write(line, told(pid, most))
    finally:
        os._exit(0)


def _marks(pid: int, most: int) -> bytes:
    found, spent = tree.variables_of(pid, MARKS, most)
    return b"\0".join([str(spent).encode(), *(found.get(name, b"") for name in MARKS)])


def _proportional(pid: int, most: int) -> bytes:
    """Of a process whose first thread has ended another thread tells."""
    every = (_told_proportional(each, most) for each in (pid, *tree.other_threads(pid)))
    return str(next(filter(None, every), 0)).encode()


def _told_proportional(pid: int, most: int) -> int:
    try:
        with open(f"/proc/{pid}/smaps_rollup", "rb", buffering=0) as file:
            lines = file.readall().splitlines()[1:]
    except OSError:  # it has ended meanwhile, or the kernel is too old
        return 0
    said = {name: int(size) * 1024 for name, size, *_ in map(bytes.split, lines)}
    swapped = said.get(b"SwapPss:", 0)
    if b"Pss_Anon:" not in said:
        return min(said.get(b"Pss:", 0) + swapped, most)
    return said[b"Pss_Anon:"] + said.get(b"Pss_Shmem:", 0) + swapped
