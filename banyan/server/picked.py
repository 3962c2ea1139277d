"""Tasks that claims of this process are about to write: its other claims look past them.

Called by the verb `claim`. It spares lost races, of which a hundred workers that claim at once
have many, and decides nothing: what a claim gets, its compare-and-set says.
"""

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from math import inf
from time import monotonic

from bson import ObjectId

# A look at the database is over long before; until then it may have seen what is gone by now.
_LOOK_SECONDS_MAX = 1.0
# A claim that ended without a word hides its tasks for so long.
_CLAIM_SECONDS_MAX = 10.0


class Picked:
    """Tasks whose claims are in work, and those whose claims were over a moment ago."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._in_work: dict[ObjectId, float] = {}  # until when at most
        self._over: dict[ObjectId, float] = {}  # since when

    def __len__(self) -> int:
        """How many are in work."""
        return len(self._in_work)

    @contextmanager
    def choosing(self) -> Iterator[None]:
        """Nobody else picks meanwhile."""
        with self._lock:
            yield

    def is_gone(self, task_id: ObjectId, looked: float) -> bool:
        """Whether another claim has it, or has had it since the moment of the look."""
        return self._in_work.get(task_id, -inf) > looked or self._over.get(task_id, -inf) >= looked

    def pick(self, task_ids: Iterable[ObjectId]) -> None:
        """Within `choosing`: these are about to be written; `put_back` must follow."""
        self._in_work.update(dict.fromkeys(task_ids, monotonic() + _CLAIM_SECONDS_MAX))

    def put_back(self, task_ids: Iterable[ObjectId]) -> None:
        """The claim of these is over, whatever came of it."""
        now = monotonic()
        with self._lock:
            for task_id in task_ids:
                self._in_work.pop(task_id, None)
                self._over.pop(task_id, None)  # so that the last stand last
                self._over[task_id] = now
            _forget(self._in_work, now)
            _forget(self._over, now - _LOOK_SECONDS_MAX)


def _forget(moments: dict[ObjectId, float], before: float) -> None:
    """Drop the first ones, which are the oldest."""
    while moments and moments[oldest := next(iter(moments))] < before:
        del moments[oldest]


PICKED = Picked()
