"""Reading and closing pipes for the launcher, which no task may keep from coming back.

Who moves data into or out of a pipe holds its lock meanwhile, for as long as the other side of that
lets him wait: memory of a file server that is away, or a socket that nobody reads. Everybody else
who reads or closes the pipe waits, even in non-blocking mode, and no signal ends the wait. Nothing
tells who holds it, and it may be somebody outside of the task. So the thread that waits is given
up: another goes on with the launcher's loop, without that pipe. Standard library only.

A read or a close of a pipe that a task can hold is a step. While the loop is in one, nothing else
may be under way in it that the next thread would not do again.
"""

import contextlib
import os
import select
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from banyan.worker.timers import now

_LOOK_SECONDS = 0.25
_LONG_SECONDS = 0.1  # nothing that is not held takes so long
_LOOKS_MAX = 5  # at one step that takes so long
_TIMES_MAX = 20  # that an attempt's pipes are found held, for a moment each, in so many seconds
_TIMES_SECONDS = 60.0


class Step(NamedTuple):
    """A call that the loop is in. thread: the loop's; reads: it is a read, and no close."""

    pipe: int
    attempt: str
    reads: bool
    thread: int
    since: float


class Replaced(BaseException):
    """Raised in a thread that has come back from a step when another had gone on as the loop."""


class Pipes:
    """Those of all attempts. Everything but `watch` is for the thread that is the loop."""

    def __init__(self, epoll: select.epoll) -> None:
        """epoll: what the loop waits with."""
        self._epoll = epoll
        self._attempts: dict[int, str] = {}  # by the pipes of which the loop hears
        self._to_close: deque[tuple[int, str]] = deque()
        self._wanted = threading.Event()
        self._lock = threading.Lock()
        self._step: Step | None = None
        self._thread = threading.get_native_id()
        self._seen: Step | None = None  # held, at the last look
        self._seen_times = 0
        self._times: Counter[str] = Counter()
        self._times_since = now()

    def __contains__(self, pipe: int) -> bool:
        return pipe in self._attempts

    def attempt_of(self, pipe: int) -> str:
        """Whose it is."""
        return self._attempts[pipe]

    def follow(self, pipes: Iterable[int], attempt: str, others: Iterable[int] = ()) -> None:
        """More, of which the loop is to hear. others: those that `close_dropped` closes.

        Errors: OSError, where the loop does not hear of them; they can be read and dropped.
        """
        new = list(pipes)
        self._attempts.update(dict.fromkeys(new, attempt))
        self._to_close.extend((pipe, attempt) for pipe in others)
        self._wake()
        for pipe in new:
            self._epoll.register(pipe, select.EPOLLIN)

    def read(self, pipe: int, most: int) -> bytes:
        """As `os.read`. A step."""
        self._step = step = Step(pipe, self._attempts[pipe], True, self._thread, now())
        try:
            return os.read(pipe, most)
        finally:
            self._leave(step)

    def drop(self, pipe: int) -> None:
        """Nothing is to be heard of it any more; `close_dropped` closes it.

        A process that is just being started has copies of all that is open here until its program
        is there. Such a copy would keep a closed pipe watched, under a number that may be another
        pipe's by then.
        """
        with contextlib.suppress(FileNotFoundError):  # see `follow`
            self._epoll.unregister(pipe)
        self._to_close.append((pipe, self._attempts[pipe]))
        del self._attempts[pipe]

    def close_dropped(self) -> None:
        """Closes what is to be closed. Each is a step."""
        while self._to_close:
            pipe, attempt = self._to_close[0]
            self._step = step = Step(pipe, attempt, False, self._thread, now())
            self._to_close.popleft()  # its number is another's as soon as the call has begun
            try:
                os.close(pipe)
            finally:
                self._leave(step)

    def go_on_without(self, step: Step) -> None:
        """The calling thread is the loop now, and leaves the pipe to the one that was before."""
        self._thread = threading.get_native_id()
        if step.reads:
            self._epoll.unregister(step.pipe)
            del self._attempts[step.pipe]

    def watch(self, replace: Callable[[Step], None]) -> None:
        """From now on, lets another thread go on where a step does not come back.

        replace: starts it. Called in a thread of its own. Errors: RuntimeError, where it can't be
        started now.
        """
        threading.Thread(target=self._watch, args=(replace,), name="pipes", daemon=True).start()

    def _leave(self, step: Step) -> None:
        with self._lock:
            if self._step is step:
                self._step = None
                return
        if step.reads:  # by the loop: see `spawning` for what another thread would do to a start
            self.follow((), step.attempt, [step.pipe])
        raise Replaced

    def _wake(self) -> None:
        """Lets the watcher look, unless it is about to: to say so each time costs more."""
        if not self._wanted.is_set():
            self._wanted.set()

    def _watch(self, replace: Callable[[Step], None]) -> None:
        while self._wanted.wait():
            self._wanted.clear()
            # In the order in which a pipe goes through them.
            while self._attempts or self._to_close or self._step:
                time.sleep(_LOOK_SECONDS)
                self._look(replace)

    def _look(self, replace: Callable[[Step], None]) -> None:
        if now() - self._times_since > _TIMES_SECONDS:
            self._times.clear()
            self._times_since = now()
        step = self._step
        if step is None or now() - step.since < _LONG_SECONDS or not _is_held_up(step):
            return
        self._seen_times = self._seen_times + 1 if step is self._seen else 1
        self._seen = step
        self._times[step.attempt] += 1
        if self._seen_times >= _LOOKS_MAX or self._times[step.attempt] > _TIMES_MAX:
            self._take(step, replace)

    def _take(self, step: Step, replace: Callable[[Step], None]) -> None:
        with self._lock:
            if self._step is not step:  # it has come back
                return
            self._step = None
            try:
                replace(step)
            except RuntimeError:  # no further thread can be started: at the next look, perhaps
                self._step = step


def _is_held_up(step: Step) -> bool:
    """Whether its thread waits in the kernel, and for this pipe: not for a processor or memory."""
    thread = f"/proc/self/task/{step.thread}"
    try:
        state = Path(f"{thread}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    if state != "D":
        return False
    try:
        call = Path(f"{thread}/syscall").read_text().split()
    except OSError:  # not every kernel tells
        return True
    return len(call) > 1 and call[0].isdecimal() and int(call[1], 16) == step.pipe
