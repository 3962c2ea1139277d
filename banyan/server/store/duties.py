"""Who does a periodic duty now: a lease in the database, so that many processes share them."""

from pymongo.errors import DuplicateKeyError

from banyan.server.store.mongo import FORGETTABLE, Store


def take(store: Store, duty: str, holder: str, seconds: float) -> bool:
    """Whether `holder` has the duty for the next `seconds`; it keeps it by asking again."""
    # Forgotten in a crash, a duty is done twice for a while, which does no harm.
    collection = store["duties"].with_options(write_concern=FORGETTABLE)
    until = {"$add": ["$$NOW", int(seconds * 1000)]}
    free = {
        "$or": [{"holder": holder}, {"$expr": {"$lt": ["$until", "$$NOW"]}}],
    }
    try:
        found = collection.update_one(
            {"_id": duty, **free},
            [{"$set": {"holder": {"$literal": holder}, "until": until}}],
            upsert=True,
        )
    except DuplicateKeyError:
        return False  # somebody else has it: the upsert found the document taken
    return bool(found.matched_count or found.upserted_id)
