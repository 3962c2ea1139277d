"""New tasks of an Executor on their way to the server, as many in one request as have gathered.

Called by the Executor. While one request is under way the next ones gather, so a loop that
submits ten thousand tasks makes some dozens of requests, and the first of them leaves at once.
"""

import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from banyan.client import ending
from banyan.client.api import Client
from banyan.client.graph import BULK_ITEMS, in_requests
from banyan.errors import BanyanError

Task = dict[str, Any]

# Refusals that each part of the tasks would meet again, unless their `_issues` name some tasks.
_OF_ALL = {
    "forbidden",
    "internal",
    "quota_exceeded",
    "token_missing",
    "too_many_requests",
    "unauthenticated",
    "unavailable",
}
_LOOK_SECONDS = 0.1  # at the end of the program: whether anybody is left who may submit


class Sender(threading.Thread):
    """Sends in the order of `put`. `refused(id, error)` is called for what was not stored.

    It is no daemon: the program goes on until all that was put in has been sent.
    """

    def __init__(self, client: Client, refused: Callable[[str, BaseException], None]) -> None:
        super().__init__(name="banyan-sender", daemon=False)
        self._client = client
        self._refused = refused
        self._changed = threading.Condition()
        self._gathered: dict[str, Task] = {}
        self._leaving: set[str] = set()
        self._ended = False
        self._program_ends = False
        self._given_up: Exception | None = None
        self._died_of: BaseException | None = None
        ending.wait_for(self)

    def put(self, task: Task) -> None:
        """One more; it needs its `_id`. Errors: RuntimeError where nothing is sent any more."""
        with self._changed:
            if self._died_of:
                message = f"tasks can't be sent any more: {self._died_of!r}; make a new Executor"
                raise RuntimeError(message) from self._died_of
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
        try:
            while tasks := self._next():
                self._send_all(tasks)
        except BaseException as error:  # whatever it is, nobody may wait for ever
            self._die(error)
        if self._program_ends:
            ending.tell()

    def _send_all(self, tasks: Sequence[Task]) -> None:
        for places in in_requests(tasks, range(len(tasks))):
            piece = [tasks[place] for place in places]
            if self._given_up:
                self._refuse(piece, self._given_up)
            else:
                self._send(piece)

    def _die(self, error: BaseException) -> None:
        """Nothing that was put in is left without a word, and nothing more is taken."""
        with self._changed:
            self._died_of, self._ended = error, True
            self._leaving.update(self._gathered)
            self._gathered.clear()
            lost = list(self._leaving)
        for id in lost:
            self._refused(id, error)
        self._gone(lost)

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
            self._gone(task["_id"] for task in tasks)
        except Exception as error:  # also what is no refusal: one task may be the cause of it
            if len(tasks) == 1 or _is_of_all(error):
                if self._program_ends and _is_away(error):
                    self._given_up = error  # the program waits, and the others would not arrive
                self._refuse(tasks, error)
                return
            half = len(tasks) // 2
            self._send(tasks[:half])
            self._send(tasks[half:])

    def _refuse(self, tasks: Sequence[Task], error: Exception) -> None:
        for task in tasks:
            self._refused(task["_id"], error)
        self._gone(task["_id"] for task in tasks)

    def _gone(self, ids: Iterable[str]) -> None:
        with self._changed:
            self._leaving.difference_update(ids)
            self._changed.notify_all()


def _is_away(error: Exception) -> bool:
    return isinstance(error, BanyanError) and error.word == "unavailable"


def _is_of_all(error: Exception) -> bool:
    return isinstance(error, BanyanError) and error.word in _OF_ALL and not error.issues
