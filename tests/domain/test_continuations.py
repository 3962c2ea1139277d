"""Edges: what the ends of parents mean to a child, in any order and however often; cycles."""

import itertools
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from banyan.domain.continuations import (
    EDGES,
    PARENT_LISTS,
    Cancel,
    Release,
    children_of,
    on_a_cycle,
    parents_of,
    satisfied,
    settle,
)
from banyan.domain.lifecycle import activated, ended
from banyan.domain.states import ENDED, Ending, Outcome, State
from tests.domain.test_lifecycle import NOW

KINDS = list(EDGES)
SATISFIED_BY = {
    "continuations": {Ending.SUCCESS},
    "failure_continuations": {Ending.FAILURE},
    "final_continuations": set(Ending),
}


# --- One child --------------------------------------------------------------------------


def a_child(**fields: Any) -> dict[str, Any]:
    return {
        "_id": "c",
        "state": "inactive",
        "open_parents": ["p"],
        **{name: [] for name in PARENT_LISTS},
        **fields,
    }


@pytest.mark.parametrize(("kind", "ending"), list(itertools.product(KINDS, Ending)), ids=str)
def test_each_kind_of_edge_is_satisfied_by_its_endings(kind: str, ending: Ending) -> None:
    child = a_child(**{EDGES[kind]: ["p"]})
    expected = Release("c", ("p",)) if ending in SATISFIED_BY[kind] else Cancel("c", "p", ending)
    assert settle(child, {"p": ending}) == expected


def test_two_kinds_of_edge_from_one_parent_must_both_be_satisfied() -> None:
    child = a_child(after=["p"], after_any=["p"])
    assert satisfied(child, "p", Ending.SUCCESS)
    assert not satisfied(child, "p", Ending.FAILURE)
    assert not any(satisfied(a_child(after=["p"], after_failure=["p"]), "p", e) for e in Ending)


def test_one_wrong_end_outweighs_many_right_ones() -> None:
    child = a_child(after=["p", "q", "r"], open_parents=["p", "q", "r"])
    endings = {"p": Ending.SUCCESS, "q": Ending.FAILURE, "r": Ending.SUCCESS}
    assert settle(child, endings) == Cancel("c", "q", Ending.FAILURE)


def test_a_parent_that_is_not_open_for_the_child_means_nothing() -> None:
    assert settle(a_child(after=["p", "q"], open_parents=["q"]), {"p": Ending.FAILURE}) is None


@pytest.mark.parametrize("state", sorted({*State} - {State.INACTIVE}))
def test_only_an_inactive_child_is_settled(state: str) -> None:
    assert settle(a_child(after=["p"], state=state), {"p": Ending.FAILURE}) is None


def test_relatives_are_told_once_each() -> None:
    task = {"continuations": ["a", "b"], "final_continuations": ["b", "c"], "after": ["p"]}
    assert children_of(task) == ["a", "b", "c"]
    assert parents_of({**task, "after_any": ["p", "q"]}) == ["p", "q"]


# --- Whole graphs: a tiny world in memory -----------------------------------------------


@dataclass
class World:
    """Tasks by number, and what has been done to each of them."""

    tasks: dict[int, dict[str, Any]]
    released: list[tuple[int, int]] = field(default_factory=list)

    def settle_once(self, order: Iterable[int]) -> bool:
        """Look at every child in this order; whether anything was to be done."""
        worked = False
        for number in order:
            endings = {
                other["_id"]: other["ended_as"]
                for other in self.tasks.values()
                if other["state"] in ENDED
            }
            one = settle(self.tasks[number], endings)
            if isinstance(one, Cancel):
                self.tasks[number] |= ended(None, Ending.CANCELLED)
            elif one:
                self._release(self.tasks[number], one)
            worked = worked or one is not None
        return worked

    def _release(self, child: dict[str, Any], one: Release) -> None:
        self.released += [(parent, child["_id"]) for parent in one.parents]
        left = [parent for parent in child["open_parents"] if parent not in one.parents]
        child["open_parents"] = left
        if not left:
            child |= activated(child, NOW)

    def settle_all(self, order: list[int]) -> None:
        while self.settle_once(order):
            pass

    def states(self) -> dict[int, tuple[str, Any]]:
        return {number: (t["state"], t.get("ended_as")) for number, t in self.tasks.items()}


