"""Which tasks claims try for: what all of a group may take is looked at once.

Called by the verb `claim` for the claims of one moment. It writes nothing: what is chosen may be
lost to another server process, and is chosen anew then.
"""

import random
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import chain, islice
from typing import Any, NamedTuple

from banyan.config import knobs
from banyan.domain.resources import Capacity, Grant, fits, grant_for
from banyan.domain.scheduling import Candidate, choose, span
from banyan.server.shapes import SHAPES, Heads
from banyan.server.store import claims
from banyan.server.store.mongo import Document, Store, now

# Read more than is asked for: some will not fit beside the others, some will be lost.
_READ_AHEAD = 3
_READ_AHEAD_MAX = 64
_LOOK_FURTHER = 4


class Room(NamedTuple):
    """What a claim may take: `most` tasks into what is free, and `ahead` more of them."""

    free: Capacity
    total: Capacity
    most: int
    ahead: int


class Wish(NamedTuple):
    """One claim.

    lost_rounds: how often all that it tried for went to others. They look at the same first
    tasks, so from then on it looks further and takes any of what it sees.
    """

    worker: Document
    body: Mapping[str, Any]
    room: Room
    lost_rounds: int


class _Look(NamedTuple):
    """What claims have in common that read the same: shapes that fit now, and that would later."""

    now_fit: tuple[str, ...]
    later_fit: tuple[str, ...]
    within_milliseconds: int | None


Chosen = list[tuple[Document, Grant]]
_Suitable = list[tuple[str, Grant]]


def choose_for(store: Store, wishes: Sequence[Wish]) -> list[Chosen]:
    """For each the tasks to try for, in order; no task for two of them."""
    seen = SHAPES.seen_waiting(store)
    chosen = _among(store, wishes, seen) if seen else [[] for _ in wishes]
    pairs = list(zip(wishes, chosen, strict=True))
    if any(len(one) < wish.room.most + wish.room.ahead for wish, one in pairs):
        waiting = SHAPES.waiting(store)
        # Of many, those whose first tasks stood in front were tried: that may have changed.
        if not waiting.keys() <= seen.keys() or len(seen) > claims.SHAPES_AT_ONCE:
            chosen = _among(store, wishes, waiting)
    pairs = list(zip(wishes, chosen, strict=True))
    SHAPES.was_enough(store, all(len(one) >= wish.room.most for wish, one in pairs))
    return chosen


def _among(store: Store, wishes: Sequence[Wish], heads: Heads) -> list[Chosen]:
    """The same, of the tasks of these shapes."""
    known = SHAPES.look_up(store, heads)
    shapes = {key: known[key] for key in sorted(known, key=lambda key: heads[key])}
    suitable: dict[Any, _Suitable] = {}
    looks: dict[_Look, list[int]] = {}
    for place, wish in enumerate(wishes):
        looks.setdefault(_look_of(wish, shapes, suitable), []).append(place)
    chosen: list[Chosen] = [[] for _ in wishes]
    taken: set[str] = set()
    for look, places in looks.items():
        # What others of the group have taken may be the first of what this look finds.
        found = _candidates(store, look, [wishes[place] for place in places], len(taken))
        left = {str(task["_id"]): task for task in found}
        for task_id in taken & left.keys():
            del left[task_id]
        for place in places:
            chosen[place] = _pick(left, wishes[place], look)
            taken.update(str(task["_id"]) for task, _ in chosen[place])
    return chosen


def _look_of(wish: Wish, shapes: Mapping[str, Document], suitable: dict[Any, _Suitable]) -> _Look:
    """Of these shapes those that the worker may run now, and those when it has room again.

    suitable: what was found for workers that are alike.
    """
    queues = frozenset(wish.body.get("queues", wish.worker["queues"]))
    labels = wish.body.get("labels", wish.worker["labels"])
    total = wish.room.total
    kind = (queues, frozenset(labels.items()), repr(total))
    if kind not in suitable:
        suitable[kind] = list(_suitable(shapes, queues, labels, total))
    now_fit: list[str] = []
    later_fit: list[str] = []
    within = wish.body.get("ends_within_milliseconds")
    for key, grant in suitable[kind]:
        if within is None or (claims.span_in(key) or 0) <= span(within):
            (now_fit if fits(grant, wish.room.free) else later_fit).append(key)
    return _Look(tuple(now_fit), tuple(later_fit), within)


def _suitable(
    shapes: Mapping[str, Document],
    queues: Collection[str],
    labels: Mapping[str, str],
    total: Capacity,
) -> Iterator[tuple[str, Grant]]:
    """Those that such a worker could run, were it empty, and what each would get there."""
    for key, shape in shapes.items():
        if shape["queue"] in queues and has_labels(shape["labels"], labels):
            grant = grant_for(shape["requested_resources"], total)
            if fits(grant, total):
                yield key, grant


def has_labels(wanted: Mapping[str, str], has: Mapping[str, str]) -> bool:
    """Whether all labels that a task asks for are there."""
    return all(has.get(name) == value for name, value in wanted.items())


def _candidates(store: Store, look: _Look, wishes: Sequence[Wish], beyond: int) -> list[Document]:
    """As many as these claims may want together, and `beyond` more."""
    ahead = sum(wish.room.ahead for wish in wishes)
    if not look.now_fit and not (ahead and look.later_fit):
        return []
    wanted = sum(_wanted(wish, look) * _LOOK_FURTHER**wish.lost_rounds for wish in wishes)
    found = claims.candidates(store, look.now_fit, wanted + beyond, look.within_milliseconds)
    if look.later_fit:
        within, later = look.within_milliseconds, max(1, ahead) + beyond
        found += claims.candidates(store, look.later_fit, later, within)
    return found


def _wanted(wish: Wish, look: _Look) -> int:
    """Of one kind all fit or none; of several some will not fit beside the others."""
    most, ahead = wish.room.most, wish.room.ahead
    alike = _is_of_one_kind(look) and not wish.lost_rounds
    return most + ahead + (0 if alike else min(most * _READ_AHEAD, _READ_AHEAD_MAX))


def _is_of_one_kind(look: _Look) -> bool:
    """Whether all ask for the same, though they may last for different times."""
    kinds = (key.partition(":")[0] for key in chain(look.now_fit, look.later_fit))
    first = next(kinds, None)
    return first is not None and all(kind == first for kind in kinds)


def _pick(left: dict[str, Document], wish: Wish, look: _Look) -> Chosen:
    """Takes out of what is left what this claim tries for."""
    room = wish.room
    picked = choose(
        _looked_at(left, wish, look),
        room.free,
        room.total,
        room.most,
        int(knobs().STARVATION_SECONDS * 1000),
        room.ahead,
    )
    return [(left.pop(candidate.task_id), grant) for candidate, grant in picked]


def _looked_at(left: Mapping[str, Document], wish: Wish, look: _Look) -> Iterator[Candidate]:
    tasks = list(left.items())
    if wish.lost_rounds:
        # What has no room yet stays: it may have waited for so long that it must be next.
        now_fit = set(look.now_fit)
        fitting = [one for one in tasks if one[1]["shape"] in now_fit]
        later = [one for one in tasks if one[1]["shape"] not in now_fit]
        tasks = random.sample(fitting, min(_wanted(wish, look), len(fitting))) + later
    elif _is_of_one_kind(look):
        tasks = list(islice(tasks, wish.room.most + wish.room.ahead))
    time = now()
    for task_id, task in tasks:
        waited = time - task["available_since"]
        yield Candidate(
            task_id,
            task["requested_resources"],
            task["priority"],
            task["seq"],
            int(waited.total_seconds() * 1000),
        )
