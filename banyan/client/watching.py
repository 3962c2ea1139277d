"""Hears of the ends of an Executor's tasks: one held request, however many tasks there are.

Called by the Executor's thread. All its tasks carry one tag; what is asked for is what of them
has ended since a time. Clocks of server processes may differ, so the question reaches back a
little; and where nothing is heard for long, each open task is looked at by its id.
"""

import time
from collections.abc import Callable, Iterable
from datetime import timedelta

from banyan.client.api import Client, Document
from banyan.client.holding import HOLD_SECONDS, Held
from banyan.client.ids import in_pieces, since
from banyan.domain.units import format_time, parse_time

ENDED = ["terminated", "cancelled"]
_PAGE = 1000
_MOVE_AFTER = 200  # so many ends are told again and again before the question moves on
_REACH_BACK = timedelta(seconds=2)
_WANTED = dict.fromkeys(
    ("state", "outcome", "reason", "attempt_count", "result", "_updated"), 1
)  # fmt: skip
_LONGEST_SILENCE_SECONDS = 300.0


class Watch:
    """The ends of the tasks with one tag."""

    def __init__(
        self, client: Client, tag: str, value: str, silence_seconds: float = HOLD_SECONDS
    ) -> None:
        """silence_seconds: after so long without news each open task is looked at."""
        self._client = client
        self._held = Held(client.transport, "/tasks")
        self._tasks = {f"tags.{tag}": value, "_id": {"$gte": since(value)}, "state": {"$in": ENDED}}
        self._since: dict[str, str] | None = None
        self._first_silence_seconds = self._silence_seconds = silence_seconds
        self._heard = time.monotonic()

    def ended(self, open_ids: Callable[[], set[str]], seconds: float) -> list[Document]:
        """Tasks that have ended, some of them told before; waits for the first one so long.

        open_ids: those whose ends are wanted now; more may come while a request is held.
        """
        where = {**self._tasks, **({"_updated": self._since} if self._since else {})}
        params = {"where": where, "projection": _WANTED, "sort": "_updated", "max_results": _PAGE}
        answer = self._held.next(params, seconds)
        if answer is not None:
            items: list[Document] = answer.body["_items"]
            self._move_on(items, len(items) == answer.body["_meta"]["max_results"])
            if not open_ids().isdisjoint(item["_id"] for item in items):
                self._heard, self._silence_seconds = time.monotonic(), self._first_silence_seconds
                return items
        if time.monotonic() - self._heard < self._silence_seconds:
            return []
        self._heard = time.monotonic()
        self._silence_seconds = min(2 * self._silence_seconds, _LONGEST_SILENCE_SECONDS)
        return list(self.look(open_ids()))

    def look(self, ids: Iterable[str]) -> Iterable[Document]:
        """Those of these tasks that have ended."""
        for piece in in_pieces(list(ids)):
            where = {"_id": {"$in": piece}, "state": {"$in": ENDED}}
            yield from self._client.find(where, projection=_WANTED, limit=len(piece))

    def _move_on(self, items: list[Document], is_full: bool) -> None:
        if len(items) < _MOVE_AFTER:
            return
        newest = items[-1]["_updated"]
        if is_full:
            # More of them lie behind this page: no time to reach back.
            self._since = {"$gt": newest}
        else:
            self._since = {"$gte": format_time(parse_time(newest) - _REACH_BACK)}
