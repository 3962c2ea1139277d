"""Everything that the worker says once and that must arrive: reports and errands.

A thread of its own, so that the loop never waits for the server. What it carries is repeated
until it is answered; meanwhile more gathers, so that batches grow with the load. What the server
cannot take must not hold up the rest: after a few tries the parts of a report go one by one, and
what fails by itself is put aside for a while. It must never end for anything that is answered.
"""

import logging
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from banyan.errors import EXIT_USAGE, BanyanError
from banyan.worker import answers
from banyan.worker.connection import Connection
from banyan.worker.mailbox import Done, Mailbox
from banyan.worker.reports import ITEMS_MAX, Part, Reports
from banyan.worker.timers import now

_GATHER_SECONDS = 0.004  # more comes within it when there was more than one the last time
_PATIENCE_SECONDS = 0.03
_FIRST_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 5.0
# After so many troubles in a row of such a kind it is asked whose fault they are. A server that
# is away is at fault itself, unless it goes away each time.
_TRIES = {"internal": 3, "unavailable": 8}
# That our request is no good is believed when it was said so often in a row: somebody else may
# have the server's place for a moment, and a worker that ends by it is not started again.
_REFUSALS = 6

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Errand:
    """A request of which the loop hears the answer as Done. It must bear being repeated.

    check: raises `internal` where the answer makes no sense.
    ends:  the words of refusals that may be the answer; None: all.
    """

    name: str
    method: str
    path: str
    body: Any = None
    check: Callable[[Any], object] = field(default=answers.anything, compare=False)
    ends: frozenset[str] | None = None


@dataclass(slots=True)
class _Waiting:
    """An errand that is not answered yet; not before `after` (seconds since boot)."""

    errand: Errand
    after: float = 0.0
    tries: int = 0
    word: str = "unavailable"  # of the last trouble with it
    refusals: int = 0  # of the request itself, in a row

    @property
    def is_overtaken(self) -> bool:
        """Whether it has failed so often that the others need not wait for it."""
        return self.tries >= _TRIES.get(self.word, 1)

    def is_refused(self, error: BanyanError) -> bool:
        """Whether this is the answer, or is to be heard again before it is believed."""
        self.refusals += error.exit_code == EXIT_USAGE
        may_end = self.errand.ends is None or error.word in self.errand.ends
        return may_end and (error.exit_code != EXIT_USAGE or self.refusals >= _REFUSALS)


