"""Which tasks a worker could take: the hot query.

Available tasks are grouped by shape (equal request, queue and labels), so that what a
claim costs depends on how many *kinds* of task wait, not on how many tasks.
"""

import heapq
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from bson import ObjectId

from banyan.domain.scheduling import DURATIONS, span
from banyan.server.store.mongo import BATCH, Document, Store

ORDER = [("priority", -1), ("seq", 1)]
_BY_SHAPE = {"shape": 1, "wake_at": 1, "priority": -1, "seq": 1}
# In the index, what may be claimed at once stands before what may be claimed later.
AT_ONCE: Mapping[str, Any] = {"wake_at": {"$type": "null"}}
FIELDS = ["shape", "priority", "seq", "available_since", "requested_resources", "state", "owner",
          "attempt_count", "edit_count", "revival_count", "queue", "heavy"]  # fmt: skip
# MongoDB merges sorted index ranges only up to a limit of scans; beyond it would sort.
SHAPES_AT_ONCE = 100
_EDGE_MAX = 5000  # tasks, of which it is looked up whether they end in time
_VICTIMS_MAX = 8  # a thief that may take nothing of the fullest looks at so many


class Range(NamedTuple):
    """Which shapes are looked for: the next of those whose keys begin so, behind this key.

    also: some that are looked for wherever they stand.
    """

    prefix: str
    after: str
    limit: int
    also: Sequence[str] = ()


class Part(NamedTuple):
    """Some of the shapes that available tasks have, in the order of their keys.

    heads: where the first task of each stands in the order of claiming; those of which all tasks
    may only be claimed later are not among them. end: the last key looked at, None at the end.
    """

    heads: dict[str, tuple[int, int]]
    end: str | None


def waiting_shapes(store: Store, ranges: Sequence[Range]) -> list[Part]:
    """A part for each range: one index seek for each shape, and one command in all."""
    queries: list[tuple[int, Document, int]] = []
    for number, one in enumerate(ranges):
        # Behind all digits: what begins so ends there.
        keys = {"$gt": max(one.prefix, one.after), "$lt": f"{one.prefix}g"}
        queries.append((number, keys, one.limit))
        if one.also:
            queries.append((-number - 1, {"$in": list(one.also)}, len(one.also)))
    first, *others = (_of_shapes(*query) for query in queries)
    more = [{"$unionWith": {"coll": "tasks", "pipeline": stages}} for stages in others]
    of_query: dict[int, list[Document]] = {number: [] for number, _, _ in queries}
    for shape in store["tasks"].aggregate([*first, *more], batchSize=BATCH):
        of_query[shape["query"]].append(shape)
    return [_part(one, of_query[n], of_query.get(-n - 1, ())) for n, one in enumerate(ranges)]


def _of_shapes(number: int, keys: Document, limit: int) -> list[Document]:
    first = {name: {"$first": f"${name}"} for name in ("wake_at", "priority", "seq")}
    return [
        {"$match": {"state": "available", "shape": keys}},
        {"$sort": _BY_SHAPE},
        {"$group": {"_id": "$shape", **first}},
        {"$limit": limit},
        {"$set": {"query": number}},
    ]


def _part(asked: Range, found: Sequence[Document], also: Sequence[Document]) -> Part:
    at_once = [one for one in (*found, *also) if one["wake_at"] is None]
    heads = {one["_id"]: (-one["priority"], one["seq"]) for one in at_once}
    return Part(heads, found[-1]["_id"] if len(found) == asked.limit else None)


def waiting_among(store: Store, shapes: Sequence[str]) -> set[str]:
    """Those of these shapes that available tasks have."""
    return set(store["tasks"].distinct("shape", {"state": "available", "shape": {"$in": shapes}}))


def shapes_with(store: Store, keys: Sequence[str]) -> dict[str, Document]:
    """The request, queue and labels that each of these shapes stands for, by key.

    As told by the first task of each that waits; one that has none is left out.
    """
    told = ("requested_resources", "queue", "labels")
    stages: list[Document] = [
        {"$match": {"state": "available", "shape": {"$in": list(keys)}}},
        {"$sort": _BY_SHAPE},
        {"$group": {"_id": "$shape", **{name: {"$first": f"${name}"} for name in told}}},
    ]
    found = store["tasks"].aggregate(stages, batchSize=BATCH)
    return {one["_id"]: {name: one[name] for name in told} for one in found}


