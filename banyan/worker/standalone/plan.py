"""The tasks of a standalone run and what may happen to them next, by the rules of the domain.

Owned by the run's loop: one thread, in memory. It must never decide anything that
`banyan.domain` decides for a server.
"""

from bisect import insort
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from banyan.domain import lifecycle
from banyan.domain.continuations import Cancel, children_of, settle
from banyan.domain.lifecycle import Change, Decision
from banyan.domain.resources import Capacity, Grant, fits, grant_for
from banyan.domain.scheduling import Candidate, choose, order_key
from banyan.domain.shape_keys import shape_key
from banyan.domain.states import ENDED, Actor, Ending, Outcome, State

Task = dict[str, Any]

_AT_ONCE = 64


def now() -> datetime:
    """The time as the domain takes it."""
    return datetime.now(UTC)


class Plan:
    """All tasks by their names."""

    def __init__(self, tasks: Iterable[Task], starvation_milliseconds: int) -> None:
        self.tasks: dict[str, Task] = {task["_id"]: task for task in tasks}
        self._open = set(self.tasks)
        self._starvation_milliseconds = starvation_milliseconds
        # Available tasks by what they ask for, in the order of claiming: so that a choice costs
        # as many looks as there are kinds of task.
        self._waiting: dict[str, list[tuple[tuple[int, int, str], str]]] = {}
        self._asleep: set[str] = set()  # their next attempt is to wait

    def begin(self, succeeded: Iterable[str]) -> None:
        """Lets everything go that may, after what has succeeded in a run before."""
        for name in succeeded:
            self._set(self.tasks[name], lifecycle.ended(Outcome.SUCCESS, Ending.SUCCESS))
        for task in list(self.tasks.values()):
            if task["state"] == State.INACTIVE and not task["open_parents"]:
                self._set(task, lifecycle.activated(task, now()))  # a group ends by it
        for task in list(self.tasks.values()):
            if task["state"] in ENDED:
                self._settle_children(task)

    # --- what is asked ---------------------------------------------------------------

    def choose(self, free: Capacity, total: Capacity) -> list[tuple[Task, Grant]]:
        """What is to be started now."""
        self._wake()
        most = max(1, min(_AT_ONCE, int(free.cores)))
        chosen = choose(self._candidates(most), free, total, most, self._starvation_milliseconds)
        return [(self.tasks[candidate.task_id], grant) for candidate, grant in chosen]

    def seconds_to_wake(self) -> float | None:
        """Until the first of the tasks that wait for their next attempt may run."""
        if not self._asleep:
            return None
        first: datetime = min(self.tasks[name]["wake_at"] for name in self._asleep)
        return max((first - now()).total_seconds(), 0.0)

    def counts(self) -> Counter[str]:
        """Tasks by outcome or state."""
        return Counter(str(task.get("outcome") or task["state"]) for task in self.tasks.values())

    @property
    def over(self) -> bool:
        """Whether all have ended."""
        return not self._open

    # --- what happens ----------------------------------------------------------------

    def claimed(self, task: Task, attempt: str, grant: Grant) -> None:
        """The task is started as this attempt."""
        holder = {"attempt": attempt, "worker": "", "account": "", "claimed": now()}
        holder["granted"] = grant.to_json()
        self._drop(task)
        self._apply(task, lifecycle.claim(task, holder, {}))

    def ended(self, task: Task, end: Mapping[str, Any]) -> list[Task]:
        """An attempt has ended; the tasks that are over by this, the task itself first."""
        decided = lifecycle.finish(task, State(end["state"]), end, now())
        return list(self._apply(task, decided))

    def given_back(self, task: Task) -> None:
        """An attempt was not started, or broken off: it does not count."""
        self._apply(task, lifecycle.given_back(task, "broken off", now()))
        task["attempt_count"] -= 1

    # ---------------------------------------------------------------------------------

    def _apply(self, task: Task, decided: Decision) -> Iterable[Task]:
        if not isinstance(decided, Change):
            return []
        self._set(task, decided.set)
        return [task, *self._settle_children(task)] if decided.ends else []

    def _set(self, task: Task, fields: Mapping[str, Any]) -> None:
        task.update(fields)
        if task["state"] in ENDED:
            self._open.discard(task["_id"])
        if task["state"] != State.AVAILABLE:
            return
        if task.get("wake_at"):
            self._asleep.add(task["_id"])
        else:
            insort(self._line(task), (order_key(self._candidate(task)), task["_id"]))

    def _settle_children(self, first: Task) -> list[Task]:
        """Those that ended with it, as groups or because they cannot run any more."""
        over: list[Task] = []
        open_ones = [first]
        while open_ones:
            parent = open_ones.pop()
            for child in [self.tasks[name] for name in children_of(parent)]:
                if self._settled(child, parent):
                    over.append(child)
                    open_ones.append(child)
        return over

    def _settled(self, child: Task, parent: Task) -> bool:
        """What a parent's end means to one child; whether the child has ended by it."""
        meant = settle(child, {parent["_id"]: parent["ended_as"]})
        if isinstance(meant, Cancel):
            reason = f"{parent['name']} ended: {parent['outcome'] or parent['state']}"
            change = lifecycle.cancelled(child, Actor.SERVER, reason, parent["_id"])
            if isinstance(change, Change):
                self._set(child, change.set)
        elif meant:
            child["open_parents"] = [p for p in child["open_parents"] if p not in meant.parents]
            if not child["open_parents"]:
                self._set(child, lifecycle.activated(child, now()))
        return meant is not None and child["state"] in ENDED

    def _candidates(self, most: int) -> Iterator[Candidate]:
        for line in self._waiting.values():
            for _, name in line[:most]:
                yield self._candidate(self.tasks[name])

    def _candidate(self, task: Task) -> Candidate:
        waited = (now() - task["available_since"]).total_seconds()
        request = task["requested_resources"]
        return Candidate(task["_id"], request, task["priority"], task["seq"], int(waited * 1000))

    def _line(self, task: Task) -> list[tuple[tuple[int, int, str], str]]:
        key = shape_key(task["requested_resources"], "", {})
        return self._waiting.setdefault(key, [])

    def _drop(self, task: Task) -> None:
        self._asleep.discard(task["_id"])
        line = self._line(task)
        entry = (order_key(self._candidate(task)), task["_id"])
        if entry in line:
            line.remove(entry)

    def _wake(self) -> None:
        for name in [one for one in self._asleep if self.tasks[one]["wake_at"] <= now()]:
            self._asleep.discard(name)
            self._set(self.tasks[name], {"wake_at": None})


def too_large(tasks: Iterable[Task], total: Capacity) -> list[str]:
    """The names of tasks that would never fit on this machine."""
    grants = ((task["name"], grant_for(task["requested_resources"], total)) for task in tasks)
    return [name for name, grant in grants if not fits(grant, total)]
