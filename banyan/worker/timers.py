"""Deadlines by name, on the clock that a sleeping machine does not stop.

Used by the launcher. Setting and dropping a deadline costs the same however many there are.
"""

import functools
import heapq
import time
from collections.abc import Hashable, Iterator

_SLACK_ENTRIES = 64

# Seconds since boot, suspend included: leases go on while a machine sleeps.
now = functools.partial(time.clock_gettime, time.CLOCK_BOOTTIME)


class Timers:
    """At most one deadline a key; a new one replaces the old."""

    def __init__(self) -> None:
        self._when: dict[Hashable, float] = {}
        self._heap: list[tuple[float, int, Hashable]] = []
        self._order = 0

    def __contains__(self, key: Hashable) -> bool:
        return key in self._when

    def set(self, key: Hashable, when: float) -> None:
        """Lets `key` be due at `when` (seconds on `now`)."""
        self._when[key] = when
        self._order += 1  # keys of one instant are never compared with each other
        heapq.heappush(self._heap, (when, self._order, key))
        if len(self._heap) > 2 * len(self._when) + _SLACK_ENTRIES:
            self._heap = [entry for entry in self._heap if self._stands(entry)]
            heapq.heapify(self._heap)

    def set_earlier(self, key: Hashable, when: float) -> None:
        """Like `set`, unless `key` is due before `when` already."""
        if self._when.get(key, float("inf")) > when:
            self.set(key, when)

    def drop(self, key: Hashable) -> None:
        """Forgets `key`, if it is there."""
        self._when.pop(key, None)

    def next(self) -> float | None:
        """When the first deadline is, or None."""
        while self._heap and not self._stands(self._heap[0]):
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def due(self, at: float) -> Iterator[Hashable]:
        """Takes out and yields the keys whose time has come."""
        while (first := self.next()) is not None and first <= at:
            key = heapq.heappop(self._heap)[2]
            del self._when[key]
            yield key

    def _stands(self, entry: tuple[float, int, Hashable]) -> bool:
        return self._when.get(entry[2]) == entry[0]
