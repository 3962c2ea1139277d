"""`Executor`: Banyan as a `concurrent.futures.Executor`.

For anybody's programs. A thread sends what is submitted, in few requests; another one hears of
the ends of all tasks with one held request. It must never lose a future: each is settled once,
by whoever takes it out of `_open`.
"""

import os
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent import futures
from typing import Any

from banyan.client import calls, new_tasks
from banyan.client.api import Client, Document
from banyan.client.futures import TaskFailed, TaskFuture, last_lines
from banyan.client.holding import HOLD_SECONDS
from banyan.client.ids import in_pieces, new_id, since
from banyan.client.paging import whole
from banyan.client.progress import Progress
from banyan.client.sending import Sender
from banyan.client.watching import Watch
from banyan.errors import BanyanError

TAG = "executor"  # of all tasks of one Executor; its value is an id older than theirs


class Executor(futures.Executor):
    """Runs commands and Python callables as tasks; use it with `with`, from any thread."""

    def __init__(self, client: Client | None = None, *, python: str = "", **defaults: Any) -> None:
        """client: left out: the server that the command line would take.

        python:   of callables: the interpreter at the worker. [default: this one's path]
        defaults: for all tasks: `cores`, `memory`, `gpus`, `disk`, `custom`, `retries`,
                  `timeout` (seconds or "10 minutes"), or any field of `POST /tasks`.
        """
        self.id = new_id()
        self._client = (client or Client()).clone()
        self._asking = threading.Lock()  # one thread at a time speaks through `_client`
        self._python = python
        own = {"cwd": os.getcwd(), "tags": {TAG: self.id}}
        self._defaults = new_tasks.joined(new_tasks.joined({}, defaults), own | defaults)
        self._defaults["tags"][TAG] = self.id
        self._changed = threading.Condition()
        self._open: dict[str, tuple[TaskFuture, str]] = {}  # id -> its future, a call's mark
        self._counts: Counter[str] = Counter()
        self._ended = False
        self._sender = Sender(self._client.clone(), self._refused)
        self._watcher = threading.Thread(target=self._watch, name="banyan-watcher", daemon=True)
        self._sender.start()
        self._watcher.start()

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> TaskFuture:
        """A command (argv, or a line for the shell), or a callable.

        Of a command, each `{}` stands for the next of args, and kwargs are fields of the task
        as in `Executor(...)`; `after=` takes futures. Of a callable they are its arguments;
        its task is described by the Executor, or by `asking`.
        Errors: RuntimeError after `shutdown`; what the server refuses is in the future.
        """
        if callable(fn):
            return self._submit(new_tasks.of_call(fn, args, kwargs, self._python), {})
        return self._submit(new_tasks.of_command(fn, args), kwargs)

    def asking(self, **fields: Any) -> "Asking":
        """The same Executor, for tasks with these fields: `ex.asking(gpus=1).submit(f, x)`."""
        return Asking(self, fields)

    def progress(self) -> Progress:
        """How far its tasks are: `executor.progress().show()` in a notebook goes on by itself."""
        where = {f"tags.{TAG}": self.id, "_id": {"$gte": since(self.id)}}
        return Progress(self._client, where, more=lambda: not self._ended)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Takes nothing more; wait: until all tasks have ended."""
        with self._changed:
            self._ended = True
            waiting = [future for future, _ in self._open.values()]
            self._changed.notify_all()
        self._sender.end()
        if cancel_futures:
            self._cancel_all([future.task_id for future in waiting])
        if wait:
            futures.wait(waiting)

    def _submit(self, fields: new_tasks.Fields, own: dict[str, Any]) -> TaskFuture:
        task = {"_id": new_id(), **new_tasks.joined(new_tasks.joined(fields, self._defaults), own)}
        task["tags"][TAG] = self.id
        task = {name: value for name, value in task.items() if value not in (None, "", {}, [])}
        future = TaskFuture(task["_id"], task.get("name", ""), self._cancel)
        with self._changed:
            if self._ended:
                raise RuntimeError("this Executor is shut down")
            self._open[task["_id"]] = (future, fields.get("env", {}).get(calls.MARK, ""))
            self._changed.notify_all()
        self._sender.put(task)
        return future

    def _take(self, id: str) -> tuple[TaskFuture, str] | None:
        """The right to settle a future; None where somebody else has it."""
        with self._changed:
            taken = self._open.pop(id, None)
            self._changed.notify_all()
            return taken

    def _refused(self, id: str, error: Exception) -> None:
        if taken := self._take(id):
            self._counts["failed"] += 1
            taken[0].fail(error)

    def _cancel(self, future: TaskFuture) -> bool:
        if not self._sender.take_back(future.task_id):
            path = f"/tasks/{future.task_id}/cancel"
            with self._asking:
                body = self._client.transport.request("POST", path, json={}, repeatable=True).body
            if body.get("state") == "terminated":
                return False  # it was faster
        if self._take(future.task_id):
            self._counts["cancelled"] += 1
            future.give_up()
        else:
            futures.wait([future])  # its end was heard of already; in a moment it is settled
        return future.cancelled()

    def _cancel_all(self, ids: list[str]) -> None:
        """In few requests; what had left is settled when its end is heard of."""
        stored = []
        for id in ids:
            if not self._sender.take_back(id):
                stored.append(id)
            elif taken := self._take(id):
                self._counts["cancelled"] += 1
                taken[0].give_up()
        with self._asking:
            known = (one["_id"] for one in self._known(stored))
            self._client.cancel(known)

    def _known(self, ids: list[str]) -> Iterator[Document]:
        """Those that the server has: others it has refused."""
        for piece in in_pieces(ids):
            yield from self._client.find({"_id": {"$in": piece}}, projection={"state": 1})

    # --- the thread that hears of ends -----------------------------------------------------

    def _watch(self) -> None:
        client = self._client.clone()
        watch = Watch(client, TAG, self.id)
        while waiting := self._waiting():
            try:
                for task in watch.ended(self._open_ids, HOLD_SECONDS):
                    self._settle(client, task)
            except Exception as error:  # as when the server is away for too long: nobody may hang
                for id in waiting:
                    self._refused(id, error)

    def _waiting(self) -> set[str]:
        """The open ids, once there are any; none where there will never be."""
        with self._changed:
            self._changed.wait_for(lambda: self._open or self._ended)
            return set(self._open)

    def _open_ids(self) -> set[str]:
        with self._changed:
            return set(self._open)

    def _settle(self, client: Client, task: Document) -> None:
        taken = self._take(task["_id"])
        if taken is None:
            return
        future, mark = taken
        if task["state"] == "cancelled":
            self._counts["cancelled"] += 1
            future.give_up()
        elif task["outcome"] == "success":
            self._counts["succeeded"] += 1
            future.succeed(lambda: self._result(task, mark))
        else:
            self._counts["failed"] += 1
            future.fail(_failure(client, task, mark))

    def _result(self, task: Document, mark: str) -> Any:
        if task.get("result") is not None:
            return task["result"]
        with self._asking:
            output = _output(self._client, task)
        if not mark:
            return output.decode(errors="replace")
        return calls.answer_in(output, mark, task["_id"])[1]

    def _repr_html_(self) -> str:
        counts = {**self._counts, "open": len(self._open)}
        cells = "".join(f"<td>{count} {name}</td>" for name, count in sorted(counts.items()))
        return f"<table><tr><td>Executor <code>{self.id}</code></td>{cells}</tr></table>"


class Asking(futures.Executor):
    """An Executor seen with more fields for its tasks. To shut it down does nothing."""

    def __init__(self, executor: Executor, fields: dict[str, Any]) -> None:
        self._executor = executor
        self._fields = fields

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> TaskFuture:
        """Like `Executor.submit`."""
        executor, own = self._executor, self._fields
        if callable(fn):
            made = new_tasks.of_call(fn, args, kwargs, executor._python)
            return executor._submit(made, own)
        return executor._submit(
            new_tasks.of_command(fn, args), new_tasks.joined(own, kwargs)
        )  # fmt: skip


def _failure(client: Client, task: Document, mark: str) -> BaseException:
    """What a future of a failed task raises: for a callable what it raised, because of the rest."""
    try:
        path = f"/tasks/{task['_id']}/exit_status"
        status = str(client.transport.request("GET", path).body.get("exit_status") or "")
        output = client.log(task["_id"]) if task.get("attempt_count") else b""
    except BanyanError as error:
        status, output = "", str(error).encode()
    lines = [line for line in output.splitlines() if not mark or not line.startswith(mark.encode())]
    failed = TaskFailed(
        task["_id"], task["outcome"], status, last_lines(b"\n".join(lines)),
        task.get("reason") or "", task.get("result"),
    )  # fmt: skip
    try:
        returned, raised = calls.answer_in(output, mark, task["_id"]) if mark else (True, None)
    except Exception:  # it ended before it could tell, or tells of a class that is not here
        return failed
    if not returned and isinstance(raised, Exception):
        raised.__cause__ = failed
        return raised
    return failed


def _output(client: Client, task: Document) -> bytes:
    """All that the last attempt wrote to standard output; some may still be on its way."""
    attempt = task.get("attempt_count") or 1
    return whole(client.follow(task["_id"], attempt=attempt, stream="stdout"))
