"""Random lives of tasks: the same verbs for `Expected` and for a system, and both must agree.

A verb may be sent twice, as by a client whose answer was lost: the second time must tell what
is expected of a second time. After every step all tasks are compared.
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from hypothesis import assume
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from tests.harness import eventually
from tests.model.expected import HELD, KINDS, Edge, Expected, New, View

WORKERS = ("w1", "w2")
EXIT_STATUSES = (
    "success",
    "failure (1)",
    "failure (SIGKILL)",
    "timeout",
    "oom",
    "cancelled",
    "lost",
)
TASKS_MAX = 9
_sent = st.sampled_from([1, 1, 2])  # how often


class System(Protocol):
    """What is held against `Expected`."""

    def look(self) -> dict[str, View]: ...
    def submit(self, new: Sequence[New]) -> int: ...
    def move(self, name: str, state: str) -> int: ...
    def cancel(self, name: str) -> int: ...
    def retry(self, names: Sequence[str], downstream: bool) -> int: ...
    def link(self, edge: Edge) -> int: ...
    def unlink(self, edge: Edge) -> int: ...
    def claim(self, name: str, worker: str, number: int) -> int: ...
    def end(self, number: int, state: str, exit_status: str) -> int: ...
    def release(self, number: int) -> int: ...
    def lapse(self, worker: str) -> None: ...
    def remove(self, worker: str) -> None: ...
    def upkeep(self) -> None: ...


class Lives(RuleBasedStateMachine):
    """The rules; `system` is set by a subclass."""

    system: System
    patience_seconds = 0.0  # what follows from an end may be left to upkeep, on a busy machine

    def __init__(self) -> None:
        super().__init__()
        self.expected = Expected()
        self.claims = 0

    def both(self, times: int, verb: str, *arguments: Any) -> int:
        """Sends it to both, so often; the status of the first time."""
        statuses = []
        for _ in range(times):
            expected = getattr(self.expected, verb)(*arguments)
            actual = getattr(self.system, verb)(*arguments)
            assert actual == expected, f"{verb}{arguments}: {actual}, expected {expected}"
            statuses.append(actual)
        return statuses[0]

    def states(self) -> set[str]:
        """Those that there is a task in."""
        return {task.state for task in self.expected.tasks.values()}

    def a_task(self, data: st.DataObject, *states: str) -> str:
        """One of the tasks; most often in one of the states, where anything comes of it."""
        tasks = self.expected.tasks
        fitting = [name for name, task in tasks.items() if task.state in states]
        usual = fitting and data.draw(st.integers(0, 4), label="usual")
        return str(data.draw(st.sampled_from(fitting if usual else list(tasks)), label="task"))

    # --- by a provider ---------------------------------------------------------------

    @initialize(data=st.data())
    def begin(self, data: st.DataObject) -> None:
        """A parent and a child at the least."""
        first, second = New("t0", available=True, max_attempt_count=2), New("t1", max_lost_count=0)
        kind = data.draw(st.sampled_from(KINDS))
        self.both(1, "submit", [first, second._replace(after=((kind, "t0"),))])

    @precondition(lambda self: len(self.expected.tasks) < TASKS_MAX)
    @rule(data=st.data(), count=st.integers(1, 3), times=_sent)
    def submit(self, data: st.DataObject, count: int, times: int) -> None:
        first = len(self.expected.tasks)
        names = [f"t{first + index}" for index in range(count)]
        known = [*self.expected.tasks, *names]
        new = [self._new(data, name, [one for one in known if one != name]) for name in names]
        self.both(times, "submit", new)

    def _new(self, data: st.DataObject, name: str, others: list[str]) -> New:
        parents = st.tuples(st.sampled_from(KINDS), st.sampled_from(others or [name]))
        after = st.lists(parents, max_size=3 if others else 0, unique=True)
        return New(
            name,
            available=data.draw(st.booleans()),
            group=data.draw(st.sampled_from([False, False, False, True])),
            max_attempt_count=data.draw(st.integers(1, 2)),
            max_lost_count=data.draw(st.integers(0, 1)),
            after=tuple(data.draw(after)),
        )

    @rule(data=st.data(), times=_sent)
    def make_available(self, data: st.DataObject, times: int) -> None:
        self.both(times, "move", self.a_task(data, "inactive"), "available")

    @rule(
        data=st.data(),
        state=st.sampled_from(["inactive", "cancelled", "terminated", "pending_cancellation"]),
        times=_sent,
    )
    def move(self, data: st.DataObject, state: str, times: int) -> None:
        self.both(times, "move", self.a_task(data, "available"), state)

    @rule(data=st.data(), times=_sent)
    def cancel(self, data: st.DataObject, times: int) -> None:
        self.both(times, "cancel", self.a_task(data, "running", "available", "inactive"))

    @rule(data=st.data(), count=st.integers(1, 2), downstream=st.booleans(), times=_sent)
    def retry(self, data: st.DataObject, count: int, downstream: bool, times: int) -> None:
        names = list(
            dict.fromkeys(self.a_task(data, "terminated", "cancelled") for _ in range(count))
        )
        assume(not downstream or not self.expected.unsure(names))
        self.both(times, "retry", names, downstream)

    # --- edges -----------------------------------------------------------------------

    @rule(data=st.data(), kind=st.sampled_from(KINDS), times=_sent)
    def link(self, data: st.DataObject, kind: str, times: int) -> None:
        parent, child = self.a_task(data, "inactive"), self.a_task(data, "inactive")
        self.both(times, "link", Edge(kind, parent, child))

    @precondition(lambda self: self.expected.parents)
    @rule(data=st.data(), times=_sent)
    def unlink(self, data: st.DataObject, times: int) -> None:
        edge = data.draw(st.sampled_from(sorted(self.expected.parents)))
        self.both(times, "unlink", edge)

    # --- by workers ------------------------------------------------------------------

    @rule(data=st.data(), worker=st.sampled_from(WORKERS), times=_sent)
    def claim(self, data: st.DataObject, worker: str, times: int) -> None:
        self.claims += 1
        self.both(times, "claim", self.a_task(data, "available"), worker, self.claims)

    @precondition(lambda self: "available" in self.states())
    @rule(worker=st.sampled_from(WORKERS), times=_sent)
    def claim_all(self, worker: str, times: int) -> None:
        for name, task in self.expected.tasks.items():
            if task.state == "available":
                self.claims += 1
                self.both(times, "claim", name, worker, self.claims)

    def a_claim(self, data: st.DataObject) -> int:
        claims = self.expected.claims
        held = [number for number, name in claims.items() if self._holds(name, number)]
        usual = held and data.draw(st.integers(0, 3), label="usual")
        return int(data.draw(st.sampled_from(held if usual else list(claims)), label="claim"))

    def _holds(self, name: str, number: int) -> bool:
        task = self.expected.tasks[name]
        return task.state in HELD and task.holder == number

    @precondition(lambda self: self.expected.claims)
    @rule(
        data=st.data(),
        state=st.sampled_from(["terminated", "terminated", "terminated", "cancelled"]),
        exit_status=st.sampled_from(["success", "failure (1)", *EXIT_STATUSES]),
        times=_sent,
    )
    def end(self, data: st.DataObject, state: str, exit_status: str, times: int) -> None:
        self.both(times, "end", self.a_claim(data), state, exit_status)

    @precondition(lambda self: self.states() & set(HELD))
    @rule(exit_status=st.sampled_from(["success", "failure (1)", "lost"]), times=_sent)
    def end_all(self, exit_status: str, times: int) -> None:
        for number, name in self.expected.claims.items():
            if self._holds(name, number):
                self.both(times, "end", number, "terminated", exit_status)

    @precondition(lambda self: "running" in self.states())
    @rule(data=st.data())
    def cancel_one_that_runs(self, data: st.DataObject) -> None:
        running = [n for n, task in self.expected.tasks.items() if task.state == "running"]
        self.both(1, "cancel", data.draw(st.sampled_from(running), label="task"))

    @precondition(lambda self: self.expected.claims)
    @rule(data=st.data(), times=_sent)
    def release(self, data: st.DataObject, times: int) -> None:
        self.both(times, "release", self.a_claim(data))

    @precondition(lambda self: self.expected.claims)
    @rule(worker=st.sampled_from(WORKERS))
    def lapse(self, worker: str) -> None:
        self.both(1, "lapse", worker)

    @precondition(lambda self: self.expected.claims)
    @rule(worker=st.sampled_from(WORKERS))
    def remove(self, worker: str) -> None:
        self.both(1, "remove", worker)

    @rule()
    def restart(self) -> None:
        self.system.upkeep()

    @invariant()
    def all_tasks_are_as_expected(self) -> None:
        expected = self.expected.look()

        def agree() -> bool:
            found = self.system.look()
            other = {n: (found.get(n), one) for n, one in expected.items() if found.get(n) != one}
            assert not other, f"found, expected: {other}"
            return True

        eventually(agree, self.patience_seconds)


def lives_of(
    make: Callable[[], System],
    end: Callable[[System], None] | None = None,
    patience_seconds: float = 0.0,
) -> type[Lives]:
    """The machine for one kind of system; each life has one of its own."""

    class OfOneSystem(Lives):
        def __init__(self) -> None:
            super().__init__()
            self.system = make()
            self.patience_seconds = patience_seconds

        def teardown(self) -> None:
            if end:
                end(self.system)

    return OfOneSystem
