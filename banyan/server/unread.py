"""Answers that wait in memory, because whom they are for reads nothing; bounded in bytes.

`protocol.py` says when a connection takes in no more, and when it does again; one that reads costs
nothing here. Those by which a valid token has come have a bound of their own, so that strangers
never end their answers. Beyond a bound, of the answers of whoever has most in memory that one goes
that has waited the longest.
"""

import asyncio
from dataclasses import dataclass
from typing import Protocol

from banyan.server.shares import Shares

UNREAD_SECONDS_MAX = 60.0  # so long an answer may wait for somebody who reads nothing


class Writer(Protocol):
    """A connection with an answer that was not taken in."""

    def held(self) -> int:
        """The bytes that are kept for it: the whole answer, as long as any of it is unsent."""

    def unsent(self) -> int:
        """The bytes of it that are still to go."""

    def end(self) -> None:
        """Close it now, whatever goes on."""


@dataclass
class _Waiting:
    """How much of it was unsent, and when."""

    owner: str
    unsent: int
    since: float


class Unread:
    """All unread answers of one process, or those of one kind; on the event loop only."""

    def __init__(self, most: int) -> None:
        """most: bytes."""
        self._most = most
        self._waiting: dict[Writer, _Waiting] = {}  # the longest first
        self._shares: Shares[Writer] = Shares()

    @property
    def count(self) -> int:
        """The bytes in memory."""
        return self._shares.count

    def enter(self, writer: Writer, owner: str, now: float) -> None:
        """It takes in no more. owner: whose connection it is."""
        self.leave(writer)
        self._waiting[writer] = _Waiting(owner, writer.unsent(), now)
        self._shares.enter(owner, writer, writer.held())
        while self.count > self._most:
            self._end(next(iter(self._shares.of_most())))

    def leave(self, writer: Writer) -> None:
        """It goes on, or has ended. May be said of any."""
        self._waiting.pop(writer, None)
        self._shares.leave(writer)

    def sweep(self, now: float) -> None:
        """End those that have taken in nothing for too long. Of TCP, the kernel sees to it too."""
        for writer, waiting in list(self._waiting.items()):
            if now - waiting.since < UNREAD_SECONDS_MAX:
                break
            if writer.unsent() < waiting.unsent:
                self.enter(writer, waiting.owner, now)
            else:
                self._end(writer)

    def _end(self, writer: Writer) -> None:
        self.leave(writer)
        # Not at once: it may be about to write.
        asyncio.get_running_loop().call_soon(writer.end)
