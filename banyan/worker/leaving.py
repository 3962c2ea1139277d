"""How a worker comes to its end: what a signal means, and when there is nothing left to wait for.

Owned by the agent's loop. It must never leave while an attempt, or a token to give back, is
still the server's business.
"""

import enum
import logging

from banyan.errors import BanyanError
from banyan.worker.courier import Courier, Errand
from banyan.worker.holding import Holding
from banyan.worker.registration import Registration
from banyan.worker.state import StateDirectory
from banyan.worker.timers import Timers, now

GIVE_UP = "give up"  # of the timers

_DEREGISTER_SECONDS = 5.0
_GIVE_UP_SECONDS = 10.0  # after the tasks' time to end

_log = logging.getLogger("banyan.worker")


class Mode(enum.Enum):
    """What the worker is about."""

    ACTIVE = "active"
    DRAINING = "draining"  # takes nothing new, finishes what runs
    ENDING = "ending"  # ends what runs
    LEAVING = "leaving"  # nothing runs; says so to the server
    OVER = "over"


class Leaving:
    """The mode, and the ways from one to the next."""

    def __init__(
        self,
        shutdown_seconds: float,
        holding: Holding,
        courier: Courier,
        timers: Timers,
        state: StateDirectory,
    ) -> None:
        """shutdown_seconds: what tasks get to end in; state: what the next agent here finds."""
        self.mode = Mode.ACTIVE
        self.failure: BanyanError | None = None  # why it cannot go on
        self._shutdown_seconds = shutdown_seconds
        self._holding = holding
        self._courier = courier
        self._timers = timers
        self._state = state
        self._signals = 0

    @property
    def active(self) -> bool:
        """Whether it takes new tasks, as far as it is concerned."""
        return self.mode is Mode.ACTIVE

    def signalled(self, registration: Registration | None) -> None:
        """The first signal drains, the second ends the tasks, the third waits for nothing."""
        self._signals += 1
        if self.active:
            _log.info("draining: what runs is finished; a second signal ends it")
            self.drain(registration)
        elif self.mode is Mode.DRAINING:
            _log.info("ending what runs; it is given back, to run elsewhere")
            self.end_tasks()
        elif self.mode is Mode.ENDING or self._signals > 2:
            self.mode = Mode.OVER  # but a second one, while it says goodbye, changes nothing

    def time_is_up(self, registration: Registration | None) -> None:
        """Ends, and what runs too."""
        if self.active:
            _log.info("the time limit is reached: what runs is ended and given back")
            self.drain(registration)
        if self.mode is Mode.DRAINING:
            self.end_tasks()

    def idle(self, registration: Registration | None) -> None:
        """There was nothing to do for as long as was to be waited."""
        if self.active:
            _log.info("the idle limit is reached: draining")
            self.drain(registration)

    def drain(self, registration: Registration | None) -> None:
        """Takes nothing new, and leaves when what runs has ended."""
        self.mode = Mode.DRAINING
        if registration and self._holding.busy:
            self._state.note_drain()
            self._courier.send(Errand("drain", "POST", f"/workers/{registration.worker}/drain"))

    def end_tasks(self) -> None:
        """Ends what runs, and gives it back."""
        for attempt in self._holding.running:
            self._holding.stop(attempt, "released", self._shutdown_seconds)
        self._end_at_latest(self._shutdown_seconds + _GIVE_UP_SECONDS)

    def give_in(self, error: BanyanError) -> None:
        """The server does not let this worker go on, whose tasks are lost."""
        self.failure = error
        self._end_at_latest(_GIVE_UP_SECONDS)

    def over(self, error: BanyanError | None = None) -> None:
        """There is nothing to wait for any more."""
        self.failure = error or self.failure
        self.mode = Mode.OVER

    def follow_up(self, registration: Registration | None, releases: int) -> None:
        """Leaves where nothing is left; `releases` are under way."""
        ending = self.mode in (Mode.DRAINING, Mode.ENDING)
        if not ending or self._holding.busy or releases:
            return
        if not registration:  # of the last one, whose lease has lapsed, nothing is left to end
            self._state.forget_identity()
            self.mode = Mode.OVER
            return
        self.mode = Mode.LEAVING
        registration.stop()
        self._courier.send(Errand("deregistration", "DELETE", f"/workers/{registration.worker}"))
        self._timers.set_earlier(GIVE_UP, now() + _DEREGISTER_SECONDS)

    def _end_at_latest(self, seconds: float) -> None:
        self.mode = Mode.ENDING
        self._timers.set(GIVE_UP, now() + seconds)
