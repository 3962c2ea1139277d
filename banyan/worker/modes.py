"""`--time-limit` and `--idle-limit`: a worker that ends by itself, inside a batch allocation.

Owned by the agent's loop, whose timers wake it. It must never let a task be claimed that says
itself that it will not end in time.
"""

from banyan.worker.options import Options
from banyan.worker.timers import Timers, now

TIME_UP = "time limit"
IDLE = "idle limit"


class Limits:
    """When this worker ends by itself."""

    def __init__(self, options: Options, timers: Timers) -> None:
        """The time counts from now; tasks that still run get their time to end within it."""
        self._timers = timers
        self._idle_seconds = options.idle_limit_seconds
        self._end: float | None = None
        if options.time_limit_seconds is not None:
            self._end = now() + options.time_limit_seconds - options.shutdown_seconds
            timers.set(TIME_UP, self._end)

    def left_seconds(self) -> float | None:
        """What a task may take that is claimed now; None: as long as it likes."""
        return None if self._end is None else max(self._end - now(), 0.0)

    def follow_up(self, busy: bool) -> None:
        """Counts the time for which there was nothing to do."""
        if busy:
            self._timers.drop(IDLE)
        elif self._idle_seconds is not None and IDLE not in self._timers:
            self._timers.set(IDLE, now() + self._idle_seconds)
