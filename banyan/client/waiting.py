"""Waiting for tasks to end, with one held request at a time.

Called by `Client.wait`. The ids are asked about in pieces, since an address has a length; a
piece is waited for to its end before the next is asked about, so the last to end decides how
long it takes, and never the number of pieces.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from banyan.client.holding import HOLD_SECONDS, Held
from banyan.client.ids import in_pieces
from banyan.client.transport import Transport
from banyan.domain.units import counted
from banyan.errors import BanyanError

_ENDED = ["terminated", "cancelled"]
_WANTED = {"state": 1, "outcome": 1}

Document = dict[str, Any]


def wait_until_ended(
    transport: Transport,
    ids: Sequence[str],
    timeout_seconds: float | None,
    on_change: Callable[[int, int], None] | None,
) -> list[Document]:
    """See `Client.wait`."""
    distinct = list(dict.fromkeys(ids))
    waiting = _Waiting(transport, len(distinct), timeout_seconds, on_change)
    pieces = list(in_pieces(distinct))
    for piece in pieces:
        waiting.look(piece)
    for piece in pieces:
        waiting.stay(piece)
    return [waiting.ended[id] for id in ids]


class _Waiting:
    def __init__(
        self,
        transport: Transport,
        total: int,
        timeout_seconds: float | None,
        on_change: Callable[[int, int], None] | None,
    ) -> None:
        self.ended: dict[str, Document] = {}
        self._transport = transport
        self._total = total
        self._deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
        self._on_change = on_change
        self._told = -1  # how many have ended, as far as was told

    def look(self, piece: Sequence[str]) -> None:
        """Learns how each task of a piece is; all of them must exist."""
        params = _query({"_id": {"$in": list(piece)}}, len(piece))
        items = self._transport.request(
            "GET", "/tasks", params=params, prefer="return=minimal"
        ).body["_items"]
        found = {task["_id"]: task for task in items}
        missing = [id for id in piece if id not in found]
        if missing:
            raise BanyanError("not_found", f"there is no task {missing[0]}, or it is not yours")
        self.ended.update({id: found[id] for id in piece if found[id]["state"] in _ENDED})
        self._tell(len(self.ended))

    def stay(self, piece: Sequence[str]) -> None:
        """Holds until every task of the piece has ended.

        Asks for those that have: a task that starts changes nothing in the answer.
        """
        held = Held(self._transport, "/tasks")
        params = _query({"_id": {"$in": list(piece)}, "state": {"$in": _ENDED}}, len(piece))
        while any(id not in self.ended for id in piece):
            answer = held.next(params, self._seconds_left())
            if answer is None:  # for long: one of them may be there no more
                self.look([id for id in piece if id not in self.ended])
                continue
            told = {task["_id"]: task for task in answer.body["_items"]}
            self.ended.update({id: told[id] for id in piece if id in told})
            self._tell(len(self.ended))

    def _seconds_left(self) -> float:
        if self._deadline is None:
            return HOLD_SECONDS
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError(f"{self._told:,} of {counted(self._total)} ended in time")
        return left

    def _tell(self, ended: int) -> None:
        if self._on_change and ended != self._told:
            self._on_change(ended, self._total)
        self._told = ended


def _query(where: Mapping[str, Any], count: int) -> dict[str, Any]:
    return {"where": where, "projection": _WANTED, "max_results": count}
