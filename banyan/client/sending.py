"""New tasks of an Executor on their way to the server, as many in one request as have gathered.

Called by the Executor. While one request is under way the next ones gather, so a loop that
submits ten thousand tasks makes some dozens of requests, and the first of them leaves at once.
"""

import threading
from collections.abc import Callable, Sequence
from typing import Any

from banyan.client import ending
from banyan.client.api import Client
from banyan.client.graph import BULK_ITEMS, in_requests
from banyan.errors import BanyanError

Task = dict[str, Any]

_LOOK_SECONDS = 0.1  # at the end of the program: whether anybody is left who may submit


class Sender(threading.Thread):
    """Sends in the order of `put`. `refused(id, error)` is called for what was not stored.

    It is no daemon: the program goes on until all that was put in has been sent.
    """

    def __init__(self, client: Client, refused: Callable[[str, Exception], None]) -> None:
        super().__init__(name="banyan-sender", daemon=False)
        self._client = client
        self._refused = refused
        self._changed = threading.Condition()
        self._gathered: dict[str, Task] = {}
        self._leaving: set[str] = set()
        self._ended = False
        self._program_ends = False
        self._given_up: BanyanError | None = None
        ending.wait_for(self)

    def put(self, task: Task) -> None:
        """One more; it needs its `_id`. Errors: RuntimeError where nothing is sent any more."""
        with self._changed:
            if self._ended:
                raise RuntimeError("the program is at its end: nothing can be submitted any more")
            self._gathered[task["_id"]] = task
            self._changed.notify_all()

    def take_back(self, id: str) -> bool:
        """True where it had not left yet, and never will; else returns once it has arrived."""
        with self._changed:
            if self._gathered.pop(id, None) is not None:
                return True
            self._changed.wait_for(lambda: id not in self._leaving)
            return False

    def unsent(self) -> set[str]:
        """Ids of the tasks that have not arrived."""
        return {*list(self._gathered), *list(self._leaving)}

    def end(self) -> None:
        """Ends the thread after all that was put in has been sent."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def program_ends(self) -> None:
        """The same, as soon as nobody is left who may put in more."""
        with self._changed:
            self._program_ends = True
            self._changed.notify_all()

    def run(self) -> None:
        while tasks := self._next():
            for places in in_requests(tasks, range(len(tasks))):
                piece = [tasks[place] for place in places]
                if self._given_up:
                    self._refuse(piece, self._given_up)
                else:
                    self._send(piece)
            with self._changed:
                self._leaving.clear()
                self._changed.notify_all()
        if self._program_ends:
            ending.tell()

    def _next(self) -> list[Task]:
        with self._changed:
            while not (self._wanted_no_more() or self._gathered):
                self._changed.wait(_LOOK_SECONDS if self._program_ends else None)
            ids = list(self._gathered)[:BULK_ITEMS]
            self._leaving.update(ids)
            return [self._gathered.pop(id) for id in ids]

    def _wanted_no_more(self) -> bool:
        self._ended = self._ended or (self._program_ends and ending.is_alone())
        return self._ended

    def _send(self, tasks: Sequence[Task]) -> None:
        """One request. Where it is refused for what one task is, the others must not suffer."""
        try:
            self._client.submit(tasks)
        except BanyanError as error:
            if len(tasks) == 1 or error.word != "invalid":
                self._refuse(tasks, error)
                if self._program_ends and error.word == "unavailable":
                    self._given_up = error  # the program waits, and the others would not arrive
                return
            half = len(tasks) // 2
            self._send(tasks[:half])
            self._send(tasks[half:])
        except Exception as error:  # whatever it is, nobody may wait for ever
            self._refuse(tasks, error)

    def _refuse(self, tasks: Sequence[Task], error: Exception) -> None:
        for task in tasks:
            ending.not_stored(task["_id"], error)
            self._refused(task["_id"], error)
