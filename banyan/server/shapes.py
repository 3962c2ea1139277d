"""The kinds of request that tasks have: equal ones are told apart and looked at once.

A claim asks which shapes have tasks waiting and looks at those that fit, so it never
reads the tasks that do not. A shape never changes, so processes may remember them. Which
have tasks waiting changes all the time: that is remembered for a moment only, while claims get
what they want, and only a claim that gets all of it may rely on it. Where little waits, what is
remembered would be looked for in vain, and the database asked all the same.

A claim looks at the shapes of its worker's queues, and of each queue at `LOOKED_AT_MAX` of them at
the most. Where more wait, each looks at those that have come lately and at a part of the others,
drawn by chance, so that no task stays unseen; and upkeep lets those who wait look again.
"""

import random
from collections import Counter, OrderedDict
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import islice
from threading import Lock
from time import monotonic
from typing import Any

import orjson

from banyan.config import knobs
from banyan.domain.scheduling import span_of
from banyan.domain.shape_keys import queue_key, queue_key_in, shape_key
from banyan.errors import BanyanError
from banyan.server.quotas import QUOTAS, SHAPES_OF_OWNER
from banyan.server.store import claims
from banyan.server.store.mongo import Document, Store

REMEMBERED_MAX = 50_000
REMEMBERED_BYTES_MAX = 64 * 1024**2
LOOKED_AT_MAX = 5_000  # of one queue
LOOKED_AT_IN_ALL = 4 * LOOKED_AT_MAX
RANGES_MAX = 4  # for more queues it is first looked whether few shapes wait in all
FEW = 500
LATELY_MAX = 500  # of those that have come lately
QUEUES_MAX = 1_000  # of which it is remembered what waits there
OWNERS_MAX = 1_000  # of which it is remembered which shapes were let in
LOOKED_UP_MAX = 2_000  # unknown ones; their labels may be large
# So long a claim may overlook a new kind of task that another process has taken in.
WAITING_SECONDS = 0.05
# A new task may take so long from here to where others see it.
_STORED_WITHIN_SECONDS = 5.0
_SWEEP_SECONDS = 1.0
_LOOKED_FOR_SECONDS = 60.0  # who waits for work looks on for parts of queues as recent as this
_FIELDS = ("requested_resources", "queue", "labels")
_ENTRY_BYTES = 1_000  # in memory, without labels

# Where the first task of each shape stands in the order of claiming; the least comes first.
Head = tuple[int, int]
Heads = Mapping[str, Head]


def of_task(task: Mapping[str, Any]) -> str:
    """The key of a task's shape: of its request, queue and labels, and how long it may last.

    The last stands behind a colon, so that what ends in time is told without a look at tasks.
    """
    key, span = _key(task), span_of(task)
    return key if span is None else f"{key}:{span}"


def _key(task: Mapping[str, Any]) -> str:
    return _key_of(orjson.dumps([task["requested_resources"], task["queue"], task["labels"]]))


