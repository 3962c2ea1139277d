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
    """Ids of tasks, each with the moment at which its claim was over, or will be at the latest."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._over: dict[ObjectId, float] = {}

    def __len__(self) -> int:
        return len(self._over)

    @contextmanager
    def choosing(self) -> Iterator[None]:
        """Nobody else picks meanwhile."""
        with self._lock:
            yield

    def is_gone(self, task_id: ObjectId, looked: float) -> bool:
        """Whether another claim has it, or has had it since the moment of the look."""
        return self._over.get(task_id, -inf) >= looked

    def pick(self, task_ids: Iterable[ObjectId]) -> None:
        """Within `choosing`: these are about to be written; `put_back` must follow."""
        self._over.update(dict.fromkeys(task_ids, monotonic() + _CLAIM_SECONDS_MAX))

    def put_back(self, task_ids: Iterable[ObjectId]) -> None:
        """The claim of these is over, whatever came of it."""
        now = monotonic()
        with self._lock:
            self._over.update(dict.fromkeys(task_ids, now))
            # In the order of their picking, so that the old ones stand first.
            while self._over:
                oldest = next(iter(self._over))
                if self._over[oldest] >= now - _LOOK_SECONDS_MAX:
                    break
                del self._over[oldest]


PICKED = Picked()
