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
from banyan.server.shapes import SHAPES, Heads, most_of_queue
from banyan.server.store import claims
from banyan.server.store.mongo import Document, Store, now

# Read more than is asked for: some will not fit beside the others, some will be lost.
_READ_AHEAD = 3
_READ_AHEAD_MAX = 64
_LOOK_FURTHER = 4
# Where tasks that fit ask for more different things than these, a claim tries for no more of them.
KINDS_MAX = 300
# What one group of claims may cost: the look at one shape is 1, to read the tasks of one is 20.
TOGETHER_MAX = 40_000
_READING = 20
_QUEUES_MAX = 64  # of the claims of one group; one claim may have as many


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
_Suitable = list[tuple[str, Grant, Mapping[str, str]]]


def choose_for(store: Store, wishes: Sequence[Wish]) -> list[Chosen]:
    """For each the tasks to try for, in order; no task for two of them.

    For the first few only, at least one, where the looks for all would take long.
    """
    limits, count = _limits(wishes)
    wishes = wishes[:count]
    seen = SHAPES.seen_waiting(store, limits)
    chosen = _among(store, wishes, seen) if seen else [[] for _ in wishes]
    pairs = list(zip(wishes, chosen, strict=False))
    if any(len(one) < wish.room.most + wish.room.ahead for wish, one in pairs):
        waiting = SHAPES.waiting(store, limits)
        # Of many, those whose first tasks stood in front were tried: that may have changed.
        if not waiting.keys() <= seen.keys() or len(seen) > claims.SHAPES_AT_ONCE:
            chosen = _among(store, [wish for wish, _ in pairs], waiting)
    enough = dict.fromkeys(limits, True)
    for wish, one in zip(wishes, chosen, strict=False):
        if len(one) < wish.room.most:
            enough.update(dict.fromkeys(_queues(wish), False))
    SHAPES.was_enough(store, enough)
    return chosen


def _queues(wish: Wish) -> Sequence[str]:
    queues: Sequence[str] = wish.body.get("queues", wish.worker["queues"])
    return queues


def _limits(wishes: Sequence[Wish]) -> tuple[dict[str, int], int]:
    """How many shapes are looked at, by queue; and for how many of these, the first ones."""
    limits: dict[str, int] = {}
    for count, wish in enumerate(wishes):
        queues = _queues(wish)
        if count and len(limits.keys() | set(queues)) > _QUEUES_MAX:
            return limits, count
        limit = most_of_queue(len(queues))
        limits |= {queue: max(limit, limits.get(queue, 0)) for queue in queues}
    return limits, len(wishes)


def _among(store: Store, wishes: Sequence[Wish], heads: Heads) -> list[Chosen]:
    """The same, of the tasks of these shapes."""
    known = SHAPES.look_up(store, heads)
    shapes = {key: known[key] for key in sorted(known, key=lambda key: heads[key])}
    looks = _looks(wishes, shapes)
    chosen: list[Chosen] = [[] for places in looks.values() for _ in places]
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


def _looks(wishes: Sequence[Wish], shapes: Mapping[str, Document]) -> dict[_Look, list[int]]:
    """What to read, and for which of the wishes: for as many as may be looked for together."""
    suitable: dict[Any, _Suitable] = {}
    looks: dict[_Look, list[int]] = {}
    cost = 0
    for place, wish in enumerate(wishes):
        if cost > TOGETHER_MAX:
            break
        kind = (frozenset(_queues(wish)), repr(wish.room.total))
        if kind not in suitable:
            suitable[kind] = list(_suitable(shapes, kind[0], wish.room.total))
            cost += len(shapes)
        look = _look_of(wish, suitable[kind])
        cost += len(suitable[kind]) + wish.room.most + wish.room.ahead
        if look not in looks:
            cost += sum(min(len(keys), KINDS_MAX) for keys in look[:2]) * _READING
        looks.setdefault(look, []).append(place)
    return looks


def _look_of(wish: Wish, suitable: _Suitable) -> _Look:
    """Of these shapes those that the worker may run now, and those when it has room again."""
    labels = wish.body.get("labels", wish.worker["labels"])
    now_fit: list[str] = []
    later_fit: list[str] = []
    within = wish.body.get("ends_within_milliseconds")
    for key, grant, wanted in suitable:
        in_time = within is None or (claims.span_in(key) or 0) <= span(within)
        if in_time and has_labels(wanted, labels):
            (now_fit if fits(grant, wish.room.free) else later_fit).append(key)
    return _Look(tuple(now_fit), tuple(later_fit), within)


def _suitable(
    shapes: Mapping[str, Document], queues: Collection[str], total: Capacity
) -> Iterator[tuple[str, Grant, Mapping[str, str]]]:
    """Those that such a worker could run, were it empty: what each would get there, its labels."""
    for key, shape in shapes.items():
        if shape["queue"] in queues:
            grant = grant_for(shape["requested_resources"], total)
            if fits(grant, total):
                yield key, grant, shape["labels"]


def has_labels(wanted: Mapping[str, str], has: Mapping[str, str]) -> bool:
    """Whether all labels that a task asks for are there."""
    return all(has.get(name) == value for name, value in wanted.items())


def _candidates(store: Store, look: _Look, wishes: Sequence[Wish], beyond: int) -> list[Document]:
    """As many as these claims may want together, and `beyond` more."""
    ahead = sum(_bounded(wish.room.ahead, look.later_fit) for wish in wishes)
    if not look.now_fit and not (ahead and look.later_fit):
        return []
    wanted = sum(
        _bounded(_wanted(wish, look) * _LOOK_FURTHER**wish.lost_rounds, look.now_fit)
        for wish in wishes
    )
    found = claims.candidates(store, look.now_fit, wanted + beyond, look.within_milliseconds)
    if look.later_fit:
        within, later = look.within_milliseconds, max(1, ahead) + beyond
        found += claims.candidates(store, look.later_fit, later, within)
    return found


def _bounded(count: int, kinds: Sequence[str]) -> int:
    """How many tasks to read of so many kinds: each kind may have to be looked at for one."""
    return min(count, KINDS_MAX) if len(kinds) > KINDS_MAX else count


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
