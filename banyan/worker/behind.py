"""Which claimed tasks wait in the launcher, and behind which running attempt.

Owned by the agent's loop, which gives them there and calls them back. What waits takes what the
attempt before it held, when that has ended; so all behind one are of its kind (asked for the
same). It must never let anything new wait behind an attempt that has run for long already.
"""

from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from banyan.worker.ahead import WINDOW_SECONDS

DEPTH = 16  # behind one attempt: as much as runs while the agent looks away for some milliseconds


class Waiting(NamedTuple):
    """One that waits: its task, None where an agent before this one claimed it; since when."""

    attempt: str
    task: Mapping[str, Any] | None
    since: float


class Behind:
    """The lines behind attempts that run. Times are seconds since boot."""

    def __init__(self) -> None:
        self._runners: dict[str, dict[str, float]] = {}  # by kind: attempt -> runs since
        self._kinds: dict[str, str] = {}  # of runners
        self._lines: dict[str, deque[Waiting]] = {}  # by runner
        self._first: dict[str, str] = {}  # attempt that waits -> its runner
        self._leaving: set[str] = set()  # called back, or being stopped

    def __contains__(self, attempt: str) -> bool:
        return attempt in self._first

    def __bool__(self) -> bool:
        return bool(self._first)

    @property
    def attempts(self) -> list[str]:
        """All that wait."""
        return list(self._first)

    def started(self, attempt: str, kind: str, at: float) -> None:
        """An attempt runs, behind which others of its kind may wait."""
        self._kinds[attempt] = kind
        self._runners.setdefault(kind, {})[attempt] = at

    def room(self, kind: str, at: float) -> str | None:
        """Of those that have not run for long, the one with the fewest behind it; None: full.

        Where one of a line is leaving, the launcher may have let it go or started it already:
        nothing can be said then of whom to come behind.
        """
        best, fewest = None, DEPTH
        for runner, since in self._runners.get(kind, {}).items():
            length = len(self._lines.get(runner, ()))
            if length < fewest and since > at - WINDOW_SECONDS and not self._is_broken(runner):
                best, fewest = runner, length
        return best

    def last_of(self, runner: str) -> str:
        """The end of its line; itself where nobody waits behind it."""
        line = self._lines.get(runner)
        return line[-1].attempt if line else runner

    def add(self, before: str, waiting: Waiting) -> None:
        """At the end of the line in which `before` runs or waits."""
        first = self._first.get(before, before)
        self._lines.setdefault(first, deque()).append(waiting)
        self._first[waiting.attempt] = first

    def ended(self, attempt: str, at: float) -> str | None:
        """A runner has ended; who runs in its place."""
        kind = self._kinds.pop(attempt, None)
        if kind is None:
            return None
        runners = self._runners[kind]
        del runners[attempt]
        self._leaving.discard(attempt)
        line = self._lines.pop(attempt, None)
        if not line:
            if not runners:
                del self._runners[kind]
            return None
        following = line.popleft().attempt
        self._forget(following)
        self.started(following, kind, at)
        if line:
            self._lines[following] = line
            self._first.update((each.attempt, following) for each in line)
        return following

    def take_out(self, attempt: str) -> Waiting:
        """One that waits no longer."""
        line = self._lines[self._first[attempt]]
        found = next(each for each in line if each.attempt == attempt)
        line.remove(found)
        self._forget(attempt)
        return found

    def of(self, runner: str) -> list[str]:
        """Those behind one that runs."""
        return [each.attempt for each in self._lines.get(runner, ())]

    def last(self) -> Waiting | None:
        """Of those that are not leaving, one at the end of the longest line."""
        longest = max(self._lines.values(), key=len, default=())
        left = [each for each in longest if each.attempt not in self._leaving]
        return left[-1] if left else None

    def all(self) -> list[Waiting]:
        """All that wait."""
        return [each for line in self._lines.values() for each in line]

    def call_back(self, wanted: Iterable[str]) -> list[str]:
        """Of these, the ones that wait and have not been called back yet."""
        calling = [one for one in wanted if one in self._first and one not in self._leaving]
        self._leaving.update(calling)
        return calling

    def stop(self, attempt: str) -> None:
        """It is being stopped, whether it runs or waits."""
        if attempt in self._first or attempt in self._kinds:
            self._leaving.add(attempt)

    def _is_broken(self, runner: str) -> bool:
        line = self._lines.get(runner, ())
        return bool(self._leaving) and not self._leaving.isdisjoint(
            (runner, *(each.attempt for each in line))
        )

    def _forget(self, attempt: str) -> None:
        del self._first[attempt]
        self._leaving.discard(attempt)
