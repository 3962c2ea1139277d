"""How long it takes until all is well again after a stroke.

Two questions, asked of each stroke from the moment at which it is over: when has a fresh task
ended that was submitted then, and when has every attempt ended that was alive at the strike?
"""

import contextlib
import threading
import time
from random import Random
from typing import Any

from pymongo import MongoClient
from pymongo.errors import PyMongoError

from tests.chaos.graphs import Kind
from tests.chaos.load import ENDED, Asking
from tests.harness import Api
from tests.harness.history import History

_POLL_SECONDS = 0.25
_HELD = ["running", "pending_cancellation"]


class Recovery:
    """Measures one stroke, in a thread of its own."""

    def __init__(self, stop: threading.Event, api: Api, uri: str) -> None:
        self._stop = stop
        self._api = api
        self._client = MongoClient[dict[str, Any]](
            uri, serverSelectionTimeoutMS=1500, connectTimeoutMS=1500, socketTimeoutMS=3000
        )
        self.fresh_seconds: list[tuple[str, float]] = []
        self.held_seconds: list[tuple[str, float]] = []
        self._threads: list[threading.Thread] = []

    def held(self) -> set[Any]:
        """The attempts that hold tasks now; none where the database is away."""
        with contextlib.suppress(PyMongoError):
            found = self._client["banyan"]["tasks"].find(
                {"state": {"$in": _HELD}}, {"holder.attempt": 1}
            )
            return {task["holder"]["attempt"] for task in found}
        return set()

    def measure(self, name: str, before: set[Any], kind: Kind, seed: str, history: History) -> None:
        """From now on; `before`: the attempts that were alive when it struck."""
        for work in (
            lambda: self._fresh(name, kind, Random(f"{seed} probe"), history),
            lambda: self._over(name, before),
        ):
            thread = threading.Thread(target=work, daemon=True)
            thread.start()
            self._threads.append(thread)

    def join(self, seconds: float) -> None:
        """Wait until the last has been measured."""
        deadline = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        self._client.close()

    def _fresh(self, name: str, kind: Kind, chance: Random, history: History) -> None:
        begun = time.monotonic()
        task = kind.task(chance, command=kind.command(0), priority=100, max_attempt_count=5)
        asking = Asking(self._api, history, self._stop)
        answer = asking.ask("submit", "POST", "tasks", [task], tasks=[task["_id"]])
        while answer is not None and answer.ok and not self._stop.wait(_POLL_SECONDS):
            with contextlib.suppress(Exception):  # away: it is asked again
                if self._api.get(f"tasks/{task['_id']}").json()["state"] in ENDED:
                    self.fresh_seconds.append((name, time.monotonic() - begun))
                    return

    def _over(self, name: str, before: set[Any]) -> None:
        begun = time.monotonic()
        query = {"holder.attempt": {"$in": list(before)}, "state": {"$in": _HELD}}
        while before and not self._stop.wait(_POLL_SECONDS):
            with contextlib.suppress(PyMongoError):
                if not self._client["banyan"]["tasks"].find_one(query, ["_id"]):
                    self.held_seconds.append((name, time.monotonic() - begun))
                    return
