"""Items of resources without a life of their own: inserts, and one atomic update each."""

from collections.abc import Mapping, Sequence
from typing import Any

from bson import ObjectId
from pymongo import UpdateOne

from banyan.server.store.mongo import Document, Store, new_etag, now


def insert(
    store: Store, resource: str, items: Sequence[Mapping[str, Any]], owner: str
) -> list[Document]:
    """Store new items, all or none; returns them as stored."""
    time = now()
    stored = [
        {
            "_id": ObjectId(),
            **item,
            "owner": owner,
            "_created": time,
            "_updated": time,
            "_etag": new_etag(),
        }
        for item in items
    ]
    store.transaction(lambda session: store[resource].insert_many(stored, session=session))
    return stored


def update(
    item_id: ObjectId,
    values: Mapping[str, Any],
    lists: Mapping[str, tuple[list[Any], list[Any], bool]],
    version: str | None = None,
) -> UpdateOne:
    """One write: values set, then for each list what is added, then what is removed.

    lists: field -> (added, removed, whether it may hold a value twice).
    version: the one that it is meant for; None: any.
    A pipeline, because MongoDB's own operators can't add to and take from one field.
    """
    fields: Document = {name: {"$literal": value} for name, value in values.items()}
    for name, (added, removed, repeats) in lists.items():
        held: Any = {"$ifNull": [f"${name}", []]}
        new, gone = {"$literal": added}, {"$literal": removed}
        if repeats:
            kept = {"$not": {"$in": ["$$this", gone]}}
            all_of_it: Document = {"$concatArrays": [held, new]}
            fields[name] = {"$filter": {"input": all_of_it, "cond": kept}} if removed else all_of_it
        else:  # a $filter would compare each value that there is with each that comes or goes
            more = {"$setDifference": [new, held]}
            fields[name] = {"$setDifference": [{"$concatArrays": [held, more]}, gone]}
    stamp = {"_etag": new_etag(), "_updated": now()}
    meant = {} if version is None else {"_etag": version}
    return UpdateOne({"_id": item_id, **meant}, [{"$set": {**fields, **stamp}}])


def write(store: Store, resource: str, updates: Sequence[UpdateOne]) -> int:
    """All updates in one command; how many of them have found their item."""
    return store[resource].bulk_write(updates).matched_count


def delete(store: Store, resource: str, item_id: ObjectId) -> None:
    """Remove an item."""
    store[resource].delete_one({"_id": item_id})
