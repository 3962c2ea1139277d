"""Stored tallies of ended attempts, each attempt in them exactly once; and what is not in them yet.

Upkeep calls `advance`, the verbs `series`. Attempts are taken in the order of their ids, so of
their claims: all below `upto` are tallied, but for the `open` ones, which had not ended when
their turn came. Both stand in one document, which is changed in the same transaction as the
tallies: killed anywhere, done twice, or by two servers at once, each attempt is added once. It
needs no index of its own on attempts and no write at a claim or an end.

What is tallied stays when attempts are removed: the past does not change with retention.
"""

import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from bson import ObjectId
from bson.errors import BSONError
from pymongo import UpdateOne
from pymongo.client_session import ClientSession
from pymongo.errors import OperationFailure

from banyan.domain.states import Outcome
from banyan.domain.tallies import RESOURCES, WIDTHS, Tally, Window, add, floor, rebased
from banyan.server.store import measured, sizes
from banyan.server.store.measured import Key
from banyan.server.store.mongo import BATCH, Document, Store, now

# A claim makes its attempt's id first and writes it then: until so long after, one with a
# smaller id may come. One that comes later still is found while a worker holds it.
SETTLED_SECONDS = 10.0
ATTEMPTS_AT_ONCE = 5_000
TALLIES_AT_ONCE = 4_000  # that one transaction changes
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


logger = logging.getLogger(__name__)


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

    @property
    def query(self) -> Document:
        """The query for these attempts."""
        asked = {"owner": self.owners, "queue": self.queues}
        return {name: {"$in": sorted(some)} for name, some in asked.items() if some is not None}


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


def advance(store: Store, until: datetime | None = None) -> bool:
    """Tally what has ended since, a bounded part of it; whether there is more: call again then.

    until: attempts claimed before; left out: a little before now.
    """
    known = state(store)
    time = until or now() - timedelta(seconds=SETTLED_SECONDS)
    # The ends first, then who holds what: an end counts once no worker holds the attempt any
    # more, as only then nobody says anything else of it.
    waiting = list(store["attempts"].find({"_id": {"$in": list(known.open)}}, _LOOKED_AT))
    query = {"_id": {"$gte": known.upto, "$lt": ObjectId.from_datetime(time)}}
    found = store["attempts"].find(query, _LOOKED_AT, batch_size=BATCH).sort("_id", 1)
    following = list(found.limit(ATTEMPTS_AT_ONCE))
    held = _held(store)
    # What was left open comes first: so never more is left than what is taken at once.
    due = [one for one in waiting if _has_ended(one) and one["_id"] not in held]
    taken = following[: max(0, ATTEMPTS_AT_ONCE - len(due))]
    looked_at = [*waiting, *taken]
    ended = [one["_id"] for one in looked_at if _has_ended(one) and one["_id"] not in held]
    missed = {one for one in held if one < known.upto} - {one["_id"] for one in looked_at}
    left = {one["_id"] for one in looked_at if _stays_open(one, held)} | missed
    upto = _next(taken[-1]["_id"]) if taken else known.upto
    if not ended and upto == known.upto and left == set(known.open):
        return False
    count = _write(store, known, upto, left, sorted(ended))
    more_follow = len(taken) < len(following) or len(following) == ATTEMPTS_AT_ONCE
    return count < len(ended) or more_follow


_LOOKED_AT = ["time_terminated", "_updated"]


def _held(store: Store) -> set[ObjectId]:
    query = {"state": {"$in": list(_HELD)}}
    found = store["tasks"].find(query, {"holder.attempt": 1, "_id": 0}, batch_size=BATCH)
    return {one["holder"]["attempt"] for one in found.hint("held_of_owner") if "holder" in one}


def _stays_open(attempt: Document, held: Collection[ObjectId]) -> bool:
    if attempt["_id"] in held:
        return True
    return not _has_ended(attempt) and now() - attempt["_updated"] < _GIVEN_UP_AFTER


def _has_ended(attempt: Document) -> bool:
    """A record that a late report has made says nothing of its end."""
    return attempt.get("time_terminated") is not None


def _next(attempt_id: ObjectId) -> ObjectId:
    """The least id above."""
    return ObjectId((int(str(attempt_id), 16) + 1).to_bytes(12, "big"))