def most_of_queue(queues: int) -> int:
    """How many shapes a claim for so many queues looks at in each of them."""
    return min(LOOKED_AT_MAX, LOOKED_AT_IN_ALL // queues)


@lru_cache(maxsize=1000)
def _key_of(described: bytes) -> str:
    """Most tasks are like the one before; what is written otherwise has the same key."""
    return shape_key(*orjson.loads(described))


def _of_all(store: Store, ranges: Sequence[claims.Range]) -> list[claims.Part] | None:
    """The same for many queues by one look at the shapes of all; None where these are not few."""
    if len(ranges) <= RANGES_MAX:
        return None
    (part,) = claims.waiting_shapes(store, [claims.Range("", "", FEW)])
    if part.end is not None:
        return None
    heads: dict[str, dict[str, Head]] = {one.prefix: {} for one in ranges}
    for shape, head in part.heads.items():
        heads.get(queue_key_in(shape), {})[shape] = head
    return [claims.Part(heads[one.prefix], None) for one in ranges]


def _few_of(missing: Sequence[str]) -> list[str]:
    """Some, first of the queues that have fewest: else those that have most would hide them."""
    counts = Counter(map(queue_key_in, missing))
    drawn = random.sample(missing, len(missing))
    return sorted(drawn, key=lambda key: counts[queue_key_in(key)])[:LOOKED_UP_MAX]


class _Queue:
    """What this process knows of the shapes of one queue.

    until: so long `heads`, which the last look has found, are of use. enough: whether the last
    claims got their fill. come: of new tasks until when, and where the first stands; newest last.
    """

    def __init__(self) -> None:
        self.until = 0.0
        self.heads: Heads = {}
        self.enough = False
        self.come: dict[str, tuple[float, Head]] = {}
        self.parts = Parts()

    def lately(self, most: int) -> list[str]:
        """The newest of those that have come."""
        return list(islice(reversed(self.come.copy()), most))

    def note(self, shape: str, head: Head, time: float) -> None:
        """A task of this shape comes."""
        end, before = self.come.pop(shape, (0.0, head))  # the newest stand last
        first = min(head, before) if end > time else head
        self.come[shape] = (time + _STORED_WITHIN_SECONDS, first)

    def sweep(self, time: float) -> None:
        """Forget of what has come what is old, and what is too much."""
        for shape, (end, _) in list(self.come.items()):
            if end > time and len(self.come) <= LOOKED_AT_MAX:
                break
            self.come.pop(shape, None)


class Shapes:
    """The shapes that this process has seen, and which of them wait."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], Document] = {}
        self._known_bytes = 0
        self._queues: dict[tuple[str, str], _Queue] = {}  # by database and key of the queue
        self._lock = Lock()
        self._with_heads: dict[_Queue, None] = {}  # whose last look is the latest stands last
        self._sweep = 0.0  # when it is time
        self._unknown_left: dict[str, bool] = {}  # by database: whether the last look left some out
        # By database and owner, and of each by key; the newest stand last.
        self._admitted: OrderedDict[tuple[str, str], dict[str, None]] = OrderedDict()

    def waiting(self, store: Store, limits: Mapping[str, int]) -> Heads:
        """The shapes that available tasks have now, or a part of them: by queue, up to so many."""
        looks: list[tuple[_Queue, claims.Range]] = []
        for name, limit in limits.items():
            key = queue_key(name)
            queue = self._queue(store, key)
            also = queue.lately(LATELY_MAX) if queue.parts.are_many else ()
            looks.append((queue, claims.Range(key, queue.parts.draw(), limit, also)))
        ranges = [asked for _, asked in looks]
        found = _of_all(store, ranges) or claims.waiting_shapes(store, ranges)
        self._forget_heads()
        for (queue, asked), part in zip(looks, found, strict=True):
            queue.parts.was_read(asked.after, part.end)
            self._remember_heads(queue, part.heads)
        self._unknown_left[store.database_name] = False
        return {shape: head for part in found for shape, head in part.heads.items()}

    def _queue(self, store: Store, key: str) -> _Queue:
        """Those that nobody has asked for for longest are forgotten."""
        place = (store.database_name, key)
        with self._lock:
            queue = self._queues.pop(place, None) or _Queue()
            self._queues[place] = queue
            if len(self._queues) > QUEUES_MAX:
                del self._queues[next(iter(self._queues))]
        return queue

    def _remember_heads(self, queue: _Queue, heads: Heads) -> None:
        with self._lock:
            queue.heads, queue.until = heads, monotonic() + WAITING_SECONDS
            self._with_heads.pop(queue, None)
            self._with_heads[queue] = None

    def _forget_heads(self) -> None:
        """Those of the queues that were looked at a while ago."""
        with self._lock:
            while self._with_heads:
                queue = next(iter(self._with_heads))
                if queue.until >= monotonic():
                    break
                queue.heads = {}
                del self._with_heads[queue]

    def seen_waiting(self, store: Store, queues: Collection[str]) -> Heads:
        """The same as of a moment ago, and what came since; nothing if it is of little use."""
        heads: dict[str, Head] = {}
        time = monotonic()
        for name in queues:
            queue = self._queues.get((store.database_name, queue_key(name)))
            if queue is None or queue.until < time or not queue.enough:
                return {}
            heads |= queue.heads
            for key, (end, head) in islice(reversed(queue.come.copy().items()), LOOKED_AT_MAX):
                if end > time:
                    heads[key] = min(head, heads.get(key, head))
        return heads

    def was_enough(self, store: Store, enough: Mapping[str, bool]) -> None:
        """What the last claims found, by queue: as much as they wanted, or less."""
        for name, said in enough.items():
            queue = self._queues.get((store.database_name, queue_key(name)))
            if queue is not None:
                queue.enough = said

    def left_some_out(self, store: Store) -> bool:
        """Whether more shapes wait than one claim looks at, as far as this process knows."""
        lately = monotonic() - _LOOKED_FOR_SECONDS
        return self._unknown_left.get(store.database_name, False) or any(
            queue.parts.are_many and queue.until > lately
            for (database, _), queue in list(self._queues.items())
            if database == store.database_name
        )

    def note(self, store: Store, tasks: Sequence[Mapping[str, Any]]) -> None:
        """These tasks are about to be stored, or changed: their shapes may wait from now on."""
        time = monotonic()
        queues: dict[str, _Queue] = {}
        for task in tasks:
            key = queue_key_in(task["shape"])
            queue = queues.get(key) or queues.setdefault(key, self._queue(store, key))
            queue.note(task["shape"], (-task["priority"], task["seq"]), time)
        if time > self._sweep:
            self._sweep = time + _SWEEP_SECONDS
            for queue in list(self._queues.values()):
                queue.sweep(time)
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
                missing = _few_of(missing)
                self._unknown_left[store.database_name] = True
            # One that says otherwise now, whatever has become of it, must not speak for all others.
            told = claims.shapes_with(store, missing)
            found = {key: one for key, one in told.items() if key.partition(":")[0] == _key(one)}
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

    def admit(self, store: Store, owner: str, keys: Collection[str], by_task: bool = False) -> None:
        """Let an owner's tasks of these shapes in, or refuse. Errors: `quota_exceeded`.

        by_task: as `Quotas.admit` has it.
        """
        most = knobs().OWNER_OPEN_SHAPES_MAX
        place = (store.database_name, owner)
        admitted = self._admitted.get(place, {})
        new = [key for key in keys if key not in admitted] if most else []
        if not new:
            return
        try:
            QUOTAS.admit(store, owner, len(new), SHAPES_OF_OWNER, by_task)
        except BanyanError:
            # What waits already makes no claim longer.
            old = claims.waiting_among(store, new)
            more = sum(1 for key in new if key not in old)
            if more:
                QUOTAS.admit(store, owner, more, SHAPES_OF_OWNER, by_task)
        with self._lock:
            self._note_admitted(place, new, min(most, REMEMBERED_MAX))

    def admit_stored(self, store: Store, tasks: Iterable[Mapping[str, Any]]) -> None:
        """Let stored tasks of any owners have these shapes, or refuse. Errors: `quota_exceeded`."""
        keys: dict[str, dict[str, None]] = {}
        for task in tasks:
            keys.setdefault(task["owner"], {})[task["shape"]] = None
        for owner, of_owner in keys.items():
            self.admit(store, owner, of_owner)

    def _note_admitted(self, place: tuple[str, str], new: Sequence[str], most: int) -> None:
        """most: of one owner, so that those that have ended let in no more than that again."""
        admitted = self._admitted.setdefault(place, {})
        admitted.update(dict.fromkeys(new))
        for key in list(islice(admitted, max(0, len(admitted) - most))):
            del admitted[key]
        self._admitted.move_to_end(place)
        while (
            len(self._admitted) > OWNERS_MAX
            or sum(map(len, self._admitted.values())) > REMEMBERED_MAX
        ):
            self._admitted.popitem(last=False)


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
