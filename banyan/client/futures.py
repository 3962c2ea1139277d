"""What `Executor.submit` gives back: a `concurrent.futures.Future` of one task.

Its states follow the standard library's, so that `wait`, `as_completed` and callbacks work; what
a task has written is read when it is asked for, not before.
"""

import contextlib
import logging
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from concurrent.futures._base import CANCELLED
from html import escape
from typing import Any

from banyan.client import ending, forks
from banyan.printable import harmless, harmless_lines

_TAIL_LINES = 20

_log = logging.getLogger("banyan.client")


class TaskFailed(Exception):
    """A task ended without success.

    It is no BanyanError: those tell of the queue, which did its work here.

    outcome:     failure, timeout, oom or lost.
    exit_status: of its last attempt, e.g. `failure (3)`; empty where there was none.
    output:      the last lines that it wrote, both streams; as they are: `str` of the whole is
                 what a terminal may show.
    result:      what it gave back all the same, else None.
    """

    def __init__(
        self,
        task_id: str,
        outcome: str,
        exit_status: str = "",
        output: str = "",
        reason: str = "",
        result: Any = None,
    ) -> None:
        super().__init__(task_id, outcome, exit_status, output, reason, result)
        self.task_id = task_id
        self.outcome = outcome
        self.exit_status = exit_status
        self.output = output
        self.reason = reason
        self.result = result

    def __str__(self) -> str:
        ended = self.exit_status or self.outcome
        reason = f" ({self.reason})" if self.reason not in ("", ended) else ""
        told = harmless(f"task {self.task_id}: {ended}{reason}")
        return f"{told}\n{harmless_lines(self.output)}" if self.output else told


def last_lines(output: bytes) -> str:
    """What an error shows of a task's output."""
    lines = output.decode(errors="replace").splitlines()
    return "\n".join(lines[-_TAIL_LINES:])


class TaskFuture(Future[Any]):
    """One task's future. `task_id` is known at once, also before the task is stored."""

    def __init__(
        self,
        task_id: str,
        name: str,
        cancel_task: Callable[["TaskFuture"], bool],
        task_runs: Callable[["TaskFuture"], bool] = lambda future: False,
    ) -> None:
        super().__init__()
        self.task_id = task_id
        self.name = name
        self._cancel_task = cancel_task
        self._task_runs = task_runs
        self._has_callbacks = False
        self._reading = threading.Lock()
        self._read: Callable[[], Any] | None = None  # the result, where nobody has asked for it
        self._value: Any = None
        self._unreadable: Exception | None = None
        self._is_unheard = False  # that its task was not stored
        forks.tell(self)

    def cancel(self) -> bool:
        """Cancels the task, also one that runs; false where it has ended before that."""
        return self.cancelled() if self.done() else self._cancel_task(self)

    def running(self) -> bool:
        """Whether the task runs just now: the server is asked. Errors: BanyanError."""
        return not self.done() and self._task_runs(self)

    def result(self, timeout: float | None = None) -> Any:
        """Of a command: the JSON that it gave back, else what it printed, as text.

        Of a callable: what it returned.
        Errors: TaskFailed, or what the callable raised; CancelledError; TimeoutError;
        BanyanError where the task was not stored, or its result can't be read.
        """
        error = self.exception(timeout)
        if error is None:
            return self._value
        try:
            raise error
        finally:
            del error  # which refers to this frame now

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """What `result` would raise, or None. Errors: CancelledError; TimeoutError."""
        error = super().exception(timeout)
        with self._reading:
            if self._is_unheard:
                self._is_unheard = False
                ending.has_heard()
            if error is None:
                self._read_now()
                return self._unreadable
        return error

    def add_done_callback(self, fn: Callable[[Future[Any]], object]) -> None:
        """As in the standard library. From now on its result is read before it is done.

        So nobody who is called back, as an event loop is, waits for the server.
        """
        self._has_callbacks = True
        super().add_done_callback(fn)

    def succeed(self, read: Callable[[], Any]) -> None:
        """For the Executor: it ended well; `read` gets its result when somebody asks."""
        self._read = read
        if self._has_callbacks:
            self._read_now()
        self.set_running_or_notify_cancel()
        self.set_result(None)

    def fail(self, error: BaseException) -> None:
        """For the Executor: it did not."""
        self.set_running_or_notify_cancel()
        self.set_exception(error)

    def refuse(self, error: BaseException) -> None:
        """For the Executor: its task was not stored, of which somebody is to hear."""
        ending.not_stored(error)
        self._is_unheard = True
        self.fail(error)

    def give_up(self) -> None:
        """For the Executor: its task is cancelled."""
        try:
            super().cancel()
        finally:  # whatever a callback has raised
            self.set_running_or_notify_cancel()  # wakes `wait` and `as_completed`

    @contextlib.contextmanager
    def being_settled(self) -> Iterator[None]:
        """For threads that settle others too: nothing that a callback raises leaves the block.

        The standard library lets out what is no Exception, as `sys.exit` of a result that is read.
        """
        try:
            yield
        except BaseException:
            _log.exception("exception calling callback for task %s", self.task_id)

    def after_fork(self) -> None:
        """In the child: it stays as it is if it has ended; else who asks is told to ask the parent.

        Its locks are made anew: threads that are not here may hold them. Who waits for it, and whom
        it calls back, is the parent's business.
        """
        self._reading = threading.Lock()
        self._is_unheard = False  # the parent tells
        self._condition = threading.Condition()
        self._waiters: list[Any] = []
        self._done_callbacks: list[Any] = []
        if self._state == CANCELLED:
            self.set_running_or_notify_cancel()
        elif not self.done():
            self._has_callbacks, self._read = False, None
            self.set_exception(RuntimeError(_OF_PARENT))

    def __reduce__(self) -> Any:
        raise TypeError(
            "a future stays in the program that has submitted its task: pass on its result(), "
            "or let the next task wait for it: executor.asking(after=[future]).submit(...)"
        )

    def standing(self) -> str:
        """One word for people."""
        if not self.done():
            return "open"
        if self.cancelled():
            return "cancelled"
        return "succeeded" if super().exception() is None else "failed"

    def _repr_html_(self) -> str:
        name, id = escape(self.name), escape(self.task_id)
        return f"<div>task {name} <code>{id}</code>: {self.standing()}</div>"

    def _read_now(self) -> None:
        if self._read is not None:
            try:
                self._value = self._read()
            except Exception as problem:  # whatever it is, all who ask are told the same
                self._unreadable = problem
            self._read = None


_OF_PARENT = (
    "this future belongs to the process that submitted its task, of which this one is a fork: "
    "ask it there, or submit the task here"
)
