"""Everything that the worker says once and that must arrive: reports and errands.

A thread of its own, so that the loop never waits for the server. What it carries is repeated
until it is answered; meanwhile more gathers, so that batches grow with the load.
"""

import logging
import threading
from collections import deque
from dataclasses import dataclass
from typing import Any

from banyan.errors import BanyanError
from banyan.worker.connection import Connection
from banyan.worker.mailbox import Done, Mailbox
from banyan.worker.reports import ITEMS_MAX, Part, Reports

_GATHER_SECONDS = 0.004  # more comes within it when there was more than one the last time
_PATIENCE_SECONDS = 0.03
_FIRST_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 5.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Errand:
    """A request of which the loop hears the answer as Done. It must bear being repeated."""

    name: str
    method: str
    path: str
    body: Any = None


class Courier(threading.Thread):
    """Carries until `stop`."""

    def __init__(self, connection: Connection, mailbox: Mailbox) -> None:
        super().__init__(name="courier", daemon=True)
        self._connection = connection
        self._mailbox = mailbox
        self._changed = threading.Condition(threading.RLock())
        self._errands: deque[Errand] = deque()
        self._stopped = False
        self.reports = Reports(self._changed, mailbox)

    def send(self, errand: Errand) -> None:
        """Errands go before reports, in their order."""
        with self._changed:
            self._errands.append(errand)
            self._changed.notify()

    def be_patient(self, patient: bool) -> None:
        """Whether there is more to do on this machine, so that reports may gather for longer."""
        if patient != self.reports.patient:
            with self._changed:
                self.reports.patient = patient
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
            if self._errands:
                self._run_errand(self._errands.popleft())
                continue
            parts = self.reports.gather().parts
            busy = len(parts) > 1
            if parts:
                self._report(parts)

    def _wait(self, busy: bool) -> bool:
        with self._changed:
            while not (self._stopped or self._errands or self.reports.waiting):
                self._changed.wait(self.reports.seconds_to_next)
            if busy and not self._errands:
                self._changed.wait_for(self._is_urgent, _PATIENCE_SECONDS)
            if busy and not self._errands:
                self._changed.wait_for(lambda: self._stopped, _GATHER_SECONDS)
            return not self._stopped

    def _is_urgent(self) -> bool:
        patient = self.reports.patient and self.reports.waiting < ITEMS_MAX // 2
        return self._stopped or bool(self._errands) or not patient

    def _run_errand(self, errand: Errand) -> None:
        try:
            answer = self._ask(errand.method, errand.path, errand.body)
        except BanyanError as error:
            self._mailbox.put(Done(errand.name, None, error))
        else:
            self._mailbox.put(Done(errand.name, answer, None))

    def _report(self, parts: list[Part]) -> None:
        try:
            answer = self._ask("PATCH", "/tasks", [part.item for part in parts])
        except BanyanError as error:
            if len(parts) > 1:  # one of them makes all unreadable: find out which
                for part in parts:
                    self._report([part])
            elif not self._stopped:
                refused = {"_error": {"word": error.word, "message": error.message}}
                self.reports.settle(parts, [refused])
            return
        self.reports.settle(parts, answer["_items"])

    def _ask(self, method: str, path: str, body: Any) -> Any:
        """The answer's body, however long that takes. Errors: what the server refuses."""
        pause = _FIRST_PAUSE_SECONDS
        while True:
            try:
                return self._connection.held(method, path, body, 0).body
            except BanyanError as error:
                if error.word not in ("unavailable", "internal") or self._stopped:
                    raise
                _log.info("%s", error.message)
            with self._changed:
                self._changed.wait_for(lambda: self._stopped, pause)
            pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)
