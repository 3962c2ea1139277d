"""Walks along edges, level by level and within bounds: people make graphs as large as they like.

Each level is one command. Whoever walks is told where it would take too many, and says so.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from bson import ObjectId
from pymongo.client_session import ClientSession

from banyan.domain.continuations import CHILD_LISTS, PARENT_LISTS
from banyan.domain.states import State
from banyan.errors import BanyanError
from banyan.server.store.mongo import Document, Store

TASKS_MAX = 10_000
LEVELS_MAX = 1_000
NAMES_MAX = 200_000  # ids in the lists of all of them
READ_TOGETHER_MAX = 1_000_000  # ids in the lists of tasks that are changed together; one has fewer
BOUNDS_TOLD = f"{TASKS_MAX:,} tasks, {LEVELS_MAX:,} levels or {NAMES_MAX:,} edges"
_LISTS = (*CHILD_LISTS, *PARENT_LISTS, "open_parents")
_TASKS_AT_ONCE = 500  # one may name thousands of others
_WAITING_FIELDS = ["state", "owner", "open_parents", *CHILD_LISTS]
# What a level costs beside its tasks: a walk goes where the fewest of both are.
_LEVEL_COSTS_TASKS = 50

Pair = tuple[ObjectId, ObjectId]


class TooFarError(Exception):
    """A walk has met more than it may look at; what was read until then is read in vain."""


def bounded(found: Iterable[Document]) -> Iterator[Document]:
    """Tasks as they are read. Errors: `too_large` where their lists are very long together."""
    left = READ_TOGETHER_MAX
    for task in found:
        left -= sum(len(task.get(name) or ()) for name in _LISTS)
        if left < 0:
            message = f"with these tasks hang more than {READ_TOGETHER_MAX} others together"
            raise BanyanError("too_large", f"{message}: name fewer of them in a request")
        yield task


class Walker:
    """Reads tasks level by level. fields: of each; scope: of the caller."""

    def __init__(
        self,
        store: Store,
        fields: Sequence[str] | Mapping[str, Any],
        scope: Mapping[str, Any] | None = None,
        session: ClientSession | None = None,
        tasks_max: int | None = None,
    ) -> None:
        self._store = store
        self._fields = fields
        self._scope = scope or {}
        self._session = session
        self._tasks = TASKS_MAX if tasks_max is None else tasks_max
        self._levels = LEVELS_MAX
        self._names = NAMES_MAX

    def level(self, query: Mapping[str, Any]) -> list[Document]:
        """The tasks that match. Errors: TooFarError."""
        self._levels -= 1
        if self._levels < 0:
            raise TooFarError
        found: list[Document] = []
        cursor = self._store["tasks"].find(
            {**query, **self._scope}, self._fields, batch_size=_TASKS_AT_ONCE, session=self._session
        )
        for task in cursor:
            self._tasks -= 1
            self._names -= sum(len(task.get(name) or ()) for name in _LISTS)
            if self._tasks < 0 or self._names < 0:
                raise TooFarError
            found.append(task)
        return found

    def named(self, ids: Collection[ObjectId]) -> list[Document]:
        """The tasks with these ids. Errors: TooFarError, before it asks for too many."""
        if len(ids) > self._tasks:
            raise TooFarError
        return self.level({"_id": {"$in": list(ids)}}) if ids else []


class Waits:
    """Who waits for whom around some tasks: the inactive ones below them, or those above.

    pairs: (parent, child); owners: whose tasks were looked at, those at the rim too.
    """

    def __init__(self) -> None:
        self.pairs: set[Pair] = set()
        self.owners: set[str] = set()


class _Side(Waits):
    """One direction of the walk. Of tasks that are not inactive nothing waits for itself."""

    def __init__(self, start: Iterable[ObjectId], downwards: bool) -> None:
        super().__init__()
        self.next = set(start)
        self._seen: set[ObjectId] = set()
        self._downwards = downwards
        self._levels = 0

    @property
    def cost(self) -> int:
        return len(self._seen) + len(self.next) + self._levels * _LEVEL_COSTS_TASKS

    def step(self, walker: Walker) -> None:
        tasks = walker.named(self.next)
        self._seen |= self.next
        self._levels += 1
        named: set[ObjectId] = set()
        for task in tasks:
            self.owners.add(task.get("owner", ""))
            if task["state"] == State.INACTIVE:
                others = {one for name in self._lists for one in task.get(name) or ()}
                self.pairs |= {self._pair(task["_id"], other) for other in others}
                named |= others
        self.next = named - self._seen

    @property
    def _lists(self) -> Sequence[str]:
        return CHILD_LISTS if self._downwards else ("open_parents",)

    def _pair(self, task: ObjectId, other: ObjectId) -> Pair:
        return (task, other) if self._downwards else (other, task)


def waits_around(
    store: Store, parents: Iterable[ObjectId], children: Iterable[ObjectId], session: ClientSession
) -> Waits:
    """All that new edges from these parents to these children might close a cycle with.

    A cycle leads down from one of the children and up from one of the parents, and consists of
    inactive tasks: what waits for itself never started. So either direction will do, and the
    walk ends where the first of them does: most often at once. Errors: TooFarError.
    """
    walker = Walker(store, _WAITING_FIELDS, session=session)
    below, above = _Side(children, downwards=True), _Side(parents, downwards=False)
    while below.next and above.next:
        min(below, above, key=lambda side: side.cost).step(walker)
    done = above if below.next else below
    done.owners |= below.owners | above.owners
    return done