@dataclass(frozen=True)
class Dag:
    """Edges (kind, parent, child) with parent < child, and how each task with a command ends."""

    groups: tuple[bool, ...]
    edges: frozenset[tuple[str, int, int]]
    endings: tuple[Ending, ...]

    def world(self) -> World:
        tasks: dict[int, dict[str, Any]] = {}
        for number, is_group in enumerate(self.groups):
            lists = {
                EDGES[kind]: [p for k, p, c in sorted(self.edges) if k == kind and c == number]
                for kind in KINDS
            }
            task = {"_id": number, "state": "inactive", "command": None if is_group else "true"}
            tasks[number] = {**task, **lists, "open_parents": parents_of(lists)}
        return World(tasks)

    def end(self, world: World, number: int) -> None:
        """As its worker, or somebody who cancels it, would."""
        outcomes = {
            Ending.SUCCESS: Outcome.SUCCESS, Ending.FAILURE: Outcome.FAILURE,
            Ending.CANCELLED: None,
        }  # fmt: skip
        ending = self.endings[number]
        world.tasks[number] |= ended(outcomes[ending], ending)

    def expected(self) -> list[tuple[str, Ending]]:
        """What becomes of each task, worked out along the order of the numbers."""
        found: list[tuple[str, Ending]] = []
        for number, is_group in enumerate(self.groups):
            mine = [(kind, parent) for kind, parent, child in self.edges if child == number]
            if any(found[parent][1] not in SATISFIED_BY[kind] for kind, parent in mine):
                found.append(("cancelled", Ending.CANCELLED))
            elif is_group:
                found.append(("terminated", Ending.SUCCESS))
            else:
                ending = self.endings[number]
                state = "cancelled" if ending == Ending.CANCELLED else "terminated"
                found.append((state, ending))
        return found


@st.composite
def dags(draw: st.DrawFn) -> Dag:
    count = draw(st.integers(1, 9))
    groups = tuple(draw(st.booleans()) for _ in range(count))
    pairs = [(kind, p, c) for kind in KINDS for p in range(count) for c in range(p + 1, count)]
    chosen = draw(st.lists(st.sampled_from(pairs), max_size=20)) if pairs else []
    endings = tuple(
        draw(st.sampled_from([Ending.SUCCESS] * 3 + [Ending.FAILURE, Ending.CANCELLED]))
        for _ in range(count)
    )
    return Dag(groups, frozenset(chosen), endings)


def play(dag: Dag, data: st.DataObject, eager: bool) -> World:
    """End what may run, in a drawn order, settling now and then or only when nothing goes on."""
    world = dag.world()
    numbers = list(world.tasks)
    for number in numbers:
        if not world.tasks[number]["open_parents"]:
            world.tasks[number] |= activated(world.tasks[number], NOW)
    while True:
        running = [n for n in numbers if world.tasks[n]["state"] == State.AVAILABLE]
        order = data.draw(st.permutations(numbers))
        if running:
            dag.end(world, data.draw(st.sampled_from(running)))
            if eager:
                world.settle_once(order)
        elif not world.settle_once(order):
            return world


@given(dags(), st.data())
def test_in_whatever_order_parents_end_and_are_settled_the_graph_ends_the_same(
    dag: Dag, data: st.DataObject
) -> None:
    expected = dict(enumerate(dag.expected()))
    assert play(dag, data, eager=True).states() == expected
    assert play(dag, data, eager=False).states() == expected


@given(dags(), st.data())
def test_a_parent_settles_each_child_once_however_often_it_is_settled(
    dag: Dag, data: st.DataObject
) -> None:
    world = play(dag, data, eager=True)
    before = world.states()
    assert len(world.released) == len(set(world.released))
    world.settle_all(data.draw(st.permutations(list(world.tasks))))
    assert world.states() == before


@given(dags(), st.data())
def test_nothing_runs_while_a_parent_is_open(dag: Dag, data: st.DataObject) -> None:
    world = play(dag, data, eager=False)
    for number, task in world.tasks.items():
        if task["ended_as"] == Ending.CANCELLED:
            continue
        for kind, parent, child in dag.edges:
            if child == number:
                assert world.tasks[parent]["ended_as"] in SATISFIED_BY[kind]


# --- Cycles -----------------------------------------------------------------------------

graphs = st.integers(1, 7).flatmap(
    lambda count: st.lists(
        st.tuples(st.integers(0, count), st.integers(0, count)), max_size=3 * count
    )
)


def reaches(edges: list[tuple[int, int]], start: int) -> set[int]:
    """Everything below `start`, found one edge at a time."""
    below: set[int] = set()
    while True:
        more = {child for parent, child in edges if parent == start or parent in below}
        if more <= below:
            return below
        below |= more


@given(graphs)
def test_a_cycle_is_found_exactly_where_there_is_one(edges: list[tuple[int, int]]) -> None:
    nodes = {node for edge in edges for node in edge}
    below = {node: reaches(edges, node) for node in nodes}
    on_one = {node for node in nodes if node in below[node]}
    between = {
        node
        for node in nodes
        if below[node] & on_one and any(node in below[other] for other in on_one)
    }
    assert on_a_cycle(edges) == on_one | between


@pytest.mark.parametrize("length", [1, 2, 3, 1000, 50_000])
def test_a_cycle_is_found_however_long(length: int) -> None:
    ring = [(number, (number + 1) % length) for number in range(length)]
    assert on_a_cycle([*ring, (0, -1), (-2, 0)]) == set(range(length))
    assert on_a_cycle(ring[:-1]) == set()


class Counted:
    """A task's name that counts how often it is looked up."""

    looked_up = 0

    def __hash__(self) -> int:
        Counted.looked_up += 1
        return id(self)


def test_each_end_of_an_edge_is_looked_up_once() -> None:
    tasks = [Counted() for _ in range(200)]
    edges = list(itertools.combinations(tasks, 2))
    Counted.looked_up = 0
    assert on_a_cycle(edges) == set()
    assert Counted.looked_up <= 2 * len(edges)
