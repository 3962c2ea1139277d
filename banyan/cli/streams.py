"""Standard input, output and error as this process finds them: closed, full, or read no more.

`main` takes them over before anything else is opened, so that every command meets the same ones:
a result that cannot be written ends it with one sentence, and what is only said is no trouble.
"""

import contextlib
import errno
import io
import os
import select
import sys
import threading
from collections.abc import Callable
from typing import Any

from banyan.errors import BanyanError

_OUT, _ERR = 1, 2


def take_over() -> None:
    """From now on `sys.stdout` and `sys.stderr` are those of this module."""
    _fill_closed()
    sys.stdout = _text(_OUT, sys.stdout)
    sys.stderr = _text(_ERR, sys.stderr)


def forget_output() -> None:
    """What is still buffered must not raise when the process ends."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, _OUT)
    os.close(null)


def write_all(descriptor: int, data: bytes | memoryview) -> None:
    """Writes every byte, also where whoever shares the descriptor made it one that never waits.

    Errors: BrokenPipeError; `output` where it cannot be written for another reason.
    """
    rest = memoryview(data)
    while rest:
        try:
            rest = rest[os.write(descriptor, rest) :]
        except BlockingIOError:
            select.select([], [descriptor], [])
        except BrokenPipeError:
            raise
        except OSError as problem:
            name = "standard error" if descriptor == _ERR else "standard output"
            why = "it is closed" if problem.errno == errno.EBADF else problem.strerror
            message = f"{name} cannot be written: {why}"
            raise BanyanError("output", message) from None


def while_read(*works: Callable[[], object]) -> None:
    """Does all of this at the same time, as long as somebody may read what it writes.

    For what goes on while it has nothing to write. Errors: BrokenPipeError as soon as the reader
    of standard output has gone; the first that one of the works raises. The others are left alone.
    """
    ended, end = os.pipe()
    at_work = [_AtWork(work, end) for work in works]
    for one in at_work:
        one.start()
    poll = select.poll()
    poll.register(ended, select.POLLIN)
    poll.register(_OUT, 0)  # errors alone: a pipe or a socket without a reader
    left = len(works)
    while left:
        if ended not in (descriptor for descriptor, _ in poll.poll()):
            raise BrokenPipeError
        left -= len(os.read(ended, left))
        for one in at_work:
            if one.trouble is not None:
                raise one.trouble
    os.close(ended)
    os.close(end)


class _AtWork(threading.Thread):
    """One of the works, beside who looks after the reader."""

    def __init__(self, work: Callable[[], object], end: int) -> None:
        super().__init__(daemon=True)  # neither Ctrl-C nor a reader that has gone waits for it
        self._work = work
        self._end = end
        self.trouble: BaseException | None = None

    def run(self) -> None:
        try:
            self._work()
        except BaseException as trouble:
            self.trouble = trouble
        os.write(self._end, b"\n")


class _Raw(io.RawIOBase):
    """The bytes of one of the two. What cannot be said on standard error can be told nowhere."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self.name = "<stderr>" if descriptor == _ERR else "<stdout>"
        self.mode = "wb"

    def fileno(self) -> int:
        return self._descriptor

    def isatty(self) -> bool:
        return os.isatty(self._descriptor)

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        unheard = (OSError, BanyanError) if self._descriptor == _ERR else ()
        with contextlib.suppress(*unheard), memoryview(data) as view:
            write_all(self._descriptor, view.cast("B"))
        return len(data)


def _text(descriptor: int, found: Any) -> io.TextIOWrapper:
    """The text of one of the two. What its encoding does not have is written as an escape."""
    raw = _Raw(descriptor)
    encoding = getattr(found, "encoding", None) or "utf-8"
    if encoding.lower() in ("ascii", "us-ascii", "ansi_x3.4-1968"):
        encoding = "utf-8"  # as in every other program where no locale is set
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=encoding,
        errors="backslashreplace",
        line_buffering=descriptor == _ERR or raw.isatty(),
    )


def _fill_closed() -> None:
    """A file that is opened later must not become standard output: tasks' output would go there.

    A closed standard output stays one that cannot be written.
    """
    for descriptor in (0, _OUT, _ERR):
        try:
            os.fstat(descriptor)
        except OSError:
            flags = os.O_WRONLY if descriptor == _ERR else os.O_RDONLY
            os.set_inheritable(os.open(os.devnull, flags), True)
