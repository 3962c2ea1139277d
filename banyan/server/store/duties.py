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
    me = {"$literal": holder}
    until = {"$add": ["$$NOW", int(seconds * 1000)]}
    # Who comes first makes the document: what is missing is less than any time.
    is_free = {"$or": [{"$eq": ["$holder", me]}, {"$lt": ["$until", "$$NOW"]}]}
    taken = {
        "holder": {"$cond": [is_free, me, "$holder"]},
        "until": {"$cond": [is_free, until, "$until"]},
    }
    try:
        found = collection.find_one_and_update(
            {"_id": duty}, [{"$set": taken}], upsert=True, return_document=ReturnDocument.AFTER
        )
    except DuplicateKeyError:
        return False  # somebody else has made it at this moment
    return bool(found["holder"] == holder)
