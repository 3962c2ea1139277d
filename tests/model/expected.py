"""What becomes of tasks, as the contract says it: plain dicts, and nothing of Banyan's own code.

`Expected` has the same methods as the systems that are held against it (`pure.Pure`,
`real.Real`): each changes the tasks and returns the status of the answer. A claim is known by a
number, which stands for its token.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

KINDS = ("continuations", "failure_continuations", "final_continuations")
HELD = ("running", "pending_cancellation")
ENDED = ("terminated", "cancelled")
OUTCOMES = {"success": "success", "timeout": "timeout", "oom": "oom"}
_PASSES = {
    "continuations": ("success",),
    "failure_continuations": ("failure",),
    "final_continuations": ("success", "failure", "cancelled"),
}


class Edge(NamedTuple):
    """`kind` is the parent's list."""

    kind: str
    parent: str
    child: str


class New(NamedTuple):
    """A task to be submitted; its edges lead to parents."""

    name: str
    available: bool = False
    group: bool = False
    max_attempt_count: int = 1
    max_lost_count: int = 3
    after: tuple[tuple[str, str], ...] = ()  # (kind, parent)


class View(NamedTuple):
    """What is compared of a task; `waiting_for` of one that was cancelled is nobody's business."""

    state: str
    outcome: str | None
    attempt_count: int
    waiting_for: int | None


@dataclass
class Task:
    new: New
    state: str = "inactive"
    outcome: str | None = None
    ending: str | None = None  # for its continuations: success, failure, cancelled
    open: set[str] = field(default_factory=set)
    attempt_count: int = 0
    failures: int = 0
    losses: int = 0
    holder: int | None = None  # the claim whose token is still good
    worker: str = ""
    because: set[str] = field(default_factory=set)  # parents that it was cancelled for

    @property
    def view(self) -> View:
        waiting = None if self.state == "cancelled" else len(self.open)
        return View(self.state, self.outcome, self.attempt_count, waiting)


