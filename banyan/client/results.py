"""What becomes of a future whose task has ended: what it returns, or raises.

Called by the Executor's thread that hears of ends. What a callable has answered is read before its
future is done: so `exception()` and `result()` say the same, and nobody waits in them.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from banyan.client import calls
from banyan.client.api import Client, Document
from banyan.client.calls import words_of
from banyan.client.futures import TaskFailed, TaskFuture, last_lines
from banyan.client.paging import whole
from banyan.errors import BanyanError

# As C code sets it: an exception may have a `__setattr__` of its own, as frozen dataclasses have.
_CAUSE: Any = vars(BaseException)["__cause__"]
_NO_ANSWER = "it ended before it gave an answer, or the answer was lost"


class End(NamedTuple):
    """How a future is to be settled. standing: cancelled, failed, or succeeded; see `standing`."""

    standing: str
    error: BaseException | None = None
    read: Callable[[], Any] = lambda: None

    def settle(self, future: TaskFuture) -> None:
        """Settles it."""
        if self.standing == "cancelled":
            future.give_up()
        elif self.error is not None:
            future.fail(self.error)
        else:
            future.succeed(self.read)


def end_of(client: Client, task: Document, is_call: bool, read: Callable[[], Any]) -> End:
    """read: gets the result of a command that has succeeded, when somebody asks for it.

    Whatever an answer does when it is read, also `SystemExit`, is the end of this task alone.
    Errors: `unavailable` where the server is away for too long.
    """
    if task["state"] == "cancelled":
        return End("cancelled")
    try:
        if is_call:
            return _end_of_call(client, task)
        if task["outcome"] == "success":
            return End("succeeded", read=read)
        return End("failed", _failure(client, task))
    except BanyanError as error:
        if error.word == "unavailable":
            raise
        return End("failed", error)  # as of a task that somebody has removed
    except Exception as problem:  # nothing that is known; but it is of this task
        return End("failed", problem)


def output_of(client: Client, task: Document, stream: str = "stdout") -> bytes:
    """All that the last attempt wrote to a stream; some may still be on its way."""
    attempt = task.get("attempt_count")
    return whole(client.follow(task["_id"], attempt=attempt, stream=stream)) if attempt else b""


def _end_of_call(client: Client, task: Document) -> End:
    told = output_of(client, task, calls.STREAM)
    if not told:
        reason = _NO_ANSWER if task["outcome"] == "success" else ""
        return End("failed", _failure(client, task, reason))
    try:
        returned, value = calls.answer_in(told)
    except BaseException as problem:  # classes that are not here, or that can't be made again
        failed = _failure(client, task, f"its answer can't be read here: {words_of(problem)}")
        failed.__cause__ = problem
        return End("failed", failed)
    if returned:
        return End("succeeded", read=lambda: value)
    # An event loop could not hand on a StopIteration, and would wait.
    if not calls.is_exception(value) or issubclass(type(value), StopIteration):
        value = RuntimeError(f"the callable raised {words_of(value)}")
    _CAUSE.__set__(value, _failure(client, task))
    return End("failed", value)


def _failure(client: Client, task: Document, reason: str = "") -> TaskFailed:
    """reason: why it has, where the server does not know."""
    try:
        path = f"/tasks/{task['_id']}/exit_status"
        status = str(client.transport.request("GET", path).body.get("exit_status") or "")
        output = client.log(task["_id"]) if task.get("attempt_count") else b""
    except BanyanError as error:
        status, output = "", str(error).encode()
    return TaskFailed(
        task["_id"], task["outcome"], status, last_lines(output),
        reason or task.get("reason") or "", task.get("result"),
    )  # fmt: skip
