"""`Executor`: Banyan as a `concurrent.futures.Executor`.

For anybody's programs. A thread sends what is submitted, in few requests; another one hears of
the ends of all tasks with one held request. It must never lose a future: each is settled once,
by whoever takes it out of `_open`. Nor a task: the program does not end before all have been sent.
"""

import contextlib
import os
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent import futures
from functools import partial
from itertools import chain, islice
from typing import Any

from banyan.client import calls, forks, new_tasks, results
from banyan.client.api import Client, Document
from banyan.client.byte_words import carried
from banyan.client.encoding import encoded
from banyan.client.futures import TaskFuture
from banyan.client.holding import HOLD_SECONDS
from banyan.client.ids import in_pieces, new_id, since
from banyan.client.progress import Progress
from banyan.client.sending import Sender
from banyan.client.watching import Watch

TAG = "executor"  # of all tasks of one Executor; its value is an id older than theirs


class _Mapping(futures.Executor):
    def map(
        self,
        fn: Any,
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
    ) -> Iterator[Any]:
        """As in the standard library; chunksize: so many calls of a callable make one task."""
        if chunksize < 1:
            raise ValueError("chunksize must be >= 1")
        if chunksize == 1 or not callable(fn):
            return super().map(fn, *iterables, timeout=timeout)
        arguments = zip(*iterables, strict=False)
        chunks = iter(lambda: list(islice(arguments, chunksize)), [])
        return chain.from_iterable(super().map(partial(calls.each, fn), chunks, timeout=timeout))


class Executor(_Mapping):
    """Runs commands and Python callables as tasks; use it with `with`, from any thread.

    What `submit` has taken is stored before the program ends, however it ends by itself; what can't
    be stored is said on standard error, and the exit code is not 0. In a fork it begins anew.
    """

    def __init__(self, client: Client | None = None, *, python: str = "", **defaults: Any) -> None:
        """client: left out: the server that the command line would take.

        python:   of callables: the interpreter at the worker. [default: this one's path]
        defaults: for all tasks: `cores`, `memory`, `gpus`, `disk`, `custom`, `retries`,
                  `timeout` (seconds or "10 minutes"), or any field of `POST /tasks`.
        """
        self._client = (client or Client()).clone()
        self._python = python
        own = {"cwd": os.getcwd()}
        self._defaults = new_tasks.joined(new_tasks.joined({}, defaults), own | defaults)
        self._ended = False
        self._begin()
        forks.tell(self)

    def _begin(self) -> None:
        """What belongs to this process."""
        self.id = new_id()
        self._asking = threading.Lock()  # one thread at a time speaks through `_client`
        self._changed = threading.Condition()
        self._open: dict[str, tuple[TaskFuture, bool]] = {}  # id -> its future, whether of a call
        self._counts: Counter[str] = Counter()
        self._sender: Sender | None = None  # from the first task on

    def after_fork(self) -> None:
        """In the child: tasks that were submitted before are the parent's business."""
        self._begin()

    def __reduce__(self) -> Any:
        raise TypeError("an Executor can't be sent to another process: make one there")

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> TaskFuture:
        """A command (argv, or a line for the shell), or a callable.

        Of a command, each `{}` stands for the next of args, and kwargs are fields of the task
        as in `Executor(...)`; `after=` takes futures. Of a callable they are its arguments;
        its task is described by the Executor, or by `asking`.
        Errors: RuntimeError after `shutdown`; BanyanError for what can't be sent as JSON; what the
        server refuses is in the future.
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
            sender = self._sender
        if sender:
            sender.end()
        if cancel_futures:
            self._cancel_all([future.task_id for future in waiting])
        if wait:
            futures.wait(waiting)

    def _submit(self, fields: new_tasks.Fields, own: dict[str, Any]) -> TaskFuture:
        task = {"_id": new_id(), **new_tasks.joined(new_tasks.joined(fields, self._defaults), own)}
        task["tags"] = {**task.get("tags", {}), TAG: self.id}
        task = {name: value for name, value in task.items() if value not in (None, "", {}, [])}
        task = carried(task)
        encoded(task)  # who has made it hears of it, and not the others that are sent with it
        future = TaskFuture(task["_id"], task.get("name", ""), self._cancel, self._runs)
        with self._changed:
            if self._ended:
                raise RuntimeError("this Executor is shut down")
            self._sending().put(task)
            self._open[task["_id"]] = (future, calls.CALL in fields.get("env", {}))
            self._changed.notify_all()
        return future

    def _sending(self) -> Sender:
        """The thread that sends; with it the one begins that hears of ends."""
        if self._sender is None:
            sender = Sender(self._client.clone(), self._not_stored)
            sender.start()
            self._sender = sender
            threading.Thread(target=self._watch, name="banyan-watcher", daemon=True).start()
        return self._sender

    def _take(self, id: str) -> TaskFuture | None:
        """The right to settle a future; None where somebody else has it."""
        with self._changed:
            future, _ = self._open.pop(id, (None, False))
            self._changed.notify_all()
            return future

    def _not_stored(self, id: str, error: BaseException) -> None:
        if future := self._take(id):
            self._counts["failed"] += 1
            with future.being_settled():
                future.refuse(error)

    def _unknown(self, id: str, error: Exception) -> None:
        """It is stored, but how it ends can't be heard of."""
        if future := self._take(id):
            self._counts["failed"] += 1
            with future.being_settled():
                future.fail(error)

    def _runs(self, future: TaskFuture) -> bool:
        where = {"_id": future.task_id, "state": {"$in": ["running", "pending_cancellation"]}}
        with self._asking:
            return bool(list(self._client.find(where, projection={"state": 1}, limit=1)))

    def _cancel(self, future: TaskFuture) -> bool:
        if not self._sending().take_back(future.task_id):
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
        with contextlib.ExitStack() as given_up:  # each of them, whatever a callback raises
            for id in ids:
                if not self._sending().take_back(id):
                    stored.append(id)
                elif future := self._take(id):
                    self._counts["cancelled"] += 1
                    given_up.callback(future.give_up)
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
                for id in waiting - self._sending().unsent():  # of others the Sender knows
                    self._unknown(id, error)

    def _waiting(self) -> set[str]:
        """The open ids, once there are any; none where there will never be."""
        with self._changed:
            self._changed.wait_for(lambda: self._open or self._ended)
            return set(self._open)

    def _open_ids(self) -> set[str]:
        with self._changed:
            return set(self._open)

    def _settle(self, client: Client, task: Document) -> None:
        """Read first and taken then: where the server is away, it stays among the open ones.

        Errors: `unavailable` alone; all else that an answer does is told by this one's future.
        """
        id = task["_id"]
        with self._changed:
            future, is_call = self._open.get(id, (None, False))
        if future is None:
            return
        end = results.end_of(client, task, is_call, lambda: self._result(task))
        if self._take(id):
            self._counts[end.standing] += 1
            with future.being_settled():
                end.settle(future)

    def _result(self, task: Document) -> Any:
        """Of a command."""
        if task.get("result") is not None:
            return task["result"]
        with self._asking:
            return results.output_of(self._client, task).decode(errors="replace")

    def _repr_html_(self) -> str:
        counts = {**self._counts, "open": len(self._open)}
        cells = "".join(f"<td>{count} {name}</td>" for name, count in sorted(counts.items()))
        return f"<table><tr><td>Executor <code>{self.id}</code></td>{cells}</tr></table>"


class Asking(_Mapping):
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
