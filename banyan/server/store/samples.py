"""What workers had and what of it was in use, minute by minute; kept for a while.

Upkeep writes, the statistics of workers read. A minute has one sample, the last one wins, so
that it does not matter who takes it and how often.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from banyan.domain.tallies import RESOURCES, Window, floor
from banyan.server.store.mongo import FORGETTABLE, Document, Store

KEPT = timedelta(days=14)
PARTS = ("capacity", "reserved", "used")

_COLLECTION = "worker_samples"


def put(store: Store, time: datetime, sample: Mapping[str, Any]) -> None:
    """Store a sample: `count`, `running`, and each of PARTS by resource."""
    # One that is forgotten in a crash leaves a gap of a minute.
    collection = store[_COLLECTION].with_options(write_concern=FORGETTABLE)
    fields = {"$set": dict(sample), "$setOnInsert": {"until": time + KEPT}}
    collection.update_one({"_id": floor(time, 60)}, fields, upsert=True)


def in_buckets(store: Store, window: Window) -> list[Document | None]:
    """The mean sample of each bucket; None where there was none."""
    since = {"$subtract": ["$_id", window.start]}
    place = {"$floor": {"$divide": [since, window.seconds * 1000]}}
    means = {f"{part}_{one}": {"$avg": f"${part}.{one}"} for part in PARTS for one in RESOURCES}
    counts = {name: {"$avg": f"${name}"} for name in ("count", "running")}
    pipeline: list[Document] = [
        {"$match": {"_id": {"$gte": window.start, "$lt": window.end}}},
        {"$group": {"_id": place, **counts, **means}},
    ]
    found: list[Document | None] = [None] * window.count
    for row in store[_COLLECTION].aggregate(pipeline):
        found[int(row["_id"])] = {
            **{name: round(row[name], 3) for name in counts},
            **{
                part: {one: round(row[f"{part}_{one}"] or 0, 3) for one in RESOURCES}
                for part in PARTS
            },
        }
    return found
