"""All graphs of three tasks, and all ways in which they can end, by the pure rules.

Not a sample: every set of edges between three tasks, every kind of edge, and every order of
ends and of settling. What must hold is said of the whole: a child runs if, and only if, every
parent ended as it must, and it is the same whatever came first.
"""

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from banyan.domain.continuations import EDGES, PARENT_LISTS, Cancel, settle
from banyan.domain.lifecycle import activated, cancelled, ended
from banyan.domain.states import ENDED, Actor, Ending, Outcome, State
from tests.domain.test_lifecycle import NOW

KINDS = list(EDGES)
PLACES = [(0, 1), (0, 2), (1, 2)]  # up to the names of the tasks these are all
HOW = (Ending.SUCCESS, Ending.FAILURE, Ending.CANCELLED)
PASSES = {
    "continuations": {Ending.SUCCESS},
    "failure_continuations": {Ending.FAILURE},
    "final_continuations": set(HOW),
}

Graph = tuple[str | None, ...]  # of each place the kind of edge, or none
Item = dict[str, Any]


def graphs() -> Iterator[Graph]:
    return itertools.product([None, *KINDS], repeat=len(PLACES))


def tasks_of(graph: Graph) -> list[Item]:
    """The three tasks before anything has happened."""
    made: list[Item] = [
        {
            "_id": n,
            "state": State.INACTIVE,
            "command": "true",
            "open_parents": [],
            "unsettled": False,
        }
        | {name: [] for name in PARENT_LISTS}
        for n in range(3)
    ]
    for kind, (parent, child) in zip(graph, PLACES, strict=True):
        if kind:
            made[child][EDGES[kind]].append(parent)
            made[child]["open_parents"].append(parent)
    return made


def expected(graph: Graph, how: Mapping[int, Ending]) -> dict[int, Ending | None]:
    """How each task ends, if those that may run end as `how` says; None: it still waits.

    how: of a task that is not in it nothing is heard.
    """
    endings: dict[int, Ending | None] = {}
    for task in range(3):
        above = [
            (kind, parent)
            for kind, (parent, child) in zip(graph, PLACES, strict=True)
            if kind and child == task
        ]
        known = [(kind, endings[parent]) for kind, parent in above]
        if any(ending is not None and ending not in PASSES[kind] for kind, ending in known):
            endings[task] = Ending.CANCELLED
        elif any(ending is None for _, ending in known):
            endings[task] = None
        else:
            endings[task] = how.get(task)
    return endings


class Small:
    """Three tasks, and the events that can meet them."""

    def __init__(self, graph: Graph, how: Mapping[int, Ending]) -> None:
        self.tasks = tasks_of(graph)
        self.how = how
        for task in self.tasks:
            if not task["open_parents"]:
                task.update(activated(task, NOW))

    def possible(self) -> list[tuple[str, int]]:
        """An end of what may run; a settling of one that has ended, for one child."""
        may_end = [("end", n) for n in self.how if self.tasks[n]["state"] == State.AVAILABLE]
        return may_end + [("settle", n) for n, task in enumerate(self.tasks) if task["unsettled"]]

    def do(self, event: tuple[str, int]) -> None:
        verb, number = event
        task = self.tasks[number]
        if verb == "settle":
            self.settle(number)
            task["unsettled"] = False
        elif self.how[number] is Ending.CANCELLED:
            change = cancelled(task, Actor.PROVIDER, "on request")
            task.update(change.set)  # type: ignore[union-attr]
        else:
            task.update(ended(Outcome(self.how[number]), self.how[number]))

    def settle(self, number: int) -> None:
        """Twice: it may have been done by another process at the same time."""
        for _ in range(2):
            for child in self.tasks:
                one = settle(child, {number: Ending(self.tasks[number]["ended_as"])})
                if isinstance(one, Cancel):
                    child.update(ended(None, Ending.CANCELLED))
                elif one:
                    left = [p for p in child["open_parents"] if p not in one.parents]
                    child["open_parents"] = left
                    child.update({} if left else activated(child, NOW))

    def endings(self) -> dict[int, Ending | None]:
        return {
            n: Ending(task["ended_as"]) if State(task["state"]) in ENDED else None
            for n, task in enumerate(self.tasks)
        }


def orders(small: Small) -> Iterator[Small]:
    """Every order in which what can happen may happen, to the end."""
    possible = small.possible()
    if not possible:
        yield small
    for event in possible:
        another = Small.__new__(Small)
        another.how = small.how
        another.tasks = [{**task, "open_parents": [*task["open_parents"]]} for task in small.tasks]
        another.do(event)
        yield from orders(another)


@pytest.mark.parametrize("heard_of", [(0, 1, 2), (0, 1), (0,), (1, 2)], ids=str)
def test_every_order_of_every_small_graph_comes_to_the_same(heard_of: tuple[int, ...]) -> None:
    for graph in graphs():
        for ways in itertools.product(HOW, repeat=len(heard_of)):
            how = dict(zip(heard_of, ways, strict=True))
            wanted = expected(graph, how)
            for over in orders(Small(graph, how)):
                assert over.endings() == wanted, (graph, how)
                for task in over.tasks:
                    waits = task["state"] == State.INACTIVE
                    assert waits == (wanted[task["_id"]] is None and bool(task["open_parents"]))
