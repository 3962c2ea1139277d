"""The kinds of request that tasks have: each is described once and then only named.

A claim asks which shapes have tasks waiting and looks at those that fit, so it never
reads the tasks that do not. A shape never changes, so processes may remember them. Which
have tasks waiting changes all the time: that is remembered for a moment only, while claims get
what they want, and only a claim that gets all of it may rely on it. Where little waits, what is
remembered would be looked for in vain, and the database asked all the same.
"""

from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache
from time import monotonic
from typing import Any

import orjson

from banyan.domain.resources import shape_key
from banyan.server.store import claims
from banyan.server.store.mongo import Document, Store

REMEMBERED_MAX = 50_000
# So long a claim may overlook a new kind of task that another process has taken in.
WAITING_SECONDS = 0.05
# A new task may take so long from here to where others see it.
_STORED_WITHIN_SECONDS = 5.0


def of_task(task: Mapping[str, Any]) -> str:
    """The key of a task's shape."""
    return _key_of(orjson.dumps([task["requested_resources"], task["queue"], task["labels"]]))


@lru_cache(maxsize=1000)
def _key_of(described: bytes) -> str:
    """Most tasks are like the one before; what is written otherwise has the same key."""
    return shape_key(*orjson.loads(described))


class Shapes:
    """The shapes that this process has seen; the collection `shapes` has them all."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], Document] = {}
        self._seen: dict[str, tuple[float, list[str]]] = {}  # by database: until when, which
        self._enough: dict[str, bool] = {}  # by database: whether the last claim got its fill
        self._come: dict[str, dict[str, float]] = {}  # by database: in new tasks, and until when

    def waiting(self, store: Store) -> list[str]:
        """The shapes that available tasks have now."""
        found = claims.waiting_shapes(store)
        self._seen[store.database_name] = (monotonic() + WAITING_SECONDS, found)
        return found

    def seen_waiting(self, store: Store) -> list[str]:
        """The same as of a moment ago, and what came since; nothing if it is of little use."""
        until, seen = self._seen.get(store.database_name, (0.0, []))
        time = monotonic()
        if until < time or not self._enough.get(store.database_name):
            return []
        come = self._come.get(store.database_name, {})
        return list({*seen, *(key for key, end in come.copy().items() if end > time)})

    def was_enough(self, store: Store, enough: bool) -> None:
        """What the last claim found: as much as it wanted, or less."""
        self._enough[store.database_name] = enough

    def describe(self, store: Store, tasks: Sequence[Mapping[str, Any]]) -> None:
        """See to it that the shapes of these tasks are stored, before the tasks are."""
        come = self._come.setdefault(store.database_name, {})
        if len(come) > REMEMBERED_MAX:
            come.clear()
        end = monotonic() + _STORED_WITHIN_SECONDS
        come.update({task["shape"]: end for task in tasks})
        new = {
            task["shape"]: task
            for task in tasks
            if (store.database_name, task["shape"]) not in self._known
        }
        if not new:
            return
        fields = ("requested_resources", "queue", "labels")
        shapes = {key: {name: task[name] for name in fields} for key, task in new.items()}
        claims.describe_shapes(store, shapes)
        self._remember(store, shapes)

    def look_up(self, store: Store, keys: Collection[str]) -> dict[str, Document]:
        """What these keys stand for: request, queue and labels."""
        known = {key: self._known.get((store.database_name, key)) for key in keys}
        missing = [key for key, shape in known.items() if shape is None]
        if missing:
            self._remember(store, claims.shapes_with(store, missing))
        remembered = {key: self._known.get((store.database_name, key)) for key in keys}
        return {key: shape for key, shape in remembered.items() if shape is not None}

    def _remember(self, store: Store, shapes: Mapping[str, Document]) -> None:
        if len(self._known) > REMEMBERED_MAX:
            self._known.clear()
        self._known.update({(store.database_name, key): shape for key, shape in shapes.items()})


SHAPES = Shapes()
