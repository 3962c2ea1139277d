"""The output of one task: read at once, or as it comes.

Called by `Client.log` and `Client.follow`. Positions are those of the server: bytes of the
attempt's whole output, also where only one stream is asked for.
"""

from collections.abc import Iterator
from typing import Any

from banyan.client.holding import Held
from banyan.client.transport import Transport
from banyan.errors import BanyanError

_ENDED = {"terminated", "cancelled"}


class Output:
    """What one task writes; `stream` is "stdout", "stderr", or None for both."""

    def __init__(self, transport: Transport, task: str, stream: str | None) -> None:
        self._transport = transport
        self._task = f"/tasks/{task}"
        self._stream = stream

    def of_attempt(self, attempt: int | None) -> bytes:
        """What an attempt (left out: the last) has written so far.

        Errors: `unavailable` where the answers make no sense.
        """
        parts: list[bytes] = []
        offset, more = 0, True
        while more:
            params = self._params(attempt, offset)
            answer = self._transport.request("GET", f"{self._task}/log", params=params, raw=True)
            parts.append(bytes(answer.body))
            more = answer.headers.get("Banyan-Log-More") == "true"
            if more:  # of the same attempt, also where another begins meanwhile
                attempt = int(answer.headers["Banyan-Log-Attempt"])
                before, offset = offset, int(answer.headers["Banyan-Log-Next-Offset"])
                if offset <= before:  # it would be asked for without end
                    message = f"{self._transport.url} does not answer like a Banyan server"
                    raise BanyanError("unavailable", message)
        return b"".join(parts)

    def follow(self, attempt: int | None) -> Iterator[bytes]:
        """What an attempt writes, until it is complete; left out: the newest and all to come."""
        if attempt is None:
            return self.follow_from(None)
        return self._until_complete(attempt)

    def follow_from(self, first: int | None) -> Iterator[bytes]:
        """What each attempt from `first` on (None: the newest) writes, until the task ends."""
        wanted = first
        for task in self._task_changes():
            newest = int(task.get("attempt_count") or 0)
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

    def _until_complete(self, attempt: int) -> Iterator[bytes]:
        held = Held(self._transport, f"{self._task}/log", growing=True)
        offset = 0
        while True:
            answer = held.next(self._params(attempt, offset), raw=True)
            if answer is None:
                continue
            if answer.body:
                yield answer.body
            if answer.headers["Banyan-Log-Complete"] == "true":
                return
            offset = int(answer.headers["Banyan-Log-Next-Offset"])

    def _params(self, attempt: int | None, offset: int) -> dict[str, Any]:
        params = {"attempt": attempt, "offset": offset, "stream": self._stream}
        return {name: value for name, value in params.items() if value is not None}
