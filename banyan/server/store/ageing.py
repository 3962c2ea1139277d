"""What has grown old, a little at a time: tasks, output, samples, workers that are gone.

Called by upkeep, which decides what goes. Nothing here has an index of its own on the way
of a task but for those with a time of their own: an id tells when its task was made, and no
task is over its time before that.
"""

from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from bson import ObjectId
from pymongo import ASCENDING

from banyan.server.store.attempts import LISTS
from banyan.server.store.forgetting import FIELDS
from banyan.server.store.logs import STORED
from banyan.server.store.mongo import Document, Store, new_etag, now
from banyan.server.store.workers import GONE

# A client may have chosen ids whose time has not come: they are looked at, too.
_AHEAD = timedelta(days=1)
_FIRST = datetime(1970, 1, 1, tzinfo=UTC)
_SAMPLES = ("memory_usage", "cpu_utilization", "gpu_usage")
_EVERYTHING: Mapping[str, Any] = {}


def made_before(milliseconds: int) -> Document | None:
    """The filter for what was made so long ago; None where that was before any id."""
    time = _ago(milliseconds)
    return None if time is None else {"_id": {"$lt": ObjectId.from_datetime(time)}}


def _ago(milliseconds: int) -> datetime | None:
    try:
        return max(now() - timedelta(milliseconds=milliseconds), _FIRST)
    except OverflowError:
        return None


def made_ahead() -> Document:
    """The filter for what has an id from the future."""
    return {"_id": {"$gt": ObjectId.from_datetime(now() + _AHEAD)}}


def own_times(store: Store) -> list[int]:
    """The times of their own that tasks have, as they are marked: one index seek each."""
    return list(store["tasks"].distinct("forget_after", {"forget_after": {"$gte": 0}}))


def tasks_in_order(
    store: Store, range_: Mapping[str, Any], after: ObjectId | None, limit: int
) -> list[Document]:
    """The next tasks of a range by their ids, whatever state they are in."""
    query = _after(range_, after)
    return list(store["tasks"].find(query, FIELDS).sort("_id", ASCENDING).limit(limit))


def _after(range_: Mapping[str, Any], after: ObjectId | None) -> Document:
    if after is None:
        return dict(range_)
    return {**range_, "_id": {**range_.get("_id", {}), "$gt": after}}


# --- Output ------------------------------------------------------------------------------


def logs_bytes(store: Store) -> int:
    """How much output is kept, of all attempts."""
    stats = store["log_chunks"].aggregate([{"$collStats": {"storageStats": {}}}])
    return int(next(iter(stats))["storageStats"]["size"])


def attempts_with_output(store: Store, after: ObjectId | None, limit: int) -> list[ObjectId]:
    """The next attempts that have output, the oldest first; read from the index alone."""
    query = _EVERYTHING if after is None else {"attempt": {"$gt": after}}
    found = store["log_chunks"].find(query, {"attempt": 1, "_id": 0})
    found = found.sort([("attempt", ASCENDING), ("offset", ASCENDING)]).limit(limit)
    return list(dict.fromkeys(chunk["attempt"] for chunk in found))


RECORD_BYTES = 8192  # of an attempt's record; beyond that it is messages and samples
END = ObjectId("f" * 24)
CHUNK_BYTES = 107  # a chunk of output without its text, as BSON


class OutputOf(NamedTuple):
    """How many bytes the output of an attempt takes, whose it is, and whether it has ended."""

    attempt: ObjectId
    owner: str
    size: int
    ended: bool


def outputs(store: Store, attempts: Sequence[ObjectId]) -> list[OutputOf]:
    """The output of these attempts, the oldest first."""
    fields = ["owner", "log_size_bytes", STORED, "time_terminated"]
    chunks = _chunk_counts(store, attempts)
    found = store["attempts"].find({"_id": {"$in": list(attempts)}}, fields).sort("_id", ASCENDING)
    return [
        OutputOf(
            one["_id"],
            one.get("owner", ""),
            max(one.get("log_size_bytes") or 0, one.get(STORED) or 0)
            + CHUNK_BYTES * chunks.get(one["_id"], 0),
            one.get("time_terminated") is not None,
        )
        for one in found
    ]


def _chunk_counts(store: Store, attempts: Sequence[ObjectId]) -> dict[ObjectId, int]:
    """In how many pieces the output of each attempt came; read from the index alone.

    Otherwise a worker that sends single bytes would take others' room without a share of its own.
    """
    stages: list[Document] = [
        {"$match": {"attempt": {"$in": list(attempts)}}},
        {"$group": {"_id": "$attempt", "count": {"$sum": 1}}},
    ]
    found = store["log_chunks"].aggregate(stages, hint="attempt_offset")
    return {one["_id"]: one["count"] for one in found}


