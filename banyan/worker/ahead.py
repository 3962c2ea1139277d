"""Tasks that are claimed ahead of need, so that no core waits for the network.

Owned by the agent's loop. How many is bounded by time, not by number: as many as have ended
within the last quarter of a second. Where tasks take longer than that, nothing is claimed
ahead. What has waited for a second after all (a long task came between) is given back, for
others to run; and at once what an idle worker wants. It must never start anything: it only
keeps the order.
"""

from collections import deque
from collections.abc import Callable, Collection, Iterator
from typing import Any

from banyan.domain.resources import Grant

WINDOW_SECONDS = 0.25
PATIENCE_SECONDS = 1.0
TASKS_MAX = 256

Task = dict[str, Any]


class Ahead:
    """The line of claimed tasks that wait for room on this machine."""

    def __init__(self) -> None:
        self._line: dict[str, tuple[Task, float]] = {}  # attempt -> the task, waiting since
        self._ends: deque[float] = deque(maxlen=TASKS_MAX)

    @property
    def attempts(self) -> list[str]:
        """Those that wait; asked by other threads."""
        return list(self._line.copy())

    def ended(self, at: float) -> None:
        """An attempt has ended here, at `at` seconds since boot."""
        self._ends.append(at)

    def wanted(self, at: float) -> int:
        """How many more to claim; none until half of the line is used up."""
        while self._ends and self._ends[0] < at - WINDOW_SECONDS:
            self._ends.popleft()
        missing = len(self._ends) - len(self._line)
        return missing if 2 * missing > len(self._ends) else 0

    def add(self, task: Task, at: float) -> None:
        """A task for which there is no room now."""
        self._line[str(task["attempt_id"])] = (task, at)

    def take(self, fits: Callable[[Grant], bool]) -> Iterator[Task]:
        """Takes out, in order, the tasks for which there is room; asked anew after each."""
        for attempt, (task, _) in list(self._line.items()):
            if fits(Grant.from_json(task["granted_resources"])):
                del self._line[attempt]
                yield task

    def drop(self, attempt: str) -> Task | None:
        """Takes one out, if it waits here."""
        task, _ = self._line.pop(attempt, (None, 0.0))
        return task

    def hand_over(self, attempts: Collection[str]) -> list[Task]:
        """Takes out, for idle workers, what is theirs to have of these: what still waits here.

        Nothing is wanted after that until more has ended: who has shared must not be first to
        take it again.
        """
        tasks = [task for attempt in attempts if (task := self.drop(attempt))]
        if tasks:
            self._ends.clear()
        return tasks

    def clear(self) -> list[Task]:
        """Takes all of them out."""
        tasks = [task for task, _ in self._line.values()]
        self._line.clear()
        return tasks

    def overdue(self, at: float) -> list[Task]:
        """Takes out those that have waited too long."""
        late = [a for a, (_, since) in self._line.items() if since <= at - PATIENCE_SECONDS]
        return [task for attempt in late if (task := self.drop(attempt))]

    def next_overdue(self) -> float | None:
        """When the first of the line will have waited too long."""
        first = next(iter(self._line.values()), None)
        return first[1] + PATIENCE_SECONDS if first else None
