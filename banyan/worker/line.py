"""What is claimed and has not begun: where it waits, and when it waits no longer.

Owned by the agent's loop. A claimed task starts where there is room; else the launcher has it to
start it behind another that ends soon; else it waits here. It must never start what an idle
worker was given.
"""

from collections.abc import Callable, Collection

from banyan.worker.ahead import PATIENCE_SECONDS, Ahead, Task
from banyan.worker.holding import Holding
from banyan.worker.ledger import Ledger
from banyan.worker.timers import Timers, now

OVERDUE = "line"  # the name of the deadline


class Line:
    """The whole of it, on this machine."""

    def __init__(
        self,
        holding: Holding,
        ledger: Ledger,
        timers: Timers,
        release: Callable[[list[str], str], None],
    ) -> None:
        """`release` gives attempts back to the server, by their tokens, and says why."""
        self._ahead = Ahead()
        self._holding = holding
        self._ledger = ledger
        self._timers = timers
        self._release = release
        self._wanted: Collection[str] = ()  # attempts, by idle workers

    @property
    def attempts(self) -> list[str]:
        """Those that wait here (the launcher's are held already); asked by other threads."""
        return self._ahead.attempts

    @property
    def busy(self) -> bool:
        """Whether anything waits, here or at the launcher."""
        return bool(self._ahead.attempts or self._holding.waiting)

    def ended(self) -> None:
        """An attempt has ended on this machine."""
        self._ahead.ended(now())

    def wanted(self) -> int:
        """How many to claim ahead of need."""
        if self._ledger.is_overdrawn:
            return 0
        return self._ahead.wanted(now(), len(self._holding.waiting))

    def add(self, task: Task) -> None:
        """A task that was just claimed."""
        self._ahead.add(task, now())

    def go_on(self, active: bool, before: float) -> None:
        """Starts what there is room for, `before` that moment; if not active, gives all back."""
        holding, room = self._holding, self._ledger.fits
        self._take_back()
        if not active:
            self._give_back(self._ahead.clear())
            holding.call_back(holding.waiting)
            return
        for claimed, _ in self._ahead.take(lambda one: room(one.grant) or None):
            holding.start(claimed.task, before)
        for claimed, runner in self._ahead.take(lambda one: holding.room_behind(one.kind)):
            holding.start_behind(runner, claimed.task, claimed.since, before)
        holding.call_back_where(room)
        if self.busy:
            self._timers.set_earlier(OVERDUE, now() + PATIENCE_SECONDS)

    def overdue(self) -> None:
        """Gives back what has waited too long."""
        self._give_back(self._ahead.overdue(now()))
        self._holding.call_back_since(now() - PATIENCE_SECONDS)

    def hand_over(self, wanted: Collection[str]) -> None:
        """Gives to idle workers what they want of it and what has not begun."""
        self._wanted = wanted
        tasks = self._ahead.hand_over(wanted)
        self._release([task["token"] for task in tasks], "handed over to an idle worker")
        self._holding.call_back(wanted)

    def cancel(self, attempt: str) -> None:
        """Gives one back that is not to run."""
        task = self._ahead.drop(attempt)
        self._give_back([task] if task else [])

    def lose(self, attempt: str) -> None:
        """Drops one that is not this worker's any more."""
        self._ahead.drop(attempt)

    def clear(self) -> None:
        """Drops all; the lease is lost."""
        self._ahead.clear()

    def _take_back(self) -> None:
        """What was called back from the launcher waits here again, or goes where it is wanted."""
        called_back, self._holding.called_back = self._holding.called_back, []
        for task, since in called_back:
            self._ahead.add(task, since)
        if called_back:
            self.hand_over(self._wanted)

    def _give_back(self, tasks: list[Task]) -> None:
        self._holding.to_release += [task["token"] for task in tasks]
