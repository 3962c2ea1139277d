"""Workers and their leases, by the database's own clock.

A worker's lease is the lease of all its attempts: one small write renews them all. It
has lapsed when it is over and the margin too; from then on nothing renews it any more,
so that who finds it lapsed may give its tasks out again.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any

from bson import ObjectId
from pymongo import ReturnDocument

from banyan.config import knobs
from banyan.server.store.mongo import FORGETTABLE, Document, Store, new_etag, now

_WANTED_MAX = 256  # as many as wait on a worker
GONE = ["lost", "off"]
# What the figures about workers are made of. Of GPUs, their number.
FIGURES: Document = {
    "account": 1,
    "used": 1,
    "resources.cores": 1,
    "resources.memory": 1,
    "gpu_count": {"$size": "$resources.gpus"},
}
_AT_ONCE = 500  # of the largest some ten megabytes
# A worker repeats a claim that was not answered before it makes many more.
CLAIM_IDS_MAX = 32


def insert(store: Store, worker: Document) -> None:
    """Store a new worker with its first lease; each renewal goes by the database's clock."""
    lease = timedelta(seconds=knobs().LEASE_SECONDS)
    store["workers"].insert_one({**worker, "lease_until": now() + lease})


def renew(
    store: Store,
    worker_id: ObjectId,
    account: str,
    fields: Mapping[str, Any],
    claim_id: str | None = None,
) -> Document | None:
    """Renew the lease from now on, unless it has lapsed; None where it has, or is not there.

    claim_id: of the claim that is made; the worker's last ones are kept as `claim_ids`.
    Returns the worker as it was before, so that who sees its claim_id there repeats a claim.
    """
    lease = int(knobs().LEASE_SECONDS * 1000)
    # A renewal forgotten in a crash leaves the lease of one beat ago, within the margin.
    collection = store["workers"].with_options(write_concern=FORGETTABLE)
    literal = {name: {"$literal": value} for name, value in fields.items()}
    if claim_id:
        literal["claim_ids"] = _with_id(claim_id)
    return collection.find_one_and_update(
        {"_id": worker_id, "account": account, "mode": {"$nin": GONE}, **_alive()},
        [
            {
                "$set": {
                    **literal,
                    "last_beat": "$$NOW",
                    "lease_until": {"$add": ["$$NOW", lease]},
                    "_updated": "$$NOW",
                    "_etag": new_etag(),
                }
            }
        ],
        return_document=ReturnDocument.BEFORE,
    )


def _with_id(claim_id: str) -> Document:
    known, one = {"$ifNull": ["$claim_ids", []]}, {"$literal": claim_id}
    last = {"$slice": [{"$concatArrays": [[one], known]}, CLAIM_IDS_MAX]}
    return {"$cond": [{"$in": [one, known]}, known, last]}


def _alive() -> Document:
    margin = int(knobs().LEASE_MARGIN_SECONDS * 1000)
    return {"$expr": {"$gte": [{"$add": ["$lease_until", margin]}, "$$NOW"]}}


def live_among(store: Store, worker_ids: Collection[ObjectId]) -> set[ObjectId]:
    """Which of these workers still have their lease, or are within the margin."""
    query = {"_id": {"$in": list(worker_ids)}, "mode": {"$nin": GONE}, **_alive()}
    return {worker["_id"] for worker in store["workers"].find(query, ["_id"])}


def gone_by_account(
    store: Store, worker_ids: Collection[ObjectId]
) -> dict[tuple[str, bool], list[ObjectId]]:
    """These workers by their account, and whether they were removed, or are being removed now.

    Of one that is not there any more the account is not known: it is "".
    """
    query = {"_id": {"$in": list(worker_ids)}}
    there = {one["_id"]: one for one in store["workers"].find(query, ["account", "mode"])}
    gone: dict[tuple[str, bool], list[ObjectId]] = {}
    for worker_id in worker_ids:
        one = there.get(worker_id, {"account": "", "mode": "off"})
        gone.setdefault((one["account"], one["mode"] == "off"), []).append(worker_id)
    return gone


