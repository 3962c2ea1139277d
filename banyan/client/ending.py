"""The end of a program that has submitted tasks: what it waits for, and what it says.

A program ends when its main thread and all threads that are no daemons have ended. It must not end
before its Senders have sent what they were given, nor in silence where that was not possible.
"""

import atexit
import contextlib
import os
import sys
import threading
import weakref
from collections.abc import Iterable
from typing import Any, Protocol

from banyan.printable import harmless


class _Unheard:
    """Tasks that were not stored, and whose futures nobody has asked: how many, and why the first.

    The errors themselves are not kept: by its traceback each refers to all that was sent with it.
    """

    def __init__(self) -> None:
        self.count = 0
        self.why = ""
        self._changing = threading.Lock()

    def add(self, error: BaseException) -> None:
        with self._changing:
            if not self.count:
                self.why = str(error) or repr(error)
            self.count += 1

    def remove_one(self) -> None:
        with self._changing:
            self.count = max(self.count - 1, 0)  # all may have been told

    def take(self) -> tuple[int, str]:
        with self._changing:
            count, self.count = self.count, 0
            return count, self.why


_unheard = _Unheard()


class Ending(Protocol):
    """A thread, no daemon, that lets the program end when it has nothing to do any more."""

    def program_ends(self) -> None:
        """Called once the main thread has ended; others may go on."""

    def unsent(self) -> Iterable[str]:
        """Ids of the tasks that it has not sent, or sent and not heard of."""


_senders: "weakref.WeakSet[Any]" = weakref.WeakSet()
_main_thread_has_ended = threading.Event()


def wait_for(sender: Ending) -> None:
    """The program is not to end before this thread has."""
    _senders.add(sender)
    if _main_thread_has_ended.is_set():
        sender.program_ends()


def not_stored(error: BaseException) -> None:
    """One more task: the program is to say so at its end, unless somebody `has_heard` by then."""
    _unheard.add(error)


def has_heard() -> None:
    """Somebody has asked the future of one of them how it ended."""
    _unheard.remove_one()


def is_alone() -> bool:
    """Whether all that keeps the program from its end are threads of ours."""
    others = {*threading.enumerate()} - {threading.main_thread(), *_senders}
    return all(each.daemon for each in others)


def tell() -> None:
    """Says on standard error what was not stored, and sees to it that the exit code is not 0."""
    count, why = _unheard.take()
    if not count:
        return
    tasks = "a submitted task was" if count == 1 else f"{count} submitted tasks were"
    with contextlib.suppress(Exception):  # it may be closed
        sys.stderr.write(f"banyan: {harmless(f'{tasks} not stored: {why}')}\n")
        sys.stderr.flush()
    sys.stdout = _Failing(sys.stdout)


class _Failing:
    """Standard output that can't be flushed when the program ends.

    Python ends with 120 then: no other way changes the exit code so late and lets all that is to
    be done at the end be done.
    """

    closed = False  # else it would not be flushed

    def __init__(self, stdout: Any) -> None:
        self._stdout = stdout

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stdout, name)

    def flush(self) -> None:
        if self._stdout is not None and not self._stdout.closed:
            self._stdout.flush()
        if sys.is_finalizing() or _is_of_multiprocessing():
            sys.unraisablehook = lambda told: None  # all is said
            raise RuntimeError("tasks were not stored")


def _is_of_multiprocessing() -> bool:
    """Whether this process ends as children of `multiprocessing` do."""
    module = sys.modules.get("multiprocessing.process")
    return module is not None and module.parent_process() is not None


def _at_the_end_of_the_main_thread() -> None:
    _main_thread_has_ended.set()
    for sender in list(_senders):
        sender.program_ends()
    if not any(sender.is_alive() for sender in _senders):
        tell()


def _at_exit() -> None:
    """Waits for those that began only now, or for which the waiting was interrupted."""
    try:
        for sender in list(_senders):
            sender.join()
    except KeyboardInterrupt:
        interrupted = InterruptedError("the program was interrupted while they were being sent")
        for sender in list(_senders):
            for _ in sender.unsent():
                not_stored(interrupted)
    tell()


def _begin_anew() -> None:
    """In a fork: what the parent has submitted is the parent's to tell."""
    global _unheard
    _senders.clear()
    _unheard = _Unheard()
    _main_thread_has_ended.clear()


# As `concurrent.futures` does it; children of `multiprocessing` do nothing else at their end.
threading._register_atexit(_at_the_end_of_the_main_thread)  # type: ignore[attr-defined]
atexit.register(_at_exit)
os.register_at_fork(after_in_child=_begin_anew)
