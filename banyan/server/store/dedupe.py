"""Tasks by their dedupe_key: the same key and body is the same task."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import orjson
from bson import ObjectId

from banyan.errors import BanyanError
from banyan.server.store.mongo import Document, Store


def digest(given: Mapping[str, Any]) -> str:
    """A hash of what the client asked for; the id that it chose is not part of that."""
    body = {name: value for name, value in given.items() if name != "_id"}
    canonical = orjson.dumps(body, default=str, option=orjson.OPT_SORT_KEYS)
    return hashlib.sha256(canonical).hexdigest()


def find(
    store: Store, owner: str, submitter: ObjectId | None, given: Sequence[Mapping[str, Any]]
) -> dict[str, Document]:
    """The stored tasks with these keys, by key: of the owner, or of its running task `submitter`.

    The keys of each running task are its own: with its token, which its worker has too, nobody
    takes the owner's keys, nor sees what has them.

    Errors: `dedupe_mismatch` where a stored task, or another item of the list, was asked
    for with the same key in other words.
    """
    asked: dict[str, str] = {}
    for item in given:
        key = item.get("dedupe_key")
        if key and asked.setdefault(key, digest(item)) != digest(item):
            raise BanyanError("dedupe_mismatch", f"two different tasks have the dedupe_key {key!r}")
    if not asked:
        return {}
    keys = {"$in": list(asked), "$type": "string"}  # the type makes the index serve
    query = {"owner": owner, "dedupe_key": keys, "submitted_by": submitter}
    without = {"result": 0} if len(given) > 1 else None  # as in all answers about many tasks
    found = {task["dedupe_key"]: task for task in store["tasks"].find(query, without)}
    for key, task in found.items():
        if task["dedupe_hash"] != asked[key]:
            message = f"the dedupe_key {key!r} belongs to a different task, {task['_id']}"
            raise BanyanError("dedupe_mismatch", message)
    return found
