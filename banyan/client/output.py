"""The output of one task: read at once, or as it comes.

Called by `Client.log` and `Client.follow`. Positions are those of the server: bytes of the
attempt's whole output, also where only one stream is asked for.
"""

from collections.abc import Iterator
from typing import Any

from banyan.client.holding import Held
from banyan.client.paging import attempts_in, next_offset, number_in, whole
from banyan.client.transport import Transport

_ENDED = {"terminated", "cancelled"}


class Output:
    """What one task writes; `stream` is "stdout", "stderr", or None for both."""

    def __init__(self, transport: Transport, task: str, stream: str | None) -> None:
        self._transport = transport
        self._task = f"/tasks/{task}"
        self._stream = stream

    def of_attempt(self, attempt: int | None) -> bytes:
        """What an attempt (left out: the last) has written so far."""
        return whole(self._pieces(attempt))

    def follow(self, attempt: int | None) -> Iterator[bytes]:
        """What an attempt writes, until it is complete; left out: the newest and all to come."""
        if attempt is None:
            return self.follow_from(None)
        return self._until_complete(attempt)

    def follow_from(self, first: int | None) -> Iterator[bytes]:
        """What each attempt from `first` on (None: the newest) writes, until the task ends."""
        wanted = first
        for task in self._task_changes():
            newest = attempts_in(task)
            wanted = max(newest, 1) if wanted is None else wanted
            while wanted <= newest:
                yield from self._until_complete(wanted)
                wanted += 1
            if task["state"] in _ENDED:
                return

    def _task_changes(self) -> Iterator[dict[str, Any]]:
        held = Held(self._transport, self._task)
        while True:
            answer = held.next()
            if answer is not None:
                yield answer.body

    def _pieces(self, attempt: int | None) -> Iterator[bytes]:
        offset, more = 0, True
        while more:
            params = self._params(attempt, offset)
            answer = self._transport.request("GET", f"{self._task}/log", params=params, raw=True)
            piece = bytes(answer.body or b"")
            yield piece
            more = answer.headers.get("Banyan-Log-More") == "true"
            if more:  # of the same attempt, also where another begins meanwhile
                attempt = number_in(answer.headers, "Banyan-Log-Attempt")
                # There is no more to be had behind what has not grown.
                offset = next_offset(answer.headers, offset, len(piece) or 1)

    def _until_complete(self, attempt: int) -> Iterator[bytes]:
        held = Held(self._transport, f"{self._task}/log", growing=True)
        offset = 0
        while True:
            answer = held.next(self._params(attempt, offset), raw=True)
            if answer is None:
                continue
            if answer.body:
                yield answer.body
            if answer.headers.get("Banyan-Log-Complete") == "true":
                return
            offset = next_offset(answer.headers, offset, len(answer.body or b""))

    def _params(self, attempt: int | None, offset: int) -> dict[str, Any]:
        params = {"attempt": attempt, "offset": offset, "stream": self._stream}
        return {name: value for name, value in params.items() if value is not None}
