"""One item of a resource, if the caller may see it; what is outside of the scope is 404."""

from collections.abc import Mapping, Sequence
from typing import Any

from bson import ObjectId

from banyan.domain.continuations import PARENT_LISTS, parents_of
from banyan.errors import BanyanError
from banyan.server.auth import scope
from banyan.server.calls import Call, Caller
from banyan.server.store.mongo import Document, Store


def item(call: Call, fields: Sequence[str] | Mapping[str, Any] | None = None) -> Document:
    """The item that the call's address names. Errors: `not_found`.

    fields: their names, or a projection.
    """
    assert call.item_id is not None  # noqa: S101 - an item's route
    query = to_read(call.store, call.caller, call.resource, call.item_id)
    found = call.store[call.resource].find_one(query, fields)
    if found is None:
        raise missing(call.resource, call.item_id)
    return found


def to_read(store: Store, caller: Caller, resource: str, item_id: ObjectId) -> Document:
    """The query for an item, if the caller may read it.

    A running task reads itself and its parents, and nothing else: its worker has its token, too.
    One that a task has submitted reads those of its own queue: they might have run where it runs.
    """
    own: Document = {"_id": item_id}
    if caller.task is None or resource != "tasks":
        return {"$and": [own, scope(caller, resource)]}
    if item_id != caller.task:
        told = [*PARENT_LISTS, "submitted_by", "queue"]
        task = store["tasks"].find_one({"_id": caller.task}, told) or {}
        own = {"_id": {"$in": [item_id] if item_id in parents_of(task) else []}}
        if "submitted_by" in task:
            own["queue"] = task["queue"]
    return {"$and": [own, {"owner": caller.account}]}


def missing(resource: str, item_id: object) -> BanyanError:
    """The error for what is not there, or not for this caller."""
    return BanyanError("not_found", f"there is no {resource.rstrip('s')} {item_id} for you")
