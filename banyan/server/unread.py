"""Answers that wait in memory, because whom they are for reads nothing; bounded in bytes.

`protocol.py` says when a connection takes in no more, and when it does again; one that reads costs
nothing here. Those by which a valid token has come have a bound of their own, so that strangers
never end their answers. Beyond a bound the connection goes that has waited the longest.
"""

import asyncio
from dataclasses import dataclass
from typing import Protocol

UNREAD_SECONDS_MAX = 60.0  # so long an answer may wait for somebody who reads nothing


class Writer(Protocol):
    """A connection with an answer that was not taken in."""

    def unsent(self) -> int:
        """The bytes of it that are still here."""

    def end(self) -> None:
        """Close it now, whatever goes on."""


@dataclass
class _Waiting:
    """What of it was here, and when."""

    count: int
    since: float


class Unread:
    """All unread answers of one process, or those of one kind; on the event loop only."""

    def __init__(self, most: int) -> None:
        """most: bytes."""
        self._most = most
        self._waiting: dict[Writer, _Waiting] = {}  # the longest first
        self.count = 0  # bytes

    def enter(self, writer: Writer, now: float) -> None:
        """It takes in no more."""
        self.leave(writer)
        self._waiting[writer] = _Waiting(writer.unsent(), now)
        self.count += self._waiting[writer].count
        while self.count > self._most:
            self._end(next(iter(self._waiting)))

    def leave(self, writer: Writer) -> None:
        """It goes on, or has ended. May be said of any."""
        found = self._waiting.pop(writer, None)
        self.count -= found.count if found else 0

    def sweep(self, now: float) -> None:
        """End those that have taken in nothing for too long. Of TCP, the kernel sees to it too."""
        for writer, waiting in list(self._waiting.items()):
            if now - waiting.since < UNREAD_SECONDS_MAX:
                break
            if writer.unsent() < waiting.count:
                self.enter(writer, now)
            else:
                self._end(writer)

    def _end(self, writer: Writer) -> None:
        self.leave(writer)
        # Not at once: it may be about to write.
        asyncio.get_running_loop().call_soon(writer.end)
