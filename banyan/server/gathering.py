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


class _Asked(Generic[Want, Found]):
    """What one thread wants, and what came of it."""

    def __init__(self, want: Want) -> None:
        self.want = want
        self.found: list[Found] = []  # one, when it is done
        self.error: BaseException | None = None

    @property
    def is_done(self) -> bool:
        return bool(self.found) or self.error is not None


class _Place(Generic[Want, Found]):
    """Those who wait for the next group to be worked for."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.busy = False
        self.waiting: list[_Asked[Want, Found]] = []

    def enter(self, asked: _Asked[Want, Found] | None) -> list[_Asked[Want, Found]]:
        """The group that this thread is to work for: all who wait; none where it is done for it."""
        with self.changed:
            self.waiting += [asked] if asked else []
            self.changed.wait_for(lambda: not self.busy or (asked is not None and asked.is_done))
            if asked is not None and asked.is_done:
                return []
            self.busy = True
            group = []
            if asked:
                group, self.waiting = self.waiting, []
            return group

    def leave(self) -> None:
        """It has been worked for."""
        with self.changed:
            self.busy = False
            self.changed.notify_all()


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
        at = self._at(place)
        group = at.enter(asked)
        if group:
            try:
                self._work_for(group)
            finally:
                at.leave()
        if asked.error is not None:
            raise asked.error
        return asked.found[0]

    def waiting(self, place: Hashable) -> list[Want]:
        """What the next group wants, as far as it has gathered."""
        return [asked.want for asked in self._at(place).waiting]

    @contextmanager
    def held_up(self, place: Hashable) -> Iterator[None]:
        """No group of this place is worked for meanwhile: it gathers."""
        at = self._at(place)
        at.enter(None)
        try:
            yield
        finally:
            at.leave()

    def _at(self, place: Hashable) -> _Place[Want, Found]:
        with self._lock:
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
