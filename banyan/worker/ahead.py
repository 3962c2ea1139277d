"""Tasks that are claimed ahead of need, so that no core waits for the network.

Owned by the agent's loop. How many is bounded by time, not by number: as many as have ended
within the last quarter of a second. Where tasks take longer than that, nothing is claimed
ahead. What has waited for a second after all (a long task came between) is given back, for
others to run; and at once what an idle worker wants. It must never start anything: it only
keeps the order.
"""

from collections import Counter, deque
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, NamedTuple, TypeVar

from banyan.domain.resources import Grant

WINDOW_SECONDS = 0.25
PATIENCE_SECONDS = 1.0
TASKS_MAX = 256

Task = Mapping[str, Any]
Place = TypeVar("Place")


class Claimed(NamedTuple):
    """A task in the line. kind: the same for all that were granted the same."""

    task: Task
    grant: Grant
    kind: str
    since: float  # when it was claimed, in seconds since boot


class Ahead:
    """The line of claimed tasks that wait for room on this machine."""

    def __init__(self) -> None:
        self._line: dict[str, Claimed] = {}  # by attempt
        self._kinds: Counter[str] = Counter()
        self._ends: deque[float] = deque(maxlen=TASKS_MAX)

    @property
    def attempts(self) -> list[str]:
        """Those that wait; asked by other threads."""
        return list(self._line.copy())

    def ended(self, at: float) -> None:
        """An attempt has ended here, at `at` seconds since boot."""
        self._ends.append(at)

    def wanted(self, at: float, behind: int = 0) -> int:
        """How many more to claim; none until half of the line is used up.

        behind: how many of it wait elsewhere on this machine.
        """
        while self._ends and self._ends[0] < at - WINDOW_SECONDS:
            self._ends.popleft()
        missing = len(self._ends) - len(self._line) - behind
        return missing if 2 * missing > len(self._ends) else 0

    def add(self, task: Task, at: float) -> None:
        """A task that was claimed at that time."""
        granted = task["granted_resources"]
        claimed = Claimed(task, Grant.from_json(granted), str(granted), at)
        self._line[str(task["attempt_id"])] = claimed
        self._kinds[claimed.kind] += 1

    def take(self, place_for: Callable[[Claimed], Place | None]) -> Iterator[tuple[Claimed, Place]]:
        """Takes out, in order, the tasks for which there is a place; asked anew after each.

        Where there is none for one, there is none for its kind.
        """
        refused: set[str] = set()
        for attempt, claimed in list(self._line.items()) if self._line else ():
            if len(refused) == len(self._kinds):
                return
            if claimed.kind in refused:
                continue
            place = place_for(claimed)
            if place is None:
                refused.add(claimed.kind)
            else:
                self.drop(attempt)
                yield claimed, place

    def drop(self, attempt: str) -> Task | None:
        """Takes one out, if it waits here."""
        claimed = self._line.pop(attempt, None)
        if claimed is None:
            return None
        self._kinds[claimed.kind] -= 1
        if not self._kinds[claimed.kind]:
            del self._kinds[claimed.kind]
        return claimed.task

    def hand_over(self, attempts: Collection[str]) -> list[Task]:
        """Takes out, for idle workers, what is theirs to have of these: what still waits here.

        Nothing is wanted after that until more has ended: who has shared must not be first to
        take it again.
        """
        if attempts:
            self._ends.clear()
        return [task for attempt in attempts if (task := self.drop(attempt))]

    def clear(self) -> list[Task]:
        """Takes all of them out."""
        return [task for attempt in self.attempts if (task := self.drop(attempt))]

    def overdue(self, at: float) -> list[Task]:
        """Takes out those that have waited too long."""
        late = [a for a, one in self._line.items() if one.since <= at - PATIENCE_SECONDS]
        return [task for attempt in late if (task := self.drop(attempt))]

    def next_overdue(self) -> float | None:
        """When the first of the line will have waited too long."""
        first = min((one.since for one in self._line.values()), default=None)
        return None if first is None else first + PATIENCE_SECONDS