class Expected:
    """All tasks, edges and claims."""

    def __init__(self) -> None:
        self.tasks: dict[str, Task] = {}
        self.edges: set[Edge] = set()  # as the parents' lists have them
        self.parents: set[Edge] = set()  # as the children's lists have them
        self.claims: dict[int, str] = {}

    def look(self) -> dict[str, View]:
        """Each task as everybody sees it."""
        return {name: task.view for name, task in self.tasks.items()}

    # --- by a provider ---------------------------------------------------------------

    def submit(self, new: Sequence[New]) -> int:
        if any(one.name in self.tasks for one in new):
            return 409
        fresh = {Edge(kind, parent, one.name) for one in new for kind, parent in one.after}
        if _circular((edge.parent, edge.child) for edge in fresh):
            return 422
        ended = {name for name in self.tasks if not self._alive(name)}
        self.tasks |= {one.name: Task(one) for one in new}
        self.edges |= fresh
        self.parents |= fresh
        for one in new:  # a parent that has ended before counts at once
            self.tasks[one.name].open = self._above(one.name) - ended
        made = [self.tasks[one.name] for one in new]
        wrong = {one.new.name: self._wrong(one, ended) for one in made}
        doomed = [one for one in made if wrong[one.new.name]]
        for task in doomed:  # all of them, before what follows from any
            task.state = "cancelled"
        for task in doomed:
            self._cancelled(task, wrong[task.new.name])
        for task in made:
            if task.state == "inactive" and task.new.available and not task.open:
                self._activate(task)
        return 201

    def _wrong(self, task: Task, ended: set[str]) -> set[str]:
        """The parents that have ended, and not as the task needs it."""
        name = task.new.name
        return {one for one in self._above(name) & ended if not self._passes(one, name)}

    def move(self, name: str, state: str) -> int:
        task = self.tasks[name]
        if task.state == state:
            return 200
        if state == "cancelled":
            return self.cancel(name)
        if (task.state, state) == ("inactive", "available") and not task.open:
            self._activate(task)
            return 200
        if (task.state, state) == ("available", "inactive"):
            task.state = state
            return 200
        return 422

    def cancel(self, name: str) -> int:
        task = self.tasks[name]
        if task.state == "running":
            task.state = "pending_cancellation"
        elif task.state in ("inactive", "available"):
            self._cancelled(task)
        return 200

    def retry(self, names: Sequence[str], downstream: bool) -> int:
        asked = set(names)
        if any(self.tasks[one].state not in (*ENDED, "available") for one in asked):
            return 422
        coming = asked | (self._below(asked) if downstream else set())
        while kept_out := {one for one in coming - asked if self._kept_out(one, coming)}:
            coming -= kept_out
        going = [one for one in coming if self.tasks[one].state in ENDED]
        waits = {
            one: {p for p in self._above(one) if p in coming or self._alive(p)} for one in going
        }
        if _circular((parent, one) for one, above in waits.items() for parent in above):
            return 422
        for one in going:
            self._revive(self.tasks[one], waits[one], asked=one in asked)
        for one in going:
            if not waits[one]:
                self._activate(self.tasks[one])
        return 200

    def _below(self, above: set[str]) -> set[str]:
        """All that was cancelled because of these."""
        found: set[str] = set()
        while (
            more := {
                name
                for name, task in self.tasks.items()
                if task.state == "cancelled" and task.because & (above | found)
            }
            - found
            - above
        ):
            found |= more
        return found

    def unsure(self, names: Sequence[str]) -> bool:
        """Whether several parents at one moment were why a task was cancelled: any may be named."""
        return any(len(self.tasks[one].because) > 1 for one in self._below(set(names)))

    def _kept_out(self, name: str, coming: set[str]) -> bool:
        others = [one for one in self._above(name) if one not in coming and not self._alive(one)]
        return any(not self._passes(one, name) for one in others)

    def _revive(self, task: Task, waits: set[str], asked: bool) -> None:
        task.state, task.outcome, task.ending, task.because = "inactive", None, None, set()
        task.losses, task.holder, task.open = 0, None, set(waits)
        if asked:  # one more attempt, not as many as there were
            task.failures = task.new.max_attempt_count - 1
        self.edges |= {
            edge for edge in self.parents if edge.child == task.new.name and edge.parent in waits
        }

    # --- edges -----------------------------------------------------------------------

    def link(self, edge: Edge) -> int:
        both = (self.tasks[edge.parent], self.tasks[edge.child])
        if edge.parent == edge.child or any(one.state != "inactive" for one in both):
            return 422
        if edge.parent in self._reached_from(edge.child):
            return 422
        if edge not in self.edges:
            self.edges.add(edge)
            self.parents.add(edge)
            both[1].open.add(edge.parent)
        return 200

    def unlink(self, edge: Edge) -> int:
        if edge not in self.edges:
            return 200
        if self.tasks[edge.parent].state != "inactive":
            return 422
        self.edges.discard(edge)
        self.parents.discard(edge)
        if edge.parent not in {e.parent for e in self.edges if e.child == edge.child}:
            self.tasks[edge.child].open.discard(edge.parent)
        return 200

    # --- by workers ------------------------------------------------------------------

    def claim(self, name: str, worker: str, number: int) -> int:
        task = self.tasks[name]
        if task.state != "available":
            return 409 if task.state == "running" else 422
        task.state, task.holder, task.worker = "running", number, worker
        task.attempt_count += 1
        self.claims[number] = name
        return 200

    def end(self, number: int, state: str, exit_status: str) -> int:
        task = self.tasks[self.claims[number]]
        if task.holder != number:
            return 409
        if task.state not in HELD:
            return 200  # told before
        if exit_status == "lost":
            self._lost(task)
            return 200
        if task.state == "running" and "cancelled" in (state, exit_status):
            return 422
        if task.state == "running":
            self._ran(task, exit_status)
        elif "cancelled" in (state, exit_status):
            self._cancelled(task)
        else:
            self._ended(task, "terminated", _outcome(exit_status), "cancelled")
        return 200

    def release(self, number: int) -> int:
        task = self.tasks[self.claims[number]]
        if task.holder != number:
            return 409
        if task.state in HELD:
            self._given_back(task)
        return 200

    def lapse(self, worker: str) -> None:
        for task in self._held_by(worker):
            self._lost(task)

    def remove(self, worker: str) -> None:
        for task in self._held_by(worker):
            self._given_back(task)

    def _held_by(self, worker: str) -> list[Task]:
        return [one for one in self.tasks.values() if one.state in HELD and one.worker == worker]

    # --- what follows ----------------------------------------------------------------

    def _ran(self, task: Task, exit_status: str) -> None:
        if exit_status == "success":
            self._ended(task, "terminated", "success", "success")
            return
        task.failures += 1
        if task.failures < task.new.max_attempt_count:
            task.state = "available"
        else:
            self._ended(task, "terminated", _outcome(exit_status), "failure")

    def _lost(self, task: Task) -> None:
        task.holder = None
        if task.state == "pending_cancellation":
            self._cancelled(task)
            return
        task.losses += 1
        if task.losses > task.new.max_lost_count:
            self._ended(task, "terminated", "lost", "failure")
        else:
            task.state = "available"

    def _given_back(self, task: Task) -> None:
        task.holder = None
        if task.state == "pending_cancellation":
            self._cancelled(task)
        else:
            task.state = "available"

    def _activate(self, task: Task) -> None:
        if task.new.group:
            self._ended(task, "terminated", "success", "success")
        else:
            task.state = "available"

    def _cancelled(self, task: Task, because: Iterable[str] = ()) -> None:
        task.because = set(because)
        self._ended(task, "cancelled", None, "cancelled")

    def _ended(self, task: Task, state: str, outcome: str | None, ending: str) -> None:
        task.state, task.outcome, task.ending = state, outcome, ending
        name = task.new.name
        if state == "cancelled":
            self.edges = {edge for edge in self.edges if edge.child != name}
        for child in [one for one in self.tasks.values() if name in one.open]:
            passes = self._passes(name, child.new.name)
            if child.state == "cancelled" and child.because and not passes:
                child.because.add(name)
            elif child.state == "inactive" and not passes:
                self._cancelled(child, {name})
            elif child.state == "inactive":
                child.open.discard(name)
                if not child.open:
                    self._activate(child)

    # --- the graph -------------------------------------------------------------------

    def _above(self, name: str) -> set[str]:
        return {edge.parent for edge in self.parents if edge.child == name}

    def _alive(self, name: str) -> bool:
        return self.tasks[name].state not in ENDED

    def _passes(self, parent: str, child: str) -> bool:
        """Whether how the parent ended is what all edges between the two wait for."""
        ending = self.tasks[parent].ending
        kinds = [e.kind for e in self.parents if (e.parent, e.child) == (parent, child)]
        return all(ending in _PASSES[kind] for kind in kinds)

    def _reached_from(self, name: str) -> set[str]:
        """What a task leads to; one that is past `inactive` waits for nothing any more."""
        waiting = {one for one, task in self.tasks.items() if task.state == "inactive"}
        reached: set[str] = set()
        while (
            more := {
                edge.child for edge in self.edges if edge.parent in (reached | {name}) & waiting
            }
            - reached
        ):
            reached |= more
        return reached


def _circular(edges: Iterable[tuple[str, str]]) -> bool:
    pairs = set(edges)
    while pairs:
        leaves = {child for _, child in pairs} - {parent for parent, _ in pairs}
        if not leaves:
            return True
        pairs = {pair for pair in pairs if pair[1] not in leaves}
    return False


def _outcome(exit_status: str) -> str:
    return OUTCOMES.get(exit_status, "failure")
