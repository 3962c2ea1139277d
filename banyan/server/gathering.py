"""What several threads want at one moment: one of them does it for all, in as few steps as for one.

Used by claims. While one group is in work the next one gathers, so the busier a server is, the
larger are its groups; where nothing else is wanted a thread does its own at once. It must never
work for two groups of one place at a time: they would be in each other's way.
"""

import threading
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from typing import Generic, TypeVar

Want = TypeVar("Want")
Found = TypeVar("Found")


class _Place(Generic[Want, Found]):
    """Those who wait for the next turn."""

    def __init__(self) -> None:
        self.turn = threading.Lock()
        self.waiting: list[_Asked[Want, Found]] = []


class _Asked(Generic[Want, Found]):
    """What one thread wants, and what came of it."""

    def __init__(self, want: Want) -> None:
        self.want = want
        self.found: list[Found] = []  # one, when it is done
        self.error: BaseException | None = None


class Gathering(Generic[Want, Found]):
    """`work` is given what a group wants, in the order of asking, and finds one thing for each."""

    def __init__(self, work: Callable[[Sequence[Want]], Sequence[Found]]) -> None:
        self._work = work
        self._lock = threading.Lock()
        self._places: dict[Hashable, _Place[Want, Found]] = {}

    def get(self, place: Hashable, want: Want) -> Found:
        """What was found for this one; only those who name the same place are of one group.

        Errors: what `work` raises, to all of the group.
        """
        asked: _Asked[Want, Found] = _Asked(want)
        with self._lock:
            at = self._at(place)
            at.waiting.append(asked)
        with at.turn:
            if not asked.found and asked.error is None:
                with self._lock:
                    group, at.waiting = at.waiting, []
                self._work_for(group)
        if asked.error is not None:
            raise asked.error
        return asked.found[0]

    def waiting(self, place: Hashable) -> list[Want]:
        """What the next group wants, as far as it has gathered."""
        with self._lock:
            return [asked.want for asked in self._at(place).waiting]

    @contextmanager
    def held_up(self, place: Hashable) -> Iterator[None]:
        """No group of this place is worked for meanwhile: it gathers."""
        with self._lock:
            at = self._at(place)
        with at.turn:
            yield

    def _at(self, place: Hashable) -> _Place[Want, Found]:
        return self._places.setdefault(place, _Place())

    def _work_for(self, group: Sequence[_Asked[Want, Found]]) -> None:
        try:
            found = self._work([asked.want for asked in group])
        except BaseException as error:
            for asked in group:
                asked.error = error
        else:
            for asked, one in zip(group, found, strict=True):
                asked.found.append(one)