def mark_lost(store: Store) -> list[str]:
    """Workers whose lease has lapsed are shown as lost. Returns the hosts of those that are new."""
    lapsed = {"$nor": [_alive()], "mode": {"$nin": GONE}}
    etag = new_etag()
    update = {"$set": {"mode": "lost", "_etag": etag, "_updated": now()}}
    if store["workers"].update_many(lapsed, update).modified_count == 0:
        return []
    found = store["workers"].find({"mode": "lost", "_etag": etag}, ["host"], batch_size=_AT_ONCE)
    return sorted(one["host"] for one in found)


def set_mode(store: Store, worker_id: ObjectId, mode: str, before: str) -> Document | None:
    """Change the mode, and wake the worker's held beat; None where it is not `before` any more."""
    fields = {"mode": mode, "signal": new_etag(), "_etag": new_etag(), "_updated": now()}
    query = {"_id": worker_id, "mode": before}
    return store["workers"].find_one_and_update(
        query, {"$set": fields}, return_document=ReturnDocument.AFTER
    )


def signal(store: Store, worker_ids: Collection[ObjectId]) -> None:
    """Wake the held beats of these workers: there is something to tell them."""
    update = {"$set": {"signal": new_etag()}}
    store["workers"].update_many({"_id": {"$in": list(worker_ids)}}, update)


def take_over(store: Store, worker_id: ObjectId, number: int) -> bool:
    """Note that the process behind a worker is another now; False where that was noted before."""
    earlier = {"_id": worker_id, "takeovers": {"$not": {"$gte": number}}}
    update = {"$set": {"takeovers": number}}
    return store["workers"].update_one(earlier, update).modified_count == 1


def want(store: Store, worker_id: ObjectId, attempts: list[ObjectId]) -> None:
    """Leave word for a worker that idle ones would take these attempts' tasks, and the last ones'.

    Whether it has heard of those is not known here; what it does not have it passes over.
    """
    last = {"$each": attempts, "$slice": -_WANTED_MAX}
    update = {"$inc": {"wanted.number": 1}, "$push": {"wanted.attempts": last}}
    store["workers"].update_one({"_id": worker_id}, update)


def turn_off(store: Store, query: Mapping[str, Any]) -> set[ObjectId]:
    """From here on these workers renew nothing and claim nothing; which they are."""
    found = {worker["_id"] for worker in store["workers"].find(query, ["_id"])}
    fields = {"mode": "off", "signal": new_etag(), "_etag": new_etag(), "_updated": now()}
    store["workers"].update_many({"_id": {"$in": list(found)}}, {"$set": fields})
    return found


def delete(store: Store, worker_ids: Collection[ObjectId]) -> None:
    """The workers are gone: their next beats will not find them."""
    store["workers"].delete_many({"_id": {"$in": list(worker_ids)}})


def find(store: Store, worker_id: ObjectId) -> Document | None:
    """One worker."""
    return store["workers"].find_one({"_id": worker_id})


def live(
    store: Store, query: Mapping[str, Any], fields: Sequence[str] | Mapping[str, Any]
) -> Iterator[Document]:
    """The workers that have their lease; of each, these fields and no more: they may be many."""
    yield from store["workers"].find(_having(query), fields, batch_size=_AT_ONCE)


def any_live(store: Store, query: Mapping[str, Any]) -> bool:
    """Whether there is such a worker that has its lease."""
    return store["workers"].find_one(_having(query), ["_id"]) is not None


def _having(query: Mapping[str, Any]) -> Document:
    return {"$and": [{"mode": {"$nin": GONE}, **_alive()}, query]}


def count_by_queue(store: Store, query: Mapping[str, Any], most: int) -> dict[str, int]:
    """How many live workers serve each queue; of the queues, those that most serve."""
    pipeline: list[Document] = [
        {"$match": _having(query)},
        {"$unwind": "$queues"},
        {"$group": {"_id": "$queues", "count": {"$sum": 1}}},
        {"$sort": {"count": -1, "_id": 1}},
        {"$limit": most},
    ]
    return {row["_id"]: row["count"] for row in store["workers"].aggregate(pipeline)}


def count_by_mode(store: Store, account: str | None) -> dict[str, int]:
    """How many workers of this account (None: of all) there are in each mode."""
    pipeline: list[Document] = [
        {"$match": {} if account is None else {"account": account}},
        {"$group": {"_id": "$mode", "count": {"$sum": 1}}},
        {"$sort": {"_id": 1}},
    ]
    return {row["_id"]: row["count"] for row in store["workers"].aggregate(pipeline)}
