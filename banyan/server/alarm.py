"""When the next delay is over of a task that this process has delayed.

Whoever writes such a task says so here; a thread of upkeep waits for it. What a process that was
killed has delayed, the duties of upkeep find, a little later.
"""

import threading
from bisect import bisect_left, bisect_right
from datetime import datetime
from time import time

_TIMES_MAX = 10_000  # the soonest; the duties find the others


class Alarm:
    """Moments to wake up at; any thread may add one."""

    def __init__(self) -> None:
        self._times: list[float] = []
        self._changed = threading.Condition()

    def set(self, moment: datetime) -> None:
        """Wake up then."""
        due = moment.timestamp()
        with self._changed:
            place = bisect_left(self._times, due)
            if self._times[place : place + 1] != [due]:  # many tasks may wait for one moment
                self._times.insert(place, due)
                del self._times[_TIMES_MAX:]
                self._changed.notify()

    def wait(self, seconds: float) -> bool:
        """Whether a moment comes within this time. It, and what lies before, is done with then."""
        until = time() + seconds
        with self._changed:
            while (now := time()) < until:
                if self._times and self._times[0] <= now:
                    del self._times[: bisect_right(self._times, now)]
                    return True
                first = self._times[0] if self._times else until
                self._changed.wait(min(first, until) - now)
        return False


ALARM = Alarm()
