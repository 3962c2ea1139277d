"""What several threads want at one moment: one of them does it for all, in as few steps as for one.

Used by claims. While one group is in work the next one gathers, so the busier a server is, the
larger are its groups; where nothing else is wanted a thread does its own at once. It must never
work for two groups of one place at a time: they would be in each other's way.

Nobody makes others wait by wanting much. In a group stands one want of each account, then the
next of each; first that of the account for which most time has passed since its last one. The
work may stop where it has done enough for one group: the rest is of the next one.
"""

import threading
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Generic, TypeVar

Want = TypeVar("Want")
Found = TypeVar("Found")

_ACCOUNTS_MAX = 1000  # of which it is remembered when they were worked for


class _Asked(Generic[Want, Found]):
    """What one thread wants, and what came of it."""

    def __init__(self, want: Want, account: Hashable) -> None:
        self.want = want
        self.account = account
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
        self._turn = 0
        self._served: dict[Hashable, int] = {}  # by account: its last turn

    def ask(self, asked: _Asked[Want, Found]) -> None:
        """It wants something, and is of the next group. Said once, or it is worked for twice."""
        with self.changed:
            self.waiting.append(asked)

    def enter(self, asked: _Asked[Want, Found] | None) -> list[_Asked[Want, Found]]:
        """The group that this thread is to work for: all who wait; none where it is done for it."""
        with self.changed:
            self.changed.wait_for(lambda: not self.busy or (asked is not None and asked.is_done))
            if asked is not None and asked.is_done:
                return []
            self.busy = True
            group = []
            if asked:
                group, self.waiting = self._in_turn(), []
            return group

    def leave(self, group: Sequence[_Asked[Want, Found]] = ()) -> None:
        """It has been worked for; what is not done yet is of the next group."""
        with self.changed:
            self._turn += 1
            if len(self._served) > _ACCOUNTS_MAX:
                self._served.clear()
            self._served.update({one.account: self._turn for one in group if one.is_done})
            self.waiting = [one for one in group if not one.is_done] + self.waiting
            self.busy = False
            self.changed.notify_all()

    def _in_turn(self) -> list[_Asked[Want, Found]]:
        """All who wait: one of each account, then the next of each."""
        of_account: dict[Hashable, list[_Asked[Want, Found]]] = {}
        for one in self.waiting:
            of_account.setdefault(one.account, []).append(one)
        first = sorted(of_account, key=lambda account: self._served.get(account, 0))
        return list(_one_of_each([of_account[account] for account in first]))


def _one_of_each(
    lists: Iterable[Sequence[_Asked[Want, Found]]],
) -> Iterator[_Asked[Want, Found]]:
    rest = deque(iter(one) for one in lists)
    while rest:
        following = rest.popleft()
        asked = next(following, None)
        if asked is not None:
            yield asked
            rest.append(following)


class Gathering(Generic[Want, Found]):
    """`work` is given what a group wants, and finds one thing for each, or for the first few.

    account: whose a want is. Of one account, they stand in the order of asking.
    """

    def __init__(
        self,
        work: Callable[[Sequence[Want]], Sequence[Found]],
        account: Callable[[Want], Hashable] = lambda _: None,
    ) -> None:
        self._work = work
        self._account = account
        self._lock = threading.Lock()
        self._places: dict[Hashable, _Place[Want, Found]] = {}

    def get(self, place: Hashable, want: Want) -> Found:
        """What was found for this one; only those who name the same place are of one group.

        Errors: what `work` raises, to all of the group.
        """
        asked: _Asked[Want, Found] = _Asked(want, self._account(want))
        at = self._at(place)
        at.ask(asked)
        while not asked.is_done:
            group = at.enter(asked)
            if group:
                try:
                    self._work_for(group)
                finally:
                    at.leave(group)
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
            if not found:
                raise RuntimeError("nothing was found for anybody")  # it would go on for ever
        except BaseException as error:
            for asked in group:
                asked.error = error
        else:
            for asked, one in zip(group, found, strict=False):
                asked.found.append(one)
