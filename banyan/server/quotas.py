"""How much one owner may have: counted at times, and added up in between.

An ordinary submission asks the database nothing for this. Each server process remembers what its
last count has found and what it has let in since; upkeep counts again, soon after somebody has
begun to submit and then at times, for a share of the time at the most. So what several processes
let in between two of their counts may pass a limit a little; nobody passes it for long, and there
is no counter that could leak.

Running tasks submit for their owner, by tokens that their workers have, too. They take up the
first part of each limit only: whatever a worker does with them, the rest is the account's own.
"""

import math
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from banyan.config import knobs
from banyan.errors import BanyanError
from banyan.server.store import holdings
from banyan.server.store.mongo import Store

# A count is good for so long; longer where it took long, as it may take a share of the time only.
FRESH_SECONDS = 30.0
_FRESH_FOR = 200  # times what the count took
_SLACK = 100  # without a good count, let in one part of so many, until upkeep has counted
# Before somebody is refused it is counted again, but not more often than this.
PAUSE_SECONDS = 1.0
_PAUSE_FOR = 20
# One part of so many of each limit is what running tasks may fill up.
OF_TASKS = 2


class Limit(NamedTuple):
    """One of the things that are limited.

    knob: where its value is set. counted: the database's count of what an owner has, up to a
    number. what: what that is, in words. remedy: what to do where there is too much. dear: its
    count reads documents, and is not made for those who have let in little.
    """

    name: str
    knob: str
    counted: Callable[[Store, str, int], int]
    what: str
    remedy: str
    dear: bool = False


OPEN_TASKS = (
    Limit(
        "open_tasks",
        "OWNER_OPEN_TASKS_MAX",
        holdings.open_tasks,
        "tasks that have not ended",
        "wait until some have ended, or cancel them",
    ),
)
TASKS = (
    *OPEN_TASKS,
    Limit(
        "tasks",
        "OWNER_TASKS_MAX",
        holdings.stored_tasks,
        "stored tasks",
        "forget some that have ended, or keep them for a shorter time",
    ),
)
WORKERS = (
    Limit(
        "workers",
        "ACCOUNT_WORKERS_MAX",
        holdings.workers,
        "registered workers",
        "end some, or let an operator remove them",
    ),
)
SHAPES_OF_OWNER = (
    Limit(
        "open_shapes",
        "OWNER_OPEN_SHAPES_MAX",
        holdings.open_shapes,
        "different requests (resources, queue, labels) among the tasks that have not ended",
        "round what tasks ask for, or wait until some have ended",
        dear=True,
    ),
)
_ALL = (*TASKS, *WORKERS, *SHAPES_OF_OWNER)


@dataclass
class _Count:
    """What was counted, when, for how long; and what this process has let in since."""

    number: int
    time: float
    seconds: float
    added: int = 0

    @property
    def used(self) -> int:
        return self.number + self.added

    def is_older(self, seconds: float, times: float) -> bool:
        """Than so many seconds, and than so many times what it took."""
        return time.monotonic() - self.time > max(seconds, times * self.seconds)


class Quotas:
    """What this process knows of how much its callers have, by database, owner and limit."""

    def __init__(self) -> None:
        self._counts: dict[tuple[str, str, str], _Count] = {}
        self._lock = threading.Lock()

    def admit(
        self,
        store: Store,
        owner: str,
        asked: int,
        limits: Sequence[Limit] = TASKS,
        by_task: bool = False,
    ) -> None:
        """Let so many more in, or refuse. Errors: `quota_exceeded`.

        by_task: a running task of the owner's asks, and not its account.
        """
        in_force = [limit for limit in limits if getattr(knobs(), limit.knob)]
        counts = [self._with_room(store, owner, asked, limit, by_task) for limit in in_force]
        with self._lock:
            for count in counts:
                count.added += asked

    def _with_room(
        self, store: Store, owner: str, asked: int, limit: Limit, by_task: bool
    ) -> _Count:
        whole: int = getattr(knobs(), limit.knob)
        most = whole // OF_TASKS if by_task else whole
        key = (store.database_name, owner, limit.name)
        count = self._counts.setdefault(key, _Count(0, -math.inf, 0.0))
        if _has_to_count(count, asked, most):
            count = self._recount(store, owner, limit, whole)
        if count.used + asked > most:
            own = f"running tasks fill up one part in {OF_TASKS}, the rest is its account's; "
            remedy = f"{limit.remedy}; {own if by_task else ''}an operator may raise {limit.knob}"
            raise exceeded(limit.name, most, count.used, asked, limit.what, remedy)
        return count

    def refresh(self, store: Store) -> None:
        """Count again for those who have submitted since their last count; forget the others."""
        for (database, owner, name), count in list(self._counts.items()):
            if database != store.database_name or not count.is_older(FRESH_SECONDS, _FRESH_FOR):
                continue
            limit = next(one for one in _ALL if one.name == name)
            most = getattr(knobs(), limit.knob)
            if limit.dear and count.used <= most // _SLACK:
                continue
            if count.added:
                self._recount(store, owner, limit, most)
            else:
                with self._lock:
                    self._counts.pop((database, owner, name), None)

    def _recount(self, store: Store, owner: str, limit: Limit, most: int) -> _Count:
        key = (store.database_name, owner, limit.name)
        before, began = self._counts.get(key), time.monotonic()
        added = before.added if before else 0
        number = limit.counted(store, owner, most + 1)
        count = _Count(number, time.monotonic(), time.monotonic() - began)
        with self._lock:
            if before:  # what came in meanwhile may have been counted, or not
                count.added = before.added - added
            self._counts[key] = count
        return count

    def forget(self) -> None:
        """Count everything anew."""
        with self._lock:
            self._counts.clear()


def _has_to_count(count: _Count, asked: int, most: int) -> bool:
    """Whether a submission waits for a new count: it would be refused, or is a large one."""
    if count.used + asked > most:
        return count.is_older(PAUSE_SECONDS, _PAUSE_FOR)
    large = count.added + asked > most // _SLACK
    return large and count.is_older(2 * FRESH_SECONDS, 2 * _FRESH_FOR)


def exceeded(name: str, value: int, used: int, asked: int, what: str, remedy: str) -> BanyanError:
    """The refusal, with its numbers for programs as well."""
    message = f"{used:,} {what}, and {asked:,} more, would pass the limit of {value:,}: {remedy}"
    extra = {"limit": name, "value": value, "used": used, "asked": asked}
    return BanyanError("quota_exceeded", f"{message}; nothing was stored", extra=extra)


QUOTAS = Quotas()
