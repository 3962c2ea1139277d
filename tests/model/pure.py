"""The pure rules of `banyan.domain`, with a dict in the place of the database.

Every decision is the domain's; here is only what the store does with it: a guarded write, and
the two ends of an edge. Settling may be put off, and be done twice and in any order, as when a
server is killed between an end and what follows from it.
"""

from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from random import Random
from typing import Any

from banyan.domain import continuations, lifecycle
from banyan.domain.continuations import CHILD_LISTS, EDGES, PARENT_LISTS, Cancel
from banyan.domain.lifecycle import Change, Decision, Refusal
from banyan.domain.states import ENDED, HELD, Actor, Ending, State
from banyan.errors import WORDS
from tests.model.expected import Edge, New, View

NOW = datetime(2026, 11, 22, 6, 51, 14, tzinfo=UTC)
Item = dict[str, Any]


class Pure:
    """See `expected.Expected` for the methods."""

    def __init__(self, chance: Random) -> None:
        self.tasks: dict[str, Item] = {}
        self.claims: dict[int, str] = {}
        self._chance = chance

    def look(self) -> dict[str, View]:
        self.upkeep()
        return {name: _view(task) for name, task in self.tasks.items()}

    def upkeep(self) -> None:
        """Settles whatever is left to be settled: the ended parents in any order."""
        while unsettled := [one for one in self.tasks.values() if one["unsettled"]]:
            self._chance.shuffle(unsettled)
            some = unsettled[: self._chance.randint(1, len(unsettled))]
            self._settle(some)
            if self._chance.random() < 0.5:
                self._settle(some)
            for task in some:
                task["unsettled"] = False

    # --- by a provider ---------------------------------------------------------------

    def submit(self, new: Sequence[New]) -> int:
        self.upkeep()
        if any(one.name in self.tasks for one in new):
            return 409
        pairs = [(parent, one.name) for one in new for _, parent in one.after]
        if continuations.on_a_cycle(pairs):
            return 422
        made = {one.name: _made(one) for one in new}
        self.tasks |= made
        for one in new:
            for kind, parent in one.after:
                self._write_edge(Edge(kind, parent, one.name))
        endings = {
            name: Ending(task["ended_as"])
            for name, task in self.tasks.items()
            if name not in made and State(task["state"]) in ENDED
        }
        for one in new:
            self._place(made[one.name], endings, one.available)
        return 201

    def _write_edge(self, edge: Edge) -> None:
        _add(self.tasks[edge.parent][edge.kind], edge.child)
        _add(self.tasks[edge.child][EDGES[edge.kind]], edge.parent)

    def _place(self, task: Item, endings: Mapping[str, Ending], available: bool) -> None:
        parents = continuations.parents_of(task)
        wrong = [
            one
            for one in parents
            if one in endings and not continuations.satisfied(task, one, endings[one])
        ]
        task["open_parents"] = [one for one in parents if one not in endings]
        if wrong:
            self._apply(lifecycle.cancelled(task, Actor.SERVER, "before", wrong[0]))
        elif available and not task["open_parents"]:
            task.update(lifecycle.activated(task, NOW))

    def move(self, name: str, state: str) -> int:
        return self._apply(lifecycle.move(self.tasks[name], State(state), NOW))

    def cancel(self, name: str) -> int:
        return self._apply(lifecycle.cancel(self.tasks[name]))

    def retry(self, names: Sequence[str], downstream: bool) -> int:
        self.upkeep()
        asked = {name: self.tasks[name] for name in names}
        coming = self._coming(asked, downstream)
        decided = [(one, *self._again(one, asked, coming)) for one in coming]
        refused = [one for _, one, _ in decided if isinstance(one, Refusal)]
        if refused:
            return self._apply(refused[0])
        going = [(name, one, waits) for name, one, waits in decided if isinstance(one, Change)]
        if continuations.on_a_cycle((parent, name) for name, _, waits in going for parent in waits):
            return 422
        for name, change, waits in going:
            self._apply(change)
            for child_list, parent_list in EDGES.items():
                for parent in set(self.tasks[name][parent_list]) & set(waits):
                    _add(self.tasks[parent][child_list], name)
        return 200

    def _coming(self, asked: Collection[str], downstream: bool) -> set[str]:
        coming = set(asked)
        while downstream and (
            more := {
                name
                for name, task in self.tasks.items()
                if task["state"] == State.CANCELLED and task.get("cancelled_because") in coming
            }
            - coming
        ):
            coming |= more
        while kept := {one for one in coming - set(asked) if self._kept_out(one, coming)}:
            coming -= kept
        return coming

    def _kept_out(self, name: str, coming: set[str]) -> bool:
        task = self.tasks[name]
        others = [self.tasks[one] for one in continuations.parents_of(task) if one not in coming]
        return any(
            not continuations.satisfied(task, one["_id"], Ending(one["ended_as"]))
            for one in others
            if State(one["state"]) in ENDED
        )

    def _again(
        self, name: str, asked: Collection[str], coming: set[str]
    ) -> tuple[Decision, list[str]]:
        task = self.tasks[name]
        waits = [
            one
            for one in continuations.parents_of(task)
            if one in coming or State(self.tasks[one]["state"]) not in ENDED
        ]
        if name in asked:
            return lifecycle.retry(task, waits, NOW), waits
        return lifecycle.restore(task, waits), waits

    # --- edges -----------------------------------------------------------------------

    def link(self, edge: Edge) -> int:
        self.upkeep()
        parent, child = self.tasks[edge.parent], self.tasks[edge.child]
        inactive = parent["state"] == child["state"] == State.INACTIVE
        if edge.parent == edge.child or not inactive or edge.parent in self._below(edge.child):
            return 422
        self._write_edge(edge)
        _add(child["open_parents"], edge.parent)
        return 200

    def _below(self, name: str) -> set[str]:
        seen, level = {name}, {name}
        while level:
            children = {c for one in level for c in continuations.children_of(self.tasks[one])}
            level = {c for c in children if self.tasks[c]["state"] == State.INACTIVE} - seen
            seen |= level
        return seen

    def unlink(self, edge: Edge) -> int:
        self.upkeep()
        parent, child = self.tasks[edge.parent], self.tasks[edge.child]
        if edge.child not in parent[edge.kind]:
            return 200
        if parent["state"] != State.INACTIVE:
            return 422
        parent[edge.kind].remove(edge.child)
        child[EDGES[edge.kind]].remove(edge.parent)
        if edge.child not in continuations.children_of(parent):
            child["open_parents"] = [one for one in child["open_parents"] if one != edge.parent]
        return 200

    # --- by workers ------------------------------------------------------------------

    def claim(self, name: str, worker: str, number: int) -> int:
        task = self.tasks[name]
        holder = {
            "attempt": number,
            "worker": worker,
            "account": "w",
            "granted": {},
            "claimed": NOW,
        }
        status = self._apply(lifecycle.claim(task, holder, {"worker": worker}))
        if status == 200:
            self.claims[number] = name
        return status

    def _held(self, number: int) -> Item | None:
        task = self.tasks[self.claims[number]]
        return task if task.get("holder", {}).get("attempt") == number else None

    def end(self, number: int, state: str, exit_status: str) -> int:
        task = self._held(number)
        if task is None:
            return 409
        end = {"exit_status": exit_status, "time_terminated": NOW}
        return self._apply(lifecycle.finish(task, State(state), end, NOW))

    def release(self, number: int) -> int:
        task = self._held(number)
        if task is None:
            return 409
        self._apply(lifecycle.given_back(task, "released", NOW))
        return 200  # also where it has ended: it is not held any more

    def lapse(self, worker: str) -> None:
        for task in self._held_by(worker):
            self._apply(lifecycle.lost(task, "the lease", NOW))

    def remove(self, worker: str) -> None:
        for task in self._held_by(worker):
            self._apply(lifecycle.given_back(task, "removed", NOW))

    def _held_by(self, worker: str) -> list[Item]:
        held = [task for task in self.tasks.values() if State(task["state"]) in HELD]
        return [task for task in held if task["holder"]["worker"] == worker]

    # --- the store -------------------------------------------------------------------

    def _apply(self, decision: Decision) -> int:
        if isinstance(decision, Refusal):
            return WORDS[decision.word].status
        if isinstance(decision, Change):
            task = self.tasks[decision.task_id]
            for name, value in decision.expected.items():
                assert _at(task, name) == value, f"the guard on {name} does not hold"
            task.update(decision.set)
            for name in decision.unset:
                task.pop(name, None)
        return 200

    def _settle(self, parents: Sequence[Item]) -> None:
        gone = {one["_id"] for one in parents if one["state"] == State.CANCELLED}
        for task in self.tasks.values():
            for name in CHILD_LISTS:
                task[name] = [child for child in task[name] if child not in gone]
        endings = {one["_id"]: Ending(one["ended_as"]) for one in parents}
        for child in self.tasks.values():
            one = continuations.settle(child, endings)
            if isinstance(one, Cancel):
                child.update(lifecycle.ended(None, Ending.CANCELLED, "a parent"))
                child["cancelled_because"] = one.parent
            elif one:
                left = [parent for parent in child["open_parents"] if parent not in one.parents]
                child["open_parents"] = left
                child.update({} if left else lifecycle.activated(child, NOW))


def _made(new: New) -> Item:
    return {
        "_id": new.name,
        "owner": "p",
        "state": State.INACTIVE,
        "command": None if new.group else "true",
        "max_attempt_count": new.max_attempt_count,
        "max_lost_count": new.max_lost_count,
        "retry_delay_milliseconds": 0,
        "retry_backoff": 1,
        "attempt_count": 0,
        "outcome": None,
        "unsettled": False,
        "open_parents": [],
        **{name: [] for name in (*CHILD_LISTS, *PARENT_LISTS)},
    }


def _view(task: Item) -> View:
    waiting = None if task["state"] == State.CANCELLED else len(task["open_parents"])
    outcome = None if task["outcome"] is None else str(task["outcome"])
    return View(str(task["state"]), outcome, task["attempt_count"], waiting)


def _add(values: list[str], value: str) -> None:
    if value not in values:
        values.append(value)


def _at(task: Item, path: str) -> Any:
    found: Any = task
    for part in path.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return found
