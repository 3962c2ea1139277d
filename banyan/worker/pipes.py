"""Reading pipes for the launcher, which no task may keep from coming back.

A process that writes to a pipe holds the pipe's lock while the kernel copies from its memory. That
memory may be a mapped file of a network file system whose server is away, or of a file system that
the task serves itself. Everybody else who reads the pipe waits meanwhile, even in non-blocking
mode, and no signal ends the wait. So a second thread watches the first one, and kills the
processes that have the pipe open. Standard library only.
"""

import contextlib
import os
import select
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

from banyan.worker import tree
from banyan.worker.timers import now

_LOOK_SECONDS = 0.25
_LONG_SECONDS = 0.1  # nothing that is not held takes so long
_TIMES_MAX = 20  # that a pipe is found held for so long, for a moment each, ...
_TIMES_SECONDS = 60.0  # ... in this time
_FREED_SECONDS = 1.0  # who is killed has let go by then
_FILE_SERVER = "/dev/fuse"


class _Step(NamedTuple):
    """A call that the first thread is in. inode: the pipe's, for a close; 0 for a read."""

    pipe: int
    inode: int
    since: float


class Pipes:
    """Reads and closes pipes for the first thread."""

    def __init__(self, epoll: select.epoll, in_use: Callable[[], bool]) -> None:
        """in_use: whether there are any."""
        self.freed: set[int] = set()  # those whose holders were killed, until they are closed
        self._epoll = epoll
        self._in_use = in_use
        self._wanted = threading.Event()
        self._step: _Step | None = None
        self._seen: _Step | None = None
        self._times: Counter[int] = Counter()
        self._times_since = now()
        threading.Thread(target=self._watch, name="pipes", daemon=True).start()

    def follow(self, pipe: int) -> None:
        """One more, of which the loop is to hear."""
        self._epoll.register(pipe, select.EPOLLIN)
        self._wanted.set()

    def read(self, pipe: int, most: int) -> bytes:
        """As `os.read`."""
        self._step = _Step(pipe, 0, now())
        try:
            return os.read(pipe, most)
        finally:
            self._step = None

    def close(self, pipe: int) -> None:
        """As `os.close`, and tells the kernel first that nothing is to be heard of it.

        A process that is just being started has copies of all that is open here until its program
        is there. Such a copy would keep the old pipe watched, under a number that may be another
        pipe's by then.
        """
        self._epoll.unregister(pipe)
        self._step = _Step(pipe, os.fstat(pipe).st_ino, now())
        try:
            os.close(pipe)
        finally:
            self._step = None
        self.freed.discard(pipe)
        self._times.pop(pipe, None)

    def _watch(self) -> None:
        while self._wanted.wait():
            self._wanted.clear()
            while self._in_use():
                time.sleep(_LOOK_SECONDS)
                self._look()

    def _look(self) -> None:
        step, before = self._step, self._seen
        self._seen = step
        if now() - self._times_since > _TIMES_SECONDS:
            self._times.clear()
            self._times_since = now()
        if step is None or now() - step.since < _LONG_SECONDS:
            return
        self._times[step.pipe] += 1
        if step is before or self._times[step.pipe] > _TIMES_MAX:
            self._free(step)

    def _free(self, step: _Step) -> None:
        """Kill the processes that hold it up, and then the file servers that these may wait for."""
        try:
            inode = step.inode or os.fstat(step.pipe).st_ino
        except OSError:  # it is past it
            return
        if self._step is not step:  # past it, too: the number may be another pipe's
            return
        self.freed.add(step.pipe)
        users = _kill_all_with(f"pipe:[{inode}]")
        deadline = now() + _FREED_SECONDS
        while self._step is step and now() < deadline:
            time.sleep(_LOOK_SECONDS / 10)
        if self._step is step:  # a process that has asked a file server dies only after it
            _kill_all_with(_FILE_SERVER, users - {os.geteuid()})


def _kill_all_with(file: str, users: set[int] | None = None) -> set[int]:
    """SIGKILL to all other processes with this file open; the users whose they were.

    users: only theirs; None: anybody's.
    """
    found = set()
    for pid in tree.everybody():
        with contextlib.suppress(OSError):
            user = tree.user_of(pid)
            if pid == os.getpid() or (users is not None and user not in users):
                continue
            process = os.pidfd_open(pid)
            try:
                if _has_open(pid, file):
                    signal.pidfd_send_signal(process, signal.SIGKILL)
                    found.add(user)
            finally:
                os.close(process)
    return found


def _has_open(pid: int, file: str) -> bool:
    """Whether one of its threads has: each can have files of its own, and the first can be over."""
    return any(_thread_has_open(thread, file) for thread in os.listdir(f"/proc/{pid}/task"))


def _thread_has_open(thread: str, file: str) -> bool:
    with contextlib.suppress(OSError):  # it has ended meanwhile
        for number in os.listdir(f"/proc/{thread}/fd"):
            with contextlib.suppress(OSError):  # closed meanwhile
                if os.readlink(f"/proc/{thread}/fd/{number}") == file:
                    return True
    return False