def _write(
    store: Store, known: State, upto: ObjectId, left: set[ObjectId], ended: list[ObjectId]
) -> int:
    """Tally as many of the ended as one transaction takes; how many: the others are left open.

    Attempts of as many queues and minutes change as many tallies, which a transaction has in the
    database's cache until it ends. One that is refused for its size is tried with fewer. So is one
    with an attempt that makes no sense, until that one is alone and is left out.
    """
    count, most = min(len(ended), ATTEMPTS_AT_ONCE), TALLIES_AT_ONCE
    while True:
        part, rest = ended[:count], ended[count:]
        after = State(known.version + 1, upto, tuple(sorted({*left, *rest})))
        try:
            updates = _updates(measured.by_minute(store, {"_id": {"$in": part}})) if part else []
            if len(updates) > most and count > 1:
                count = max(1, count * most // len(updates))
                continue
            _write_together(store, known, after, updates)
        except OperationFailure as error:
            if count <= 1 or not sizes.is_too_large(error):
                raise
            most, count = max(1, most // 2), count // 2
        except _NONSENSE as error:
            if count > 1:
                count //= 2
                continue
            logger.error("attempt %s is in no tally: %s", part[0], error)
            _write_together(store, known, after, [])
            return count
        else:
            return count


# What comes of a number or a time that there cannot be, as an earlier version may have stored it.
_NONSENSE = (OverflowError, ValueError, BSONError)


def _write_together(store: Store, known: State, after: State, updates: Sequence[UpdateOne]) -> None:
    """Together or not at all; nothing where another server was faster."""
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
    # As floats: whole numbers that are added again and again end at 64 bits.
    sums = {name: float(value) for name, value in tally.items() if name not in most and value}
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


def of_owners(store: Store, owners: Sequence[str], window: Window) -> dict[str, Tallied]:
    """What each of these owners has used: tallies of all of the window, and of all after it.

    Added up by the database: what comes back grows with the owners alone, and with what is in no
    tally yet. Only what `domain.used` and `domain.words` read is in them.
    """
    ranges = [
        {"_id": {"$gte": _id(window.width, one, None, window.start),
                 "$lte": _id(window.width, one, None, datetime.max)}}
        for one in owners
    ]  # fmt: skip
    while True:
        known = state(store)
        found: dict[str, list[tuple[datetime, Tally]]] = {one: [] for one in owners}
        for row in store[_COLLECTION].aggregate(_summed(ranges, window), batchSize=BATCH):
            of = row.pop("_id")
            found[of["o"]].append((of["t"], row))
        query = {"$and": [known.untallied, {"owner": {"$in": list(owners)}}]}
        fresh = measured.by_minute(store, query)
        if state(store).version == known.version:
            break
    running: dict[str, list[Tally]] = {one: [] for one in owners}
    for key, tally in fresh.items():
        found[key.owner].append((key.time, tally))
        running[key.owner].append(tally)
    return {one: Tallied(found[one], measured.running(running[one])) for one in owners}


def _summed(ranges: Sequence[Document], window: Window) -> list[Document]:
    """Tallies -> two of each owner: of what began in the window, and of what began after it."""
    base = {"$cond": [{"$lt": ["$_id.t", window.end]}, window.start, window.end]}
    later = {"$divide": [{"$subtract": ["$_id.t", base]}, 1000]}  # seconds
    sums: Document = {name: {"$sum": f"${name}"} for name in _USAGE}
    for one in RESOURCES:
        delta = {"$ifNull": [f"${one}/delta", 0]}
        moved = {"$multiply": [delta, later]}  # as `rebased`
        sums[f"{one}/moment"] = {"$sum": {"$add": [{"$ifNull": [f"${one}/moment", 0]}, moved]}}
    return [
        {"$match": {"$or": list(ranges)}},
        {"$group": {"_id": {"o": "$_id.o", "t": base}, **sums}},
    ]


_WORDS = (*(str(one) for one in Outcome), "cancelled")
_USAGE = (
    "cpu",
    *(f"ended/{word}" for word in _WORDS),
    *(f"run/{word}/sum" for word in _WORDS),
    *(f"{one}/delta" for one in RESOURCES),
)


def of_attempts(store: Store, query: Mapping[str, Any], whose: Whose) -> Tallied:
    """The same, worked out of attempts."""
    minutes = measured.by_minute(store, {"$and": [dict(query), whose.query]}, apart=False)
    own = [(key.time, tally) for key, tally in minutes.items()]
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