class Courier(threading.Thread):
    """Carries until `stop`."""

    def __init__(self, connection: Connection, mailbox: Mailbox) -> None:
        super().__init__(name="courier", daemon=True)
        self._connection = connection
        self._mailbox = mailbox
        self._changed = threading.Condition(threading.RLock())
        self._errands: list[_Waiting] = []
        self._stopped = False
        self._troubles = 0  # with reports, in a row
        self._reports_after = 0.0  # none before that (seconds since boot)
        self.reports = Reports(self._changed, mailbox)

    def send(self, errand: Errand) -> None:
        """Errands go before reports, in their order."""
        with self._changed:
            self._errands.append(_Waiting(errand))
            self._changed.notify()

    def be_patient(self, patient: bool) -> None:
        """Whether there is more to do on this machine, so that reports may gather for longer."""
        if patient != self.reports.patient:
            with self._changed:
                self.reports.patient = patient
                self._changed.notify()

    def leave(self) -> None:
        """The worker is about to end: what the server will not take in a few tries is given up."""
        if not self.reports.leaving:
            with self._changed:
                self.reports.leave()
                self._changed.notify()

    def stop(self) -> None:
        """Carries nothing more."""
        with self._changed:
            self._stopped = True
            self._changed.notify()
            self._connection.break_off()

    def run(self) -> None:
        """The thread."""
        busy = False
        while self._wait(busy):
            waiting = self._due_errand()
            if waiting:
                self._run_errand(waiting)
                continue
            parts = self.reports.gather().parts
            busy = len(parts) > 1
            if parts:
                self._report(parts)

    def _wait(self, busy: bool) -> bool:
        with self._changed:
            while not (self._stopped or self._due_errand() or self._may_report()):
                self._changed.wait(self._seconds_to_next())
            if busy and not self._due_errand():
                self._changed.wait_for(self._is_urgent, _PATIENCE_SECONDS)
            if busy and not self._due_errand():
                self._changed.wait_for(lambda: self._stopped, _GATHER_SECONDS)
            return not self._stopped

    def _due_errand(self) -> _Waiting | None:
        """The first, or one behind it where that has failed often enough."""
        return next((one for one in self._in_turn() if one.after <= now()), None)

    def _in_turn(self) -> Iterator[_Waiting]:
        for waiting in list(self._errands):
            yield waiting
            if not waiting.is_overtaken:
                return

    def _may_report(self) -> bool:
        return bool(self.reports.waiting) and self._reports_after <= now()

    def _seconds_to_next(self) -> float | None:
        moments = [waiting.after for waiting in self._in_turn()]
        if self.reports.waiting:
            moments.append(self._reports_after)
        seconds = [max(moment - now(), 0) for moment in moments]
        later = self.reports.seconds_to_next
        return min(seconds if later is None else [*seconds, later], default=None)

    def _is_urgent(self) -> bool:
        patient = self.reports.patient and self.reports.waiting < ITEMS_MAX // 2
        return self._stopped or bool(self._errands) or not patient

    def _run_errand(self, waiting: _Waiting) -> None:
        errand = waiting.errand
        try:
            answer = self._ask(errand.method, errand.path, errand.body)
            errand.check(answer)
        except BanyanError as error:
            if self._is_final(waiting, error):
                self._done(waiting, None, error)
                return
            with self._changed:
                waiting.tries += 1
                waiting.word = error.word
                waiting.after = now() + _pause(waiting.tries)
        else:
            self._done(waiting, answer, None)

    def _is_final(self, waiting: _Waiting, error: BanyanError) -> bool:
        if self._is_trouble(error):
            waiting.refusals = 0
            return self._is_given_up(waiting, error)
        if self._stopped or waiting.is_refused(error):
            return True
        if error.word != waiting.word:
            name = waiting.errand.name
            _log.warning("the %s was refused, and is asked for again: %s", name, error.message)
        return False

    def _is_given_up(self, waiting: _Waiting, error: BanyanError) -> bool:
        hopeless = error.word == "internal" and waiting.is_overtaken
        return self._stopped or (hopeless and self.reports.leaving)

    def _done(self, waiting: _Waiting, answer: Any, error: BanyanError | None) -> None:
        with self._changed:
            self._errands.remove(waiting)
        self._mailbox.put(Done(waiting.errand.name, answer, error))

    def _report(self, parts: list[Part]) -> None:
        try:
            answer = self._ask("PATCH", "/tasks", [part.item for part in parts])
            results = answers.results(answer, [part.item["_id"] for part in parts])
        except BanyanError as error:
            if self._is_trouble(error):
                self._trouble(parts, error)
            elif len(parts) > 1:  # one of them makes all unreadable: find out which
                for part in parts:
                    self._report([part])
            elif not self._stopped:
                refused = {"_error": {"word": error.word, "message": error.message}}
                self.reports.settle(parts, [refused])
            return
        self._troubles = 0
        self.reports.settle(parts, results)

    def _trouble(self, parts: list[Part], error: BanyanError) -> None:
        """None of it is known to have arrived: it is told again, later or one by one."""
        self._troubles += 1
        alone = len(parts) == 1
        if not alone or error.word == "unavailable":
            self._reports_after = now() + _pause(self._troubles)
        if alone:
            self.reports.put_aside(parts[0], error.word)
        else:
            self.reports.tell_again(parts, alone=self._troubles >= _TRIES[error.word])

    @staticmethod
    def _is_trouble(error: BanyanError) -> bool:
        return error.word in _TRIES

    def _ask(self, method: str, path: str, body: Any) -> Any:
        """The answer's body. Errors: BanyanError, and nothing else."""
        try:
            return self._connection.held(method, path, body, 0).body
        except BanyanError as error:
            if error.word == "internal":
                _log.info("%s", error.message)
            raise


def _pause(tries: int) -> float:
    return min(_FIRST_PAUSE_SECONDS * 2.0 ** min(tries - 1, 10), _LONGEST_PAUSE_SECONDS)
