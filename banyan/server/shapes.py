"""The kinds of request that tasks have: equal ones are told apart and looked at once.

A claim asks which shapes have tasks waiting and looks at those that fit, so it never
reads the tasks that do not. A shape never changes, so processes may remember them. Which
have tasks waiting changes all the time: that is remembered for a moment only, while claims get
what they want, and only a claim that gets all of it may rely on it. Where little waits, what is
remembered would be looked for in vain, and the database asked all the same.

No claim looks at more than `LOOKED_AT_MAX` of them. Where more wait, each looks at another part,
drawn by chance, so that no task stays unseen; and upkeep lets those who wait look again.
"""

import random
from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache
from itertools import islice
from time import monotonic
from typing import Any

import orjson

from banyan.domain.resources import shape_key
from banyan.domain.scheduling import span_of
from banyan.errors import BanyanError
from banyan.server.quotas import QUOTAS, SHAPES_OF_OWNER
from banyan.server.store import claims
from banyan.server.store.mongo import Document, Store

REMEMBERED_MAX = 50_000
REMEMBERED_BYTES_MAX = 64 * 1024**2
LOOKED_AT_MAX = 5_000
LOOKED_UP_MAX = 2_000  # unknown ones; their labels may be large
# So long a claim may overlook a new kind of task that another process has taken in.
WAITING_SECONDS = 0.05
# A new task may take so long from here to where others see it.
_STORED_WITHIN_SECONDS = 5.0
_FIELDS = ("requested_resources", "queue", "labels")
_ENTRY_BYTES = 1_000  # in memory, without labels

# Where the first task of each shape stands in the order of claiming; the least comes first.
Head = tuple[int, int]
Heads = Mapping[str, Head]


def of_task(task: Mapping[str, Any]) -> str:
    """The key of a task's shape: of its request, queue and labels, and how long it may last.

    The last stands behind a colon, so that what ends in time is told without a look at tasks.
    """
    key = _key_of(orjson.dumps([task["requested_resources"], task["queue"], task["labels"]]))
    span = span_of(task)
    return key if span is None else f"{key}:{span}"


@lru_cache(maxsize=1000)
def _key_of(described: bytes) -> str:
    """Most tasks are like the one before; what is written otherwise has the same key."""
    return shape_key(*orjson.loads(described))


class Shapes:
    """The shapes that this process has seen, and which of them wait."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], Document] = {}
        self._known_bytes = 0
        self._seen: dict[str, tuple[float, Heads]] = {}  # by database: until when, which
        self._enough: dict[str, bool] = {}  # by database: whether the last claim got its fill
        # By database: in new tasks, until when, and where the first of these stands.
        self._come: dict[str, dict[str, tuple[float, Head]]] = {}
        self._parts: dict[str, Parts] = {}
        self._left: dict[str, bool] = {}  # by database: whether the last look left some out
        self._admitted: set[tuple[str, str, str]] = set()  # database, owner, shape

    def waiting(self, store: Store) -> Heads:
        """The shapes that available tasks have now, or a part of them."""
        parts = self._parts.setdefault(store.database_name, Parts())
        start = parts.draw()
        found = claims.waiting_shapes(store, start, LOOKED_AT_MAX)
        parts.was_read(start, found.end)
        self._seen[store.database_name] = (monotonic() + WAITING_SECONDS, found.heads)
        self._left[store.database_name] = parts.are_many
        return found.heads

    def seen_waiting(self, store: Store) -> Heads:
        """The same as of a moment ago, and what came since; nothing if it is of little use."""
        until, seen = self._seen.get(store.database_name, (0.0, {}))
        time = monotonic()
        if until < time or not self._enough.get(store.database_name):
            return {}
        come = self._come.get(store.database_name, {})
        heads = dict(seen)
        for key, (end, head) in islice(reversed(come.copy().items()), LOOKED_AT_MAX):
            if end > time:
                heads[key] = min(head, heads.get(key, head))
        return heads

    def was_enough(self, store: Store, enough: bool) -> None:
        """What the last claim found: as much as it wanted, or less."""
        self._enough[store.database_name] = enough

    def left_some_out(self, store: Store) -> bool:
        """Whether more shapes wait than one claim looks at, as far as this process knows."""
        return self._left.get(store.database_name, False)

    def note(self, store: Store, tasks: Sequence[Mapping[str, Any]]) -> None:
        """These tasks are about to be stored, or changed: their shapes may wait from now on."""
        come = self._come.setdefault(store.database_name, {})
        if len(come) > REMEMBERED_MAX:
            come.clear()
        time = monotonic()
        for task in tasks:
            head = (-task["priority"], task["seq"])
            end, before = come.pop(task["shape"], (0.0, head))  # the newest stand last
            first = min(head, before) if end > time else head
            come[task["shape"]] = (time + _STORED_WITHIN_SECONDS, first)
        new = {
            task["shape"]: {name: task[name] for name in _FIELDS}
            for task in tasks
            if (store.database_name, task["shape"]) not in self._known
        }
        self._remember(store, new)

    def look_up(self, store: Store, keys: Collection[str]) -> dict[str, Document]:
        """What these keys stand for: request, queue and labels. Of very many unknown, some."""
        known = {key: self._known.get((store.database_name, key)) for key in keys}
        missing = [key for key, shape in known.items() if shape is None]
        if missing:
            if len(missing) > LOOKED_UP_MAX:
                missing = random.sample(missing, LOOKED_UP_MAX)
                self._left[store.database_name] = True
            found = claims.shapes_with(store, missing)
            self._remember(store, found)
            known.update(found)
        return {key: shape for key, shape in known.items() if shape is not None}

    def _remember(self, store: Store, shapes: Mapping[str, Document]) -> None:
        if len(self._known) > REMEMBERED_MAX or self._known_bytes > REMEMBERED_BYTES_MAX:
            self._known.clear()
            self._known_bytes = 0
        self._known.update({(store.database_name, key): shape for key, shape in shapes.items()})
        for shape in shapes.values():
            self._known_bytes += _ENTRY_BYTES + len(orjson.dumps(shape["labels"]))

    def admit(self, store: Store, owner: str, keys: Collection[str]) -> None:
        """Let an owner's tasks of these shapes in, or refuse. Errors: `quota_exceeded`."""
        names = {(store.database_name, owner, key) for key in keys}
        new = names - self._admitted
        if not new:
            return
        try:
            QUOTAS.admit(store, owner, len(new), SHAPES_OF_OWNER)
        except BanyanError:
            # What waits already makes no claim longer.
            old = claims.waiting_among(store, [key for _, _, key in new])
            more = sum(1 for _, _, key in new if key not in old)
            if more:
                QUOTAS.admit(store, owner, more, SHAPES_OF_OWNER)
        if len(self._admitted) > REMEMBERED_MAX:
            self._admitted = set()
        self._admitted |= new


class Parts:
    """Where the parts begin in which very many shapes are looked at, in the order of their keys.

    Whoever makes shapes can choose where they stand, but not which part is drawn: each has the
    same chance.
    """

    def __init__(self) -> None:
        self._starts = [""]

    @property
    def are_many(self) -> bool:
        """Whether one look does not see all."""
        return len(self._starts) > 1

    def draw(self) -> str:
        """Behind which key the next look begins."""
        return random.choice(self._starts)  # noqa: S311 - not a secret

    def was_read(self, start: str, end: str | None) -> None:
        """All keys behind `start` up to `end`, or to the last one (None)."""
        before = [one for one in self._starts if one <= start]
        behind = [] if end is None else [end, *(one for one in self._starts if one > end)]
        self._starts = before + behind


SHAPES = Shapes()
