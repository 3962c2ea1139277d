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

# Tasks that were not stored, and whose futures nobody has asked: why.
_unheard: dict[str, Exception] = {}


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


def not_stored(task_id: str, error: Exception) -> None:
    """The program is to say so at its end, unless somebody `has_heard` of it by then."""
    _unheard[task_id] = error


def has_heard(task_id: str) -> None:
    """Somebody has asked the future how it ended."""
    _unheard.pop(task_id, None)


def is_alone() -> bool:
    """Whether all that keeps the program from its end are threads of ours."""
    others = {*threading.enumerate()} - {threading.main_thread(), *_senders}
    return all(each.daemon for each in others)


def tell() -> None:
    """Says on standard error what was not stored, and sees to it that the exit code is not 0."""
    if not _unheard:
        return
    count, error = len(_unheard), next(iter(_unheard.values()))
    _unheard.clear()
    tasks = "a submitted task was" if count == 1 else f"{count} submitted tasks were"
    with contextlib.suppress(Exception):  # it may be closed
        sys.stderr.write(f"banyan: {harmless(f'{tasks} not stored: {error}')}\n")
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
            for id in sender.unsent():
                not_stored(id, interrupted)
    tell()


def _begin_anew() -> None:
    """In a fork: what the parent has submitted is the parent's to tell."""
    _senders.clear()
    _unheard.clear()
    _main_thread_has_ended.clear()


# As `concurrent.futures` does it; children of `multiprocessing` do nothing else at their end.
threading._register_atexit(_at_the_end_of_the_main_thread)  # type: ignore[attr-defined]
atexit.register(_at_exit)
os.register_at_fork(after_in_child=_begin_anew)
