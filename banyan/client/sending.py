"""New tasks of an Executor on their way to the server, as many in one request as have gathered.

Called by the Executor. While one request is under way the next ones gather, so a loop that
submits ten thousand tasks makes some dozens of requests, and the first of them leaves at once.
"""

import threading
from collections.abc import Callable, Sequence
from typing import Any

from banyan.client.api import Client
from banyan.client.graph import BULK_ITEMS, in_requests
from banyan.errors import BanyanError

Task = dict[str, Any]


class Sender(threading.Thread):
    """Sends in the order of `put`. `refused(id, error)` is called for what was not stored."""

    def __init__(self, client: Client, refused: Callable[[str, Exception], None]) -> None:
        super().__init__(name="banyan-sender", daemon=True)
        self._client = client
        self._refused = refused
        self._changed = threading.Condition()
        self._gathered: dict[str, Task] = {}
        self._leaving: set[str] = set()
        self._ended = False

    def put(self, task: Task) -> None:
        """One more; it needs its `_id`."""
        with self._changed:
            self._gathered[task["_id"]] = task
            self._changed.notify_all()

    def take_back(self, id: str) -> bool:
        """True where it had not left yet, and never will; else returns once it has arrived."""
        with self._changed:
            if self._gathered.pop(id, None) is not None:
                return True
            self._changed.wait_for(lambda: id not in self._leaving)
            return False

    def end(self) -> None:
        """Ends the thread after all that was put in has been sent."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def run(self) -> None:
        while tasks := self._next():
            order = range(len(tasks))
            for places in in_requests(tasks, order):
                self._send([tasks[place] for place in places])
            with self._changed:
                self._leaving.clear()
                self._changed.notify_all()

    def _next(self) -> list[Task]:
        with self._changed:
            self._changed.wait_for(lambda: self._gathered or self._ended)
            ids = list(self._gathered)[:BULK_ITEMS]
            self._leaving.update(ids)
            return [self._gathered.pop(id) for id in ids]

    def _send(self, tasks: Sequence[Task]) -> None:
        """One request. Where it is refused for what one task is, the others must not suffer."""
        try:
            self._client.submit(tasks)
        except BanyanError as error:
            if len(tasks) == 1 or error.word != "invalid":
                for task in tasks:
                    self._refused(task["_id"], error)
                return
            half = len(tasks) // 2
            self._send(tasks[:half])
            self._send(tasks[half:])
        except Exception as error:  # whatever it is, nobody may wait for ever
            for task in tasks:
                self._refused(task["_id"], error)
