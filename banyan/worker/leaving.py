"""How a worker comes to its end: what a signal means, and when there is nothing left to wait for.

Owned by the agent's loop. It must never leave while an attempt, or a token to give back, is
still the server's business; nor stay for a server that is away once their lease is over.
"""

import enum
import logging

from banyan.domain.units import counted
from banyan.errors import BanyanError
from banyan.worker.courier import Courier, Errand
from banyan.worker.holding import Holding
from banyan.worker.registration import Registration
from banyan.worker.state import StateDirectory
from banyan.worker.timers import Timers, now

GIVE_UP = "give up"  # of the timers

_DEREGISTER_SECONDS = 5.0
_GIVE_UP_SECONDS = 10.0  # after the tasks' time to end
_UNHEARD = "unheard"  # of the timers
_UNHEARD_SECONDS = 2.0  # an answer takes less than that, where there is a server
_UNHEARD_SECONDS_MAX = 5.0  # after the second signal

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
        self._lease_end = 0.0  # seconds since boot
        self._unheard_since: float | None = None  # nothing runs any more
        self._unheard_told = False
        self._releases = 0  # under way

    @property
    def active(self) -> bool:
        """Whether it takes new tasks, as far as it is concerned."""
        return self.mode is Mode.ACTIVE

    def renewed(self, lease_end: float) -> None:
        """Until then (seconds since boot) the server takes reports, as far as is known here."""
        self._lease_end = lease_end

    def signalled(self, registration: Registration | None) -> None:
        """The first signal drains, the second ends the tasks, the third waits for nothing."""
        self._signals += 1
        if self.active:
            _log.info("draining: what runs is finished; a second signal ends it")
            self.drain(registration)
        elif self.mode is Mode.DRAINING:
            if self._holding.running:
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
        running = self._holding.running
        for attempt in running:
            self._holding.stop(attempt, "released", self._shutdown_seconds)
        patience = self._shutdown_seconds + _GIVE_UP_SECONDS if running else _UNHEARD_SECONDS_MAX
        self._end_at_latest(patience)

    def give_in(self, error: BanyanError) -> None:
        """The server does not let this worker go on, whose tasks are lost."""
        self.failure = error
        self._end_at_latest(_GIVE_UP_SECONDS)

    def over(self, error: BanyanError | None = None) -> None:
        """There is nothing to wait for any more."""
        self.failure = error or self.failure
        self.mode = Mode.OVER

    def give_up(self) -> None:
        """Waits no longer, whatever the server has not heard of yet."""
        count = self._unheard()
        if count and not self.failure:
            message = f"the server never heard what became of {counted(count, 'task')}: it will run"
            message += " elsewhere once the lease is over, or when the next worker starts here"
            self.failure = BanyanError("unavailable", message)
        self.over()

    def follow_up(self, registration: Registration | None, releases: int) -> None:
        """Leaves where nothing is left; `releases` are under way."""
        self._releases = releases
        if self.mode not in (Mode.DRAINING, Mode.ENDING):
            return
        if self._holding.busy or releases:
            if not self._holding.running:
                self._wait_to_be_heard()
            return
        if not registration:  # of the last one, whose lease has lapsed, nothing is left to end
            self._state.forget_identity()
            self.mode = Mode.OVER
            return
        self.mode = Mode.LEAVING
        registration.stop()
        self._courier.send(Errand("deregistration", "DELETE", f"/workers/{registration.worker}"))
        self._timers.set_earlier(GIVE_UP, now() + _DEREGISTER_SECONDS)

    def _wait_to_be_heard(self) -> None:
        """Nothing runs, and the server does not answer; when the lease is over, it need not."""
        left = self._lease_end - now()
        if left <= 0:
            self._state.forget_identity()  # the server has given up this worker, too
            self.give_up()
            return
        self._unheard_since = self._unheard_since or now()
        to_tell = self._unheard_since + _UNHEARD_SECONDS
        if not self._unheard_told and to_tell <= now():
            self._unheard_told = True
            _log.warning(
                "the server does not answer, and does not know yet what became of %s: it is tried "
                "for %.0f s more, as long as their lease lasts; after a further signal for %.0f s",
                counted(self._unheard(), "task"),
                left,
                _UNHEARD_SECONDS_MAX,
            )
        self._timers.set(_UNHEARD, self._lease_end if self._unheard_told else to_tell)

    def _unheard(self) -> int:
        """Of how many tasks, at least, the server does not know what became of them."""
        return len(self._holding.attempts) + self._releases

    def _end_at_latest(self, seconds: float) -> None:
        self.mode = Mode.ENDING
        self._timers.set(GIVE_UP, now() + seconds)
