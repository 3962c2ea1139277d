"""What the agent's other threads have to tell its main loop.

Each of those threads does nothing but wait for an answer of the server; all decisions are
made in the one loop that empties this box, so that no state needs a lock.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any

from banyan.errors import BanyanError
from banyan.worker.answers import Unusable


@dataclass(frozen=True, slots=True)
class Claimed:
    """A claim has brought tasks, which may be started before `trusted_until` (since boot).

    unusable: those that cannot be started at all.
    """

    worker: str
    items: list[dict[str, Any]]
    trusted_until: float
    unusable: Sequence[Unusable] = ()


@dataclass(frozen=True, slots=True)
class Beaten:
    """A beat was answered; times in seconds since boot."""

    worker: str
    answer: dict[str, Any]
    trusted_until: float
    lease_end: float


@dataclass(frozen=True, slots=True)
class Reported:
    """The ends of these attempts are recorded (or never will be)."""

    attempts: list[str]


@dataclass(frozen=True, slots=True)
class Shipped:
    """So much of an attempt's output is recorded."""

    attempt: str
    position: int
    offset: int


@dataclass(frozen=True, slots=True)
class AttemptLost:
    """The server has given the attempt to somebody else, or ended it."""

    attempt: str


@dataclass(frozen=True, slots=True)
class LeaseLost:
    """The worker's own lease has lapsed: it must end everything and register anew."""

    worker: str


@dataclass(frozen=True, slots=True)
class Removed:
    """The server does not let this worker go on."""

    worker: str
    error: BanyanError


@dataclass(frozen=True, slots=True)
class Done:
    """An errand's answer, or why it was refused."""

    errand: str
    answer: Any
    error: BanyanError | None


@dataclass(frozen=True, slots=True)
class SignalCame:
    """SIGTERM or SIGINT."""


Event = (
    Claimed | Beaten | Reported | Shipped | AttemptLost | LeaseLost | Removed | Done | SignalCame
)


class Mailbox:
    """A queue that can be waited for together with sockets."""

    def __init__(self) -> None:
        self._events: SimpleQueue[Event] = SimpleQueue()
        self._bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def fileno(self) -> int:
        """For a selector."""
        return self._bell

    def put(self, event: Event) -> None:
        """From any thread, and from a signal handler."""
        self._events.put(event)
        os.eventfd_write(self._bell, 1)

    def take(self) -> list[Event]:
        """All that is there."""
        try:
            os.eventfd_read(self._bell)
        except BlockingIOError:
            return []
        events: list[Event] = []
        while True:
            try:
                events.append(self._events.get_nowait())
            except Empty:
                return events
