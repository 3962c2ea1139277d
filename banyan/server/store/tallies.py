"""Stored tallies of ended attempts, each attempt in them exactly once; and what is not in them yet.

Upkeep calls `advance`, the verbs `series`. Attempts are taken in the order of their ids, so of
their claims: all below `upto` are tallied, but for the `open` ones, which had not ended when
their turn came. Both stand in one document, which is changed in the same transaction as the
tallies: killed anywhere, done twice, or by two servers at once, each attempt is added once. It
needs no index of its own on attempts and no write at a claim or an end.

What is tallied stays when attempts are removed: the past does not change with retention.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from bson import ObjectId
from pymongo import UpdateOne
from pymongo.client_session import ClientSession

from banyan.domain.tallies import WIDTHS, Tally, add, floor, rebased
from banyan.server.store import measured
from banyan.server.store.measured import Key
from banyan.server.store.mongo import BATCH, Document, Store, now

# A claim makes its attempt's id first and writes it then: until so long after, one with a
# smaller id may come. One that comes later still is found while a worker holds it.
SETTLED_SECONDS = 10.0
ATTEMPTS_AT_ONCE = 5_000
# For so long tallies of each width are kept after they were begun.
KEPT = dict(zip(WIDTHS, (timedelta(days=2), timedelta(days=14), timedelta(days=400)), strict=True))
ALL_TIME = 0  # the width of the tally of everything, which is kept for ever
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_COLLECTION = "tallies"
_STATE = "state"
_FIRST = ObjectId("0" * 24)
_HELD = ("running", "pending_cancellation")
# An attempt that nobody holds and whose end was not written, as a server was killed there.
_GIVEN_UP_AFTER = timedelta(minutes=10)


@dataclass(frozen=True)
class State:
    """How far it is. `version` counts the changes."""

    version: int
    upto: ObjectId
    open: tuple[ObjectId, ...]

    @property
    def untallied(self) -> Document:
        """The query for attempts that are in no tally yet."""
        return {"$or": [{"_id": {"$gte": self.upto}}, {"_id": {"$in": list(self.open)}}]}


@dataclass(frozen=True)
class Whose:
    """Attempts of these owners in these queues; None: of all."""

    owners: frozenset[str] | None = None
    queues: frozenset[str] | None = None

    def has(self, key: Key) -> bool:
        """Whether they are among them."""
        return (self.owners is None or key.owner in self.owners) and (
            self.queues is None or key.queue in self.queues
        )


def ensure(store: Store) -> None:
    """See to it that there is a state; safe to call again."""
    first = {"version": 0, "upto": _FIRST, "open": []}
    store[_COLLECTION].update_one({"_id": _STATE}, {"$setOnInsert": first}, upsert=True)


def state(store: Store) -> State:
    """How far it is now."""
    found = store[_COLLECTION].find_one({"_id": _STATE}) or {}
    upto = found.get("upto", _FIRST)
    return State(found.get("version", 0), upto, tuple(found.get("open", ())))


# --- Writing ----------------------------------------------------------------------------


def advance(store: Store, until: datetime | None = None) -> int:
    """Tally what has ended since; how many attempts that were. More may be left: call again.

    until: attempts claimed before; left out: a little before now.
    """
    known = state(store)
    time = until or now() - timedelta(seconds=SETTLED_SECONDS)
    following = list(
        store["attempts"]
        .find({"_id": {"$gte": known.upto, "$lt": ObjectId.from_datetime(time)}}, _LOOKED_AT)
        .sort("_id", 1)
        .limit(ATTEMPTS_AT_ONCE)
        .batch_size(BATCH)
    )
    # The ends first, then who holds what: an end counts once no worker holds the attempt any
    # more, as only then nobody says anything else of it.
    waiting = list(store["attempts"].find({"_id": {"$in": list(known.open)}}, _LOOKED_AT))
    held = _held(store)
    upto = following[-1]["_id"] if following else None
    looked_at = [*following, *waiting]
    ended = [one["_id"] for one in looked_at if one["time_terminated"] and one["_id"] not in held]
    missed = {one for one in held if one < known.upto} - {one["_id"] for one in looked_at}
    left = [one["_id"] for one in looked_at if _stays_open(one, held)]
    after = State(
        known.version + 1, _next(upto) if upto else known.upto, tuple(sorted({*left, *missed}))
    )
    if ended or after.upto != known.upto or after.open != known.open:
        _write(store, known, after, ended)
    return len(following) if len(following) == ATTEMPTS_AT_ONCE else 0


_LOOKED_AT = ["time_terminated", "_updated"]


def _held(store: Store) -> set[ObjectId]:
    query = {"state": {"$in": list(_HELD)}}
    found = store["tasks"].find(query, {"holder.attempt": 1, "_id": 0}, batch_size=BATCH)
    return {one["holder"]["attempt"] for one in found.hint("held_by") if "holder" in one}


def _stays_open(attempt: Document, held: Collection[ObjectId]) -> bool:
    if attempt["_id"] in held:
        return True
    return not attempt["time_terminated"] and now() - attempt["_updated"] < _GIVEN_UP_AFTER


def _next(attempt_id: ObjectId) -> ObjectId:
    """The least id above."""
    return ObjectId((int(str(attempt_id), 16) + 1).to_bytes(12, "big"))


def _write(store: Store, known: State, after: State, ended: list[ObjectId]) -> None:
    """Together or not at all; nothing where another server was faster."""
    updates = _updates(measured.by_minute(store, {"_id": {"$in": ended}})) if ended else []
    changed = {"version": after.version, "upto": after.upto, "open": list(after.open)}

    def work(session: ClientSession) -> None:
        guard = {"_id": _STATE, "version": known.version}
        done = store[_COLLECTION].update_one(guard, {"$set": changed}, session=session)
        if done.matched_count and updates:
            store[_COLLECTION].bulk_write(updates, ordered=False, session=session)

    store.transaction(work)


def _updates(minutes: Mapping[Key, Tally]) -> list[UpdateOne]:
    """What to add to which tallies: of each width; of each owner and queue, and of all."""
    added: dict[tuple[int, str | None, str | None, datetime], Tally] = {}
    for key, tally in minutes.items():
        for width in (*WIDTHS, ALL_TIME):
            begin = floor(key.time, width) if width else EPOCH
            moved = rebased(tally, (key.time - begin).total_seconds())
            for owner in (key.owner, None) if width else (None,):
                for queue in (key.queue, None) if width else (None,):
                    add(added.setdefault((width, owner, queue, begin), {}), moved)
    return [_update(*place, tally) for place, tally in added.items()]


def _update(
    width: int, owner: str | None, queue: str | None, begin: datetime, tally: Tally
) -> UpdateOne:
    most = {name: value for name, value in tally.items() if name.endswith("/max")}
    sums = {name: value for name, value in tally.items() if name not in most and value}
    update: Document = {"$inc": sums} if sums else {}
    if most:
        update["$max"] = most
    if width:
        update["$setOnInsert"] = {"until": now() + KEPT[width]}
    return UpdateOne({"_id": _id(width, owner, queue, begin)}, update, upsert=True)


def _id(width: int, owner: str | None, queue: str | None, time: datetime) -> Document:
    """Tallies of one series follow one another in the index that every collection has."""
    return {"w": width, "o": owner, "q": queue, "t": time}


# --- Reading ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Tallied:
    """Tallies by when they begin, and what is in use until further notice."""

    series: list[tuple[datetime, Tally]]
    running: Tally


def series(store: Store, whose: Whose, width: int, start: datetime) -> Tallied:
    """All tallies of a width that begin at `start` or later, those of yet untallied attempts too.

    ALL_TIME as the width: of all attempts that there ever were.
    """
    while True:
        known = state(store)
        stored = list(_stored(store, whose, width, start))
        fresh = of_attempts(store, known.untallied, whose)
        if state(store).version == known.version:  # else some would be counted twice, or not
            return replace(fresh, series=[*stored, *fresh.series])


def of_attempts(store: Store, query: Mapping[str, Any], whose: Whose) -> Tallied:
    """The same, worked out of attempts."""
    narrowed = {} if whose.owners is None else {"owner": {"$in": sorted(whose.owners)}}
    minutes = measured.by_minute(store, {"$and": [dict(query), narrowed]})
    own = [(key.time, tally) for key, tally in minutes.items() if whose.has(key)]
    # What has ended is in use no more, whatever its clock says: its deltas make nothing.
    return Tallied(own, measured.running(tally for _, tally in own))


def tallied(store: Store) -> Tally:
    """All that was ever tallied: it only grows, also while attempts are removed."""
    found = store[_COLLECTION].find_one({"_id": _id(ALL_TIME, None, None, EPOCH)})
    return _numbers(found) if found else {}


def _stored(
    store: Store, whose: Whose, width: int, start: datetime
) -> Iterable[tuple[datetime, Tally]]:
    for owner in [None] if whose.owners is None else sorted(whose.owners):
        for queue in [None] if whose.queues is None else sorted(whose.queues):
            least, most = (_id(width, owner, queue, time) for time in (start, datetime.max))
            query = {"_id": {"$gte": least, "$lte": most}}
            for found in store[_COLLECTION].find(query, batch_size=BATCH):
                yield found["_id"]["t"], _numbers(found)


def _numbers(found: Document) -> Tally:
    return {name: value for name, value in found.items() if name not in ("_id", "until")}
