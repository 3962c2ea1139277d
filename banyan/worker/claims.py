"""Claiming: one request at a time, held by the server until there is work that fits.

A thread of its own. The loop says what is free (`want`); the answer goes to the mailbox, and
then the loop says again what is free. When other room is free for a while than a held claim
says, it is broken off and sent again with the same claim_id: what the first may have brought
comes with the second. It must never send a new claim_id while it does not know what became of
the last.
"""

import logging
import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from banyan.domain.resources import Capacity
from banyan.errors import BanyanError
from banyan.worker import answers
from banyan.worker.ahead import WINDOW_SECONDS
from banyan.worker.connection import Connection
from banyan.worker.leases import trusted_until
from banyan.worker.mailbox import Claimed, LeaseLost, Mailbox, Removed
from banyan.worker.timers import now

_HOLD_SECONDS_MAX = 50.0  # each time a claim is sent again costs the server, for every idle worker
_ANSWER_SECONDS = 10.0  # beyond that
_TASKS_MAX = 256
_SHORT_EACH = 4  # so many a core have ended within a quarter of a second
_REST_SECONDS = 0.05
_SETTLED_SECONDS = 0.02  # short tasks come and go: so long a held claim may be out of date
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
        in_doubt: Callable[[], None],
    ) -> None:
        """Asks and tells, from its thread.

        left_seconds: within which a task must end by what it says.
        in_doubt: told when nobody knows what a claim has brought.
        """
        super().__init__(name="claims", daemon=True)
        self._connection = connection
        self._worker = worker
        self.lease_seconds = lease_seconds
        self._mailbox = mailbox
        self._left_seconds = left_seconds
        self._in_doubt = in_doubt
        self._changed = threading.Condition()
        self._wish: Wish | None = None
        self._held: Wish | None = None  # of the claim that the server holds now
        self._out_of_date_since: float | None = None  # the held claim
        self._plenty = True  # the last claim brought all that it asked for
        self._brought = 0  # answers that brought tasks
        self._reported = False  # since the last answer
        self._claim_id = ""  # of the last claim, until the loop knows what it has brought
        self._answered = False
        self._stopped = False

    @property
    def unanswered(self) -> list[str]:
        """The claim_id of a claim of whose tasks the loop may not have heard; for any thread."""
        return [self._claim_id] if self._claim_id else []

    def want(self, wish: Wish | None, heard: int) -> float | None:
        """What is to be claimed, until an answer has come; None: nothing.

        heard: of how many answers the loop knows; a wish from before the last one is void.
        Returns in how many seconds it is to be said again, if it is.
        """
        with self._changed:
            if heard != self._brought:
                return None
            if self._answered:
                self._claim_id = ""
            if wish != self._wish:
                self._wish = wish
                self._changed.notify()
            if not self._held or self._held.fits == (wish and wish.fits):
                self._out_of_date_since = None
                return None
            self._out_of_date_since = self._out_of_date_since or now()
            left = self._out_of_date_since + _SETTLED_SECONDS - now() if wish else 0.0
            if left > 0:
                return left
            self._connection.break_off()
            return None

    def reported(self) -> None:
        """Ends are recorded, so there may be more to claim."""
        with self._changed:
            if not self._reported:
                self._reported = True
                self._changed.notify()

    def stop(self) -> None:
        """Claims nothing more. What a claim under way has brought is found by the next beats."""
        with self._changed:
            self._stopped = True
            self._changed.notify()
            self._connection.break_off()

    def run(self) -> None:
        """The thread."""
        claim_id, pause = uuid.uuid4().hex, _FIRST_PAUSE_SECONDS
        while wish := self._next():
            with self._changed:
                self._claim_id, self._answered = claim_id, False
            try:
                count = self._claim(claim_id, wish)
            except Exception as error:
                if self._is_final(error):
                    return
                self._in_doubt()
                pause = self._rest(wish, pause)
                continue
            pause = _FIRST_PAUSE_SECONDS
            self._answered = True
            self._plenty = count >= wish.max_count
            if count:
                claim_id = uuid.uuid4().hex
            elif wish.ahead:
                self._want_nothing_ahead()
            if count and not self._plenty:
                self._let_them_run()

    def _want_nothing_ahead(self) -> None:
        """Until the loop says how many anew."""
        with self._changed:
            self._wish = self._wish and replace(self._wish, ahead=0)

    def _let_them_run(self) -> None:
        """Nothing else waits: the next claim is not to be in the way of what this one brought.

        Short tasks will have ended by then, and what waits for them is there to be claimed.
        """
        with self._changed:
            self._reported = False
            self._changed.wait_for(lambda: self._stopped or self._reported, _REST_SECONDS)

    def _next(self) -> Wish | None:
        """Waits for a wish; None at the end.

        Where the last claim brought less than it asked for, nothing waits: what there is room
        for is waited for at the server, and nothing is claimed ahead that an idle worker might
        begin at once; very short tasks excepted, of which hundreds may come at one time.
        """
        with self._changed:
            self._held = self._out_of_date_since = None
            while not self._stopped and not self._is_ripe():
                self._changed.wait()
            if self._stopped or not self._wish:
                return None
            wish = self._wish
            if not self._plenty and wish.ahead < _SHORT_EACH * wish.max_count:
                wish = replace(wish, ahead=0)
            self._held = wish if wish.idle and not (self._plenty and wish.ahead) else None
            self._connection.allow()
            return wish

    def _is_ripe(self) -> bool:
        return bool(self._wish and (self._wish.idle or (self._plenty and self._wish.ahead)))

    def _claim(self, claim_id: str, wish: Wish) -> int:
        """How many tasks it has brought."""
        seconds = self._hold_seconds(wish) if self._held else 0.0
        body = {
            "worker": self._worker,
            "claim_id": claim_id,
            "max": wish.max_count,
            "fits": wish.fits,
            "start": True,
            "ahead": wish.ahead,
            "steal": True,  # where it has no room, only what nobody need be asked for
        }
        left = self._left_seconds()
        if left is not None:
            body["ends_within_milliseconds"] = int(max(left - seconds, 0) * 1000)
        sent = now()
        answer = self._connection.held("POST", "/tasks/claim", body, seconds, _ANSWER_SECONDS)
        items, unusable = answers.claimed(answer.body)
        if items or unusable:
            with self._changed:
                self._wish = None  # it has changed by this; the loop will say how
                self._brought += 1
            until = trusted_until(sent, self.lease_seconds)
            self._mailbox.put(Claimed(self._worker, items, until, unusable))
        return len(items) + len(unusable)

    def _hold_seconds(self, wish: Wish) -> float:
        """How many tasks end here is known for the moment, and so is how many to claim ahead."""
        return WINDOW_SECONDS if wish.ahead else min(_HOLD_SECONDS_MAX, self.lease_seconds * 5 / 6)

    def _rest(self, wish: Wish, pause: float) -> float:
        """Waits after trouble, unless it was our own doing; the next pause."""
        with self._changed:
            if self._held and (self._wish and self._wish.fits) != wish.fits:
                return pause
            self._changed.wait_for(lambda: self._stopped, pause)
            return min(pause * 2, _LONGEST_PAUSE_SECONDS)

    def _is_final(self, error: Exception) -> bool:
        """Whether there is nothing more to claim for; the loop is told why."""
        if self._stopped:
            return True
        if not isinstance(error, BanyanError):  # a bug of ours is no reason to claim nothing more
            _log.exception("a claim went wrong", exc_info=error)
            return False
        if error.word == "lease_lost":
            self._mailbox.put(LeaseLost(self._worker))
        elif error.word in ("not_found", "unauthenticated", "forbidden"):
            self._mailbox.put(Removed(self._worker, error))
        elif error.word != "unavailable":
            _log.warning("a claim was refused: %s", error.message)
        return error.word in ("lease_lost", "not_found", "unauthenticated", "forbidden")
