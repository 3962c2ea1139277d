"""Edges parent -> child: when a child is released, when it is cancelled, what is a cycle.

An edge stands twice, in a list of the parent and in a list of the child (`EDGES` maps
the one to the other), and the two are always written together. The child's set
`open_parents` holds the parents that have not ended; whatever is done to it is a set
operation, so that doing it again changes nothing.
"""

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from banyan.domain.states import Ending, State

EDGES: Mapping[str, str] = {
    "continuations": "after",
    "failure_continuations": "after_failure",
    "final_continuations": "after_any",
}
CHILD_LISTS = tuple(EDGES)
PARENT_LISTS = tuple(EDGES.values())

_SATISFIED_BY: Mapping[str, frozenset[Ending]] = {
    "after": frozenset({Ending.SUCCESS}),
    "after_failure": frozenset({Ending.FAILURE}),
    "after_any": frozenset(Ending),
}

Task = Mapping[str, Any]


@dataclass(frozen=True)
class Release:
    """The child no longer waits for these parents."""

    child: Any
    parents: tuple[Any, ...]


@dataclass(frozen=True)
class Cancel:
    """The child can never run: `parent` ended the wrong way for it."""

    child: Any
    parent: Any
    ending: Ending


def satisfied(child: Task, parent_id: Hashable, ending: Ending) -> bool:
    """Whether all edges from that parent to the child are satisfied by how it ended.

    child: its three lists of parents, or sets of them.
    """
    kinds = [field for field in PARENT_LISTS if parent_id in child.get(field, ())]
    return all(ending in _SATISFIED_BY[field] for field in kinds)


def settle(child: Task, endings: Mapping[Any, Ending]) -> Release | Cancel | None:
    """What the ends of some parents mean to one child; None where nothing is to be done.

    child:   `_id`, `state`, `open_parents` and the three lists of parents.
    endings: ended parent -> how it ended, for its continuations.
    """
    if child["state"] != State.INACTIVE:
        return None
    ended = [parent for parent in child.get("open_parents", ()) if parent in endings]
    named = {field: set(child.get(field, ())) for field in PARENT_LISTS}  # a join names hundreds
    for parent in ended:
        if not satisfied(named, parent, endings[parent]):
            return Cancel(child["_id"], parent, endings[parent])
    return Release(child["_id"], tuple(ended)) if ended else None


def children_of(task: Task) -> list[Any]:
    """All children that the task's three lists name, each once."""
    return list(dict.fromkeys(child for field in CHILD_LISTS for child in task.get(field) or ()))


def parents_of(task: Task) -> list[Any]:
    """All parents that the task's three lists name, each once."""
    return list(dict.fromkeys(p for field in PARENT_LISTS for p in task.get(field) or ()))


def on_a_cycle(edges: Iterable[tuple[Any, Any]]) -> set[Any]:
    """The tasks that lie on a cycle, or between two, of these (parent, child) edges.

    Leaves are taken off from both ends until none is left; what remains is no tree. An edge may
    be named several times. What it costs grows with the edges alone, and each of their ends is
    looked up once: there may be a hundred thousand.
    """
    numbers: dict[Any, int] = {}
    pairs = [
        (numbers.setdefault(parent, len(numbers)), numbers.setdefault(child, len(numbers)))
        for parent, child in edges
    ]
    left = _peel(pairs, len(numbers))
    if not left:
        return set()
    upwards = [(child, parent) for parent, child in pairs if parent in left and child in left]
    kept = left & _peel(upwards, len(numbers))
    return {task for task, number in numbers.items() if number in kept}


def _peel(pairs: Iterable[tuple[int, int]], count: int) -> set[int]:
    """Which of the numbers below `count` are on a cycle, or below one."""
    children: list[list[int]] = [[] for _ in range(count)]
    waiting = [0] * count
    for parent, child in pairs:
        children[parent].append(child)
        waiting[child] += 1
    ready = [number for number in range(count) if not waiting[number]]
    while ready:
        for child in children[ready.pop()]:
            waiting[child] -= 1
            if not waiting[child]:
                ready.append(child)
    return {number for number in range(count) if waiting[number]}