def candidates(
    store: Store, shapes: Sequence[str], limit: int, within_milliseconds: int | None = None
) -> list[Document]:
    """The first available tasks of these shapes, in the order of claiming.

    shapes: in the order of their first tasks, so that the first `limit` tasks are of the first
    `limit` shapes. within_milliseconds: see `ends_within`. Of those shapes of which some tasks
    end in this time and some do not, only the first tasks are looked at, a bounded number.
    """
    edge: Sequence[str] = []
    if within_milliseconds is not None:
        edge = [key for key in shapes if span_in(key) == span(within_milliseconds)]
        apart = set(edge)
        shapes = [key for key in shapes if key not in apart]
    found: list[Document] = []
    for some in _pieces(shapes[: max(limit, SHAPES_AT_ONCE)]):
        query = {**_waiting(some), **ends_within(within_milliseconds)}
        found += store["tasks"].find(query, FIELDS, batch_size=BATCH).sort(ORDER).limit(limit)
    for some in _pieces(edge):
        stages: list[Document] = [
            {"$match": _waiting(some)},
            {"$sort": dict(ORDER)},
            {"$limit": max(_EDGE_MAX * len(some) // len(edge), 1)},
            {"$match": ends_within(within_milliseconds)},
            {"$limit": limit},
            {"$project": dict.fromkeys(FIELDS, 1)},
        ]
        found += store["tasks"].aggregate(stages, batchSize=BATCH)
    found.sort(key=lambda task: (-task["priority"], task["seq"]))
    return found[:limit]


def _pieces(shapes: Sequence[str]) -> list[Sequence[str]]:
    starts = range(0, len(shapes), SHAPES_AT_ONCE)
    return [shapes[start : start + SHAPES_AT_ONCE] for start in starts]


def _waiting(shapes: Sequence[str]) -> dict[str, Any]:
    return {"state": "available", "shape": {"$in": list(shapes)}, **AT_ONCE}


def span_in(shape: str) -> int | None:
    """The class of how long tasks of this shape last; None where they say nothing of it."""
    told = shape.partition(":")[2]
    return int(told) if told else None


def ends_within(milliseconds: int | None) -> dict[str, Any]:
    """Tasks that end in this time by their own estimate or timeout, or say nothing of it."""
    if milliseconds is None:
        return {}
    said: list[dict[str, Any]] = [{name: {"$lte": milliseconds}} for name in DURATIONS]
    return {"$or": [*said, dict.fromkeys(DURATIONS)]}


def count_ahead(store: Store, task: Document) -> int:
    """How many available tasks that ask for the same are claimed before this one."""
    earlier: list[dict[str, Any]] = [
        {"priority": {"$gt": task["priority"]}},
        {"priority": task["priority"], "seq": {"$lt": task["seq"]}},
    ]
    # However long they may last: what says it stands behind a colon, which a semicolon follows.
    key = task["shape"].partition(":")[0]
    alike = {"shape": {"$gte": key, "$lt": f"{key};"}}
    query = {"state": "available", **alike, **AT_ONCE, "$or": earlier}
    return store["tasks"].count_documents(query)


def fullest(
    store: Store, thief: ObjectId, queues: Collection[str], within_milliseconds: int | None
) -> list[tuple[ObjectId, int]]:
    """The other workers that have claimed and not started most tasks of these queues; how many.

    within_milliseconds: see `ends_within`.
    """
    spare = _spare({"$ne": thief}, queues, within_milliseconds)
    if store["tasks"].find_one(spare, ["_id"], hint="spare") is None:
        return []  # most often, and known for half of what the counting takes
    found = store["tasks"].aggregate(
        [
            {"$match": spare},
            {"$group": {"_id": "$holder.worker", "count": {"$sum": 1}}},
        ],
        hint="spare",
    )
    most = heapq.nlargest(_VICTIMS_MAX, found, key=lambda one: one["count"])
    return [(one["_id"], one["count"]) for one in most]


def spare_of(
    store: Store,
    worker: ObjectId,
    queues: Collection[str],
    within_milliseconds: int | None,
    limit: int,
) -> list[Document]:
    """What a worker has claimed and not started, without its payload; what it comes to last first.

    As far as the server knows: of what was claimed ahead (`holder.started`), only the worker
    knows whether it has started by now.
    """
    fields = [*FIELDS, "queue", "labels", "holder"]
    query = _spare(worker, queues, within_milliseconds)
    found = store["tasks"].find(query, fields, batch_size=BATCH)
    return list(found.sort([("priority", 1), ("seq", -1)]).limit(limit))


def asked_for(store: Store, held: Collection[Document]) -> None:
    """Once its worker was asked for a task it is not asked again: it hands it over, or has begun.

    Who is idle would else wake a worker with each claim, as long as the task runs.
    """
    attempts = [task["holder"]["attempt"] for task in held]
    query = {"_id": {"$in": [task["_id"] for task in held]}, "holder.attempt": {"$in": attempts}}
    store["tasks"].update_many(query, {"$set": {"holder.spare": False}})


def _spare(worker: Any, queues: Collection[str], within_milliseconds: int | None) -> dict[str, Any]:
    return {
        "state": "running",
        "holder.spare": True,
        "holder.worker": worker,
        "queue": {"$in": list(queues)},
        **ends_within(within_milliseconds),
    }
