"""Who does the periodic duties now: a lease in the database, so that processes share them."""

from datetime import UTC, datetime

from banyan.server.store.mongo import FORGETTABLE, Store

_LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)


def ensure(store: Store, duty: str) -> None:
    """See to it that the duty can be taken; safe to call again."""
    free = {"holder": "", "until": _LONG_AGO}
    store["duties"].update_one({"_id": duty}, {"$setOnInsert": free}, upsert=True)


def take(store: Store, duty: str, holder: str, seconds: float) -> bool:
    """Whether `holder` has the duty for the next `seconds`; it keeps it by asking again."""
    # Forgotten in a crash, a duty is done twice for a while, which does no harm.
    collection = store["duties"].with_options(write_concern=FORGETTABLE)
    free = {"$or": [{"holder": holder}, {"$expr": {"$lt": ["$until", "$$NOW"]}}]}
    until = {"$add": ["$$NOW", int(seconds * 1000)]}
    found = collection.update_one(
        {"_id": duty, **free}, [{"$set": {"holder": {"$literal": holder}, "until": until}}]
    )
    return bool(found.matched_count)
