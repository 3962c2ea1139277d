"""Claiming: one request at a time, held by the server until there is work that fits.

A thread of its own. The loop says what is free (`want`); the answer goes to the mailbox, and
then the loop says again what is free. When more becomes free while a claim is held, the claim
is broken off and sent again with the same claim_id: what the first may have brought comes with
the second. It must never send a new claim_id while it does not know what became of the last.
"""

import logging
import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from banyan.domain.resources import Capacity
from banyan.errors import BanyanError
from banyan.worker.connection import Connection
from banyan.worker.leases import trusted_until
from banyan.worker.mailbox import Claimed, LeaseLost, Mailbox, Removed
from banyan.worker.timers import now

_HOLD_SECONDS_MAX = 30.0
_TASKS_MAX = 256
_FIRST_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 5.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Wish:
    """What a claim asks for."""

    fits: dict[str, Any]
    max_count: int
    ahead: int = 0

    @property
    def idle(self) -> bool:
        """Whether there is room for a task now."""
        return bool(self.fits["cores"] > 0)


def wish_for(free: Capacity, ahead: int = 0) -> Wish | None:
    """A claim for what is free, and for `ahead` tasks more; None where nothing is wanted."""
    if not ahead and (free.cores <= 0 or free.memory_bytes <= 0):
        return None
    fits: dict[str, Any] = {
        "cores": free.cores,
        "memory": free.memory_bytes,
        "gpus": [
            {"memory": gpu.memory_bytes, "compute_capability": "{}.{}".format(*gpu.capability)}
            for gpu in free.gpus
        ],
        "custom": dict(free.custom),
    }
    if free.disk_bytes is not None:
        fits["disk"] = free.disk_bytes
    return Wish(fits, max(1, min(_TASKS_MAX, int(free.cores))), ahead)


class Claims(threading.Thread):
    """Claims for one registration until `stop`."""

    def __init__(
        self,
        connection: Connection,
        worker: str,
        lease_seconds: float,
        mailbox: Mailbox,
        left_seconds: Callable[[], float | None],
    ) -> None:
        """`left_seconds`: within which a task must end by what it says; asked in the thread."""
        super().__init__(name="claims", daemon=True)
        self._connection = connection
        self._worker = worker
        self.lease_seconds = lease_seconds
        self._mailbox = mailbox
        self._left_seconds = left_seconds
        self._changed = threading.Condition()
        self._wish: Wish | None = None
        self._held: Wish | None = None  # of the claim that the server holds now
        self._brought = 0  # answers that brought tasks
        self._stopped = False

    def want(self, wish: Wish | None, heard: int) -> None:
        """What is to be claimed, until an answer has come; None: nothing.

        heard: of how many answers the loop knows; a wish from before the last one is void.
        """
        with self._changed:
            if heard != self._brought or wish == self._wish:
                return
            self._wish = wish
            self._changed.notify()
            if self._held and self._held.fits != (wish and wish.fits):
                self._connection.break_off()

    def stop(self) -> None:
        """Claims nothing more. What a claim under way has brought is found by the next beats."""
        with self._changed:
            self._stopped = True
            self._changed.notify()
            self._connection.break_off()

    def run(self) -> None:
        """The thread. A claim is held only after the same claim, not held, brought nothing."""
        claim_id, dry, pause = uuid.uuid4().hex, None, _FIRST_PAUSE_SECONDS
        while wish := self._next(dry):
            try:
                items = self._claim(claim_id, wish, hold=wish.fits == dry)
            except BanyanError as error:
                if self._is_final(error):
                    return
                dry = None
                pause = self._rest(wish, pause)
                continue
            pause = _FIRST_PAUSE_SECONDS
            dry = None if items else wish.fits
            if items:
                claim_id = uuid.uuid4().hex

    def _next(self, dry: dict[str, Any] | None) -> Wish | None:
        """Waits for a wish; None at the end.

        dry: for what room nothing was there. To hold a claim for that is of use only where
        there is room: what a busy worker claims ahead is what waits already.
        """
        with self._changed:
            self._held = None
            while not self._stopped and not self._is_ripe(dry):
                self._changed.wait()
            if self._stopped or not self._wish:
                return None
            self._held = self._wish if self._wish.fits == dry else None
            self._connection.allow()
            return self._wish

    def _is_ripe(self, dry: dict[str, Any] | None) -> bool:
        return bool(self._wish and (self._wish.idle or self._wish.fits != dry))

    def _claim(self, claim_id: str, wish: Wish, hold: bool) -> list[dict[str, Any]]:
        seconds = min(_HOLD_SECONDS_MAX, self.lease_seconds / 4) if hold else 0.0
        body = {
            "worker": self._worker,
            "claim_id": claim_id,
            "max": wish.max_count,
            "fits": wish.fits,
            "start": True,
            "ahead": 0 if hold else wish.ahead,  # what comes later, an idle worker is to have
        }
        left = self._left_seconds()
        if left is not None:
            body["ends_within_milliseconds"] = int(max(left - seconds, 0) * 1000)
        sent = now()
        items = self._ask("/tasks/claim", body, seconds)
        if not items:
            # Nothing waits: who has claimed most without starting it is asked for half of that.
            # Some comes with the answer; what comes later finds the next claim held.
            sent = now()
            items = self._ask("/tasks/steal", body, 0.0)
        if items:
            with self._changed:
                self._wish = None  # it has changed by this; the loop will say how
                self._brought += 1
            self._mailbox.put(Claimed(self._worker, items, trusted_until(sent, self.lease_seconds)))
        return items

    def _ask(self, path: str, body: dict[str, Any], seconds: float) -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = self._connection.held("POST", path, body, seconds).body[
            "_items"
        ]
        return items

    def _rest(self, wish: Wish, pause: float) -> float:
        """Waits after trouble, unless it was our own doing; the next pause."""
        with self._changed:
            if self._held and (self._wish and self._wish.fits) != wish.fits:
                return pause
            self._changed.wait_for(lambda: self._stopped, pause)
            return min(pause * 2, _LONGEST_PAUSE_SECONDS)

    def _is_final(self, error: BanyanError) -> bool:
        """Whether there is nothing more to claim for; the loop is told why."""
        if self._stopped:
            return True
        if error.word == "lease_lost":
            self._mailbox.put(LeaseLost(self._worker))
        elif error.word in ("not_found", "unauthenticated", "forbidden"):
            self._mailbox.put(Removed(self._worker, error))
        elif error.word != "unavailable":
            _log.warning("a claim was refused: %s", error.message)
        return error.word in ("lease_lost", "not_found", "unauthenticated", "forbidden")