def large_records_bytes(store: Store) -> int:
    """How much messages and samples take in the records of attempts, beyond what is common."""
    stats = next(iter(store["attempts"].aggregate([{"$collStats": {"storageStats": {}}}])))
    size, count = stats["storageStats"]["size"], stats["storageStats"]["count"]
    return max(0, int(size) - RECORD_BYTES * int(count))


def large_records(
    store: Store, after: ObjectId | None, limit: int
) -> tuple[ObjectId, list[OutputOf]]:
    """What the next attempts have in large records; the last one that was looked at, or END."""
    stages: list[Document] = [
        {"$match": _EVERYTHING if after is None else {"_id": {"$gt": after}}},
        {"$sort": {"_id": ASCENDING}},
        {"$limit": limit},
        {"$project": {"owner": 1, "time_terminated": 1, "size": {"$bsonSize": "$$ROOT"}}},
    ]
    found = list(store["attempts"].aggregate(stages))
    large = [
        OutputOf(
            one["_id"],
            one.get("owner", ""),
            one["size"] - RECORD_BYTES,
            one.get("time_terminated") is not None,
        )
        for one in found
        if one["size"] > RECORD_BYTES
    ]
    return (found[-1]["_id"] if len(found) == limit else END), large


def remove_output(store: Store, attempts: Collection[ObjectId]) -> None:
    """Take the output of attempts away, their messages and samples, too; that is said first."""
    which = {"_id": {"$in": list(attempts)}}
    said = {"_etag": {"$literal": new_etag()}, "_updated": {"$literal": now()}}
    removed = {"time_log_removed": {"$ifNull": ["$time_log_removed", {"$literal": now()}]}}
    gone = ["output", *LISTS]  # what is short stands in the record
    store["attempts"].update_many(which, [{"$set": {**removed, **said}}, {"$unset": gone}])
    store["log_chunks"].delete_many({"attempt": which["_id"]})


# --- Samples -----------------------------------------------------------------------------


def thin_samples(
    store: Store, range_: Mapping[str, Any], after: ObjectId | None, limit: int, most: int
) -> ObjectId | None:
    """Thin the samples of the next ended attempts; the last of them, None where there is none.

    Of each kind `most` stay, evenly chosen. What is thin enough is left as it is.
    """
    found = store["attempts"].find(_after(range_, after), ["_id"])
    ids = [one["_id"] for one in found.sort("_id", ASCENDING).limit(limit)]
    if not ids:
        return None
    query = {
        "_id": {"$gte": ids[0], "$lte": ids[-1]},
        "time_terminated": {"$ne": None},
        "$or": [{f"{name}.{most}": {"$exists": True}} for name in _SAMPLES],
    }
    stamp = {"_etag": {"$literal": new_etag()}, "_updated": {"$literal": now()}}
    thinned = {name: _thinned(f"${name}", most) for name in _SAMPLES}
    store["attempts"].update_many(query, [{"$set": {**thinned, **stamp}}])
    last: ObjectId = ids[-1]
    return last


def _thinned(field: str, most: int) -> Document:
    size: Document = {"$size": {"$ifNull": [field, []]}}
    step: Document = {"$toInt": {"$ceil": {"$divide": [size, most]}}}
    places: Document = {"$range": [0, size, step]}
    kept = {"$map": {"input": places, "in": {"$arrayElemAt": [field, "$$this"]}}}
    return {"$cond": [{"$gt": [size, most]}, kept, field]}


# --- Workers -----------------------------------------------------------------------------


def forget_workers(store: Store, milliseconds: int) -> None:
    """Workers that were lost, or went, and have not been heard of for so long."""
    before = _ago(milliseconds)
    store["workers"].delete_many({"mode": {"$in": GONE}, "last_beat": {"$lt": before}})


def forget_surplus_workers(store: Store, most: int) -> None:
    """Of each account's workers that are gone, all but the last `most`."""
    counted = store["workers"].aggregate(
        [
            {"$match": {"mode": {"$in": GONE}}},
            {"$group": {"_id": "$account", "count": {"$sum": 1}}},
            {"$match": {"count": {"$gt": most}}},
        ]
    )
    for account in counted:
        gone = {"account": account["_id"], "mode": {"$in": GONE}}
        found = store["workers"].find(gone, ["_id"]).sort("last_beat", ASCENDING)
        oldest = [one["_id"] for one in found.limit(account["count"] - most)]
        store["workers"].delete_many({"_id": {"$in": oldest}, **gone})
