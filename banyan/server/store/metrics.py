"""What the server processes have counted, added up: one small document a series.

Called by upkeep, which adds, and by /metrics, which reads.
"""

from collections.abc import Mapping
from datetime import datetime

from pymongo import UpdateOne

from banyan.server.store import claims
from banyan.server.store.mongo import BATCH, FORGETTABLE, Store

_COLLECTION = "metrics"


def add(store: Store, sums: Mapping[str, float]) -> None:
    """Add to these series. Not repeated by hand: what failed may have been written."""
    # Counts of a few seconds that are forgotten in a crash are no harm.
    collection = store[_COLLECTION].with_options(write_concern=FORGETTABLE)
    updates = [
        UpdateOne({"_id": name}, {"$inc": {"sum": value}}, upsert=True)
        for name, value in sums.items()
    ]
    if updates:
        collection.bulk_write(updates, ordered=False)


def all_series(store: Store) -> dict[str, float]:
    """Every series with its sum."""
    found = store[_COLLECTION].find(batch_size=BATCH).sort("_id", 1)
    return {one["_id"]: one["sum"] for one in found}


def oldest_in_line(store: Store) -> datetime | None:
    """Since when the longest waiting of those tasks waits that are the next of their shape."""
    waiting = [
        found["available_since"]
        for shape in claims.waiting_shapes(store, [claims.Range("", "", _SHAPES_MAX)])[0].heads
        if (
            found := store["tasks"].find_one(
                {"state": "available", "shape": shape, **claims.AT_ONCE},
                {"_id": 0, "available_since": 1},
                sort=[("priority", -1), ("seq", 1)],
            )
        )
    ]
    return min(waiting, default=None)


_SHAPES_MAX = 100
