"""Keeping the worker's lease: the beat, and how long its answer may be trusted.

A thread of its own, as a beat is held by the server until there is something to say: that is
how a cancellation arrives at once. It must never count a lease from a later moment than the
sending of the request: the server may have renewed it then, and not after.
"""

import logging
import threading
from collections.abc import Callable
from typing import Any

from banyan.errors import BanyanError
from banyan.worker import answers
from banyan.worker.connection import Connection
from banyan.worker.mailbox import Beaten, LeaseLost, Mailbox, Removed
from banyan.worker.timers import now

_HOLD_SECONDS_MAX = 15.0
_MARGIN_SECONDS_MAX = 10.0
_ANSWER_SECONDS_MAX = 30.0
# A server that does not hold what is no news (it holds too many) is asked less and less often.
_AFTER_OLD_NEWS_SECONDS = 0.03
_AFTER_OLD_NEWS_SECONDS_MAX = 0.5
_ETAG_LENGTH_MAX = 200  # a longer one would be refused with each further beat
_AFTER_TROUBLE_SECONDS = 1.0
# A beat that lists what the worker holds is not held, so that the list is true. The server takes
# back what two lists lack that came some ten seconds apart, and no unanswered claim may bring.
_SECOND_LIST_SECONDS = 11.0

_log = logging.getLogger(__name__)


def trusted_until(sent: float, lease_seconds: float) -> float:
    """Until when tasks may run, if nothing more is heard: the lease, less time to end them."""
    return sent + lease_seconds - min(_MARGIN_SECONDS_MAX, lease_seconds / 6)


class Beats(threading.Thread):
    """Beats for one registration until `stop`."""

    def __init__(
        self,
        connection: Connection,
        worker: str,
        lease_seconds: float,
        mailbox: Mailbox,
        attempts: Callable[[], list[str]],
        unanswered: Callable[[], list[str]],
        used: Callable[[], dict[str, Any]],
    ) -> None:
        """Asks, from this thread.

        unanswered: the claim_ids of claims that may bring more than `attempts` tells of.
        """
        super().__init__(name="beats", daemon=True)
        self._connection = connection
        self._worker = worker
        self._lease_seconds = lease_seconds
        self._mailbox = mailbox
        self._attempts = attempts
        self._unanswered = unanswered
        self._used = used
        self._wanted_number: int | None = None  # of what idle workers want: the last that is known
        self._known = ""  # the ETag of the last answer: until it changes, the beat is held
        self._next_list = 0.0  # when it says again which attempts it knows of
        self._stopped = threading.Event()

    def list_soon(self) -> None:
        """What became of a claim is not known: what it may have taken is to be given back."""
        self._next_list = min(self._next_list, now() + _SECOND_LIST_SECONDS)

    def stop(self) -> None:
        """No further beat; one under way is broken off."""
        self._stopped.set()
        self._connection.break_off()

    def run(self) -> None:
        """The thread."""
        pause = 0.0
        lists = 0
        while not self._stopped.wait(pause):
            begun, known = now(), self._known
            due = begun >= self._next_list
            hold = 0.0 if due else self._hold_seconds(self._next_list - begun)
            try:
                answered = self._beat(hold, lists_attempts=due)
            except Exception:  # without beats all that runs here would be lost
                _log.exception("a beat went wrong")
                answered = False
            if not answered:
                pause = min(_AFTER_TROUBLE_SECONDS, self._lease_seconds / 20)
                continue
            if due:
                self._next_list = now() + (self._lease_seconds if lists else _SECOND_LIST_SECONDS)
                lists += 1
            if self._known == known and now() - begun < hold / 2:
                pause = min(max(2 * pause, _AFTER_OLD_NEWS_SECONDS), _AFTER_OLD_NEWS_SECONDS_MAX)
            else:
                pause = 0.0

    def _hold_seconds(self, left: float) -> float:
        """For how long a beat may be held; left: until the next list."""
        return min(_HOLD_SECONDS_MAX, self._lease_seconds / 4, left)

    def _beat(self, hold: float, lists_attempts: bool) -> bool:
        """Whether there was an answer; hold: for how many seconds the server may keep it."""
        body: dict[str, Any] = {"used": self._used()}
        if lists_attempts:
            body["claims"] = self._unanswered()  # first: what it brings then is in the list
            body["attempts"] = self._attempts()
        if self._wanted_number is not None:
            body["wanted_number"] = self._wanted_number
        sent = now()
        patience = min(_ANSWER_SECONDS_MAX, self._lease_seconds / 4)
        try:
            path = f"/workers/{self._worker}/beat"
            said = self._connection.held("POST", path, body, hold, patience, self._known)
            answer = answers.beat(said.body)
        except BanyanError as error:
            self._fail(error)
            return False
        self._lease_seconds = answer["lease_seconds"]
        self._wanted_number = answer["wanted"]["number"]
        self._mailbox.put(
            Beaten(
                self._worker,
                answer,
                trusted_until(sent, self._lease_seconds),
                sent + self._lease_seconds,
            )
        )
        etag = said.headers.get("ETag", "")
        self._known = etag if len(etag) <= _ETAG_LENGTH_MAX else ""
        return True

    def _fail(self, error: BanyanError) -> None:
        self._known = ""  # whatever it was, it may be what the server stumbles over
        if self._stopped.is_set():
            return
        if error.word == "internal":
            _log.warning("a beat was not answered: %s", error.message)
        if error.word == "lease_lost":
            self._stopped.set()
            self._mailbox.put(LeaseLost(self._worker))
        elif error.word in ("not_found", "unauthenticated", "forbidden"):
            self._stopped.set()
            self._mailbox.put(Removed(self._worker, error))
