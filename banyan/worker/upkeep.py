"""The state directory kept whole while the worker runs, though a cleaner may empty it.

Owned by the agent's loop. What is missing there lets the worker go on, and fails only later: the
next agent would not find the tasks that run. It must never take the place of another worker that
has begun there meanwhile.
"""

import logging

from banyan.errors import BanyanError
from banyan.worker.link import Link
from banyan.worker.state import StateDirectory
from banyan.worker.timers import Timers, now
from banyan.worker.wire import Message

LOOK = "look at the state directory"  # a timer's key
_LOOK_SECONDS = 2.0

_log = logging.getLogger("banyan.worker")


class Upkeep:
    """Looks now and then, and at once when the launcher has found something missing."""

    def __init__(self, state: StateDirectory, link: Link, timers: Timers) -> None:
        self._state = state
        self._link = link
        self._timers = timers
        self._told: list[str] = []  # at the last look

    def look(self) -> None:
        """Makes again what is missing, and says so; sets the timer for the next look."""
        missing = self._state.missing() + self._link.missing()
        self._timers.set(LOOK, now() + _LOOK_SECONDS)
        if missing:
            self._repair(missing)
        self._told = missing

    def hear(self, message: Message) -> None:
        """Whether the launcher has written the output of what runs anew."""
        if "put_back" not in message:
            return
        _log.warning(
            "somebody has removed output of running tasks from %s: it is there again, and nothing "
            "is lost; keep cleaners of old files away from it",
            self._state.path,
        )
        self.look()

    def _repair(self, missing: list[str]) -> None:
        if missing != self._told:
            _log.warning(
                "somebody has removed %s from %s, where this worker keeps what it needs: it is "
                "made again; keep cleaners of old files away from it",
                ", ".join(missing),
                self._state.path,
            )
        try:
            self._state.repair()
            self._link.repair()
        except OSError as error:  # a full disk, say: at the next look
            if missing != self._told:
                _log.error("%s cannot be made again: %s", self._state.path, error)
        except BanyanError as error:
            self._timers.drop(LOOK)
            _log.error("%s", error.message)
