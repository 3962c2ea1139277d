"""Clients under load: each submits graph after graph, and asks again until it is answered.

What is sent twice carries the same ids, so that nobody can be in doubt about what is wanted.
A client never has more open tasks than its share, so that the queue stays short.
"""

import json
import threading
import time
from random import Random
from typing import Any

import requests

from tests.chaos.graphs import Kind, graph
from tests.harness import Api
from tests.harness.history import History

_OPEN_MAX = 40
_PAUSE_SECONDS = 0.3
_KNOWN_MAX = 400
_GRAPH_SECONDS = 1.0  # between two graphs of a client
ENDED = ("terminated", "cancelled")


class Asking:
    """Requests that are repeated until they are answered, all of it in the history."""

    def __init__(self, api: Api, history: History, stop: threading.Event) -> None:
        self._api = api
        self._history = history
        self._stop = stop

    def ask(self, operation: str, method: str, path: str, body: Any, **more: Any) -> Any:
        """The answer, whatever its status; None where the run ended before there was one."""
        self._history.add(operation, "invoke", **more)
        tries = 0
        while not self._stop.is_set() or tries == 0:
            tries += 1
            try:
                answer = self._api.request(method, path, body)
            except requests.RequestException:
                self._stop.wait(_PAUSE_SECONDS)
                continue
            if answer.status_code != 503:
                outcome = "ok" if answer.ok else "refused"
                told = None if answer.ok else answer.text[:500]
                told_of = {"status": answer.status_code, "tries": tries, "told": told}
                self._history.add(operation, outcome, **told_of, **more)
                return answer
            self._stop.wait(_PAUSE_SECONDS)
        self._history.add(operation, "unknown", **more)
        return None


class Client(threading.Thread):
    """One client; `stop` ends it."""

    def __init__(
        self, number: int, seed: int, api: Api, kind: Kind, history: History, stop: threading.Event
    ) -> None:
        super().__init__(name=f"client {number}", daemon=True)
        self._chance = Random(f"{seed} client {number}")
        self._api = api
        self._kind = kind
        self._stop_event = stop
        self._asking = Asking(api, history, stop)
        self._open: set[str] = set()

    def run(self) -> None:
        due = time.monotonic()
        while not self._stop_event.is_set():
            due = max(due + _GRAPH_SECONDS, time.monotonic())
            if len(self._open) < _OPEN_MAX:
                self._submit()
            self._stop_event.wait(max(0.05, due - time.monotonic()))
            self._look()

    def _submit(self) -> None:
        tasks = graph(self._kind, self._chance)
        ids = [task["_id"] for task in tasks]
        answer = self._asking.ask("submit", "POST", "tasks", tasks, tasks=ids)
        if answer is not None and (answer.ok or answer.status_code == 409):
            self._open.update(ids)

    def _look(self) -> None:
        """Forget those that have ended."""
        try:
            open_ones = still_open(self._api, sorted(self._open))
        except requests.RequestException:
            return
        if open_ones is not None:
            self._open = open_ones


def still_open(api: Api, ids: list[str]) -> set[str] | None:
    """Which of these tasks have not ended; None where the server does not say."""
    if not ids:
        return set()
    where = json.dumps({"_id": {"$in": ids[:_KNOWN_MAX]}})
    more = {"projection": '{"state":1}', "max_results": _KNOWN_MAX}
    answer = api.get("tasks", where=where, **more)
    if answer.status_code != 200:
        return None
    ended = {one["_id"] for one in answer.json()["_items"] if one["state"] in ENDED}
    return set(ids) - ended
