"""One item of a resource, if the caller may see it; what is outside of the scope is 404."""

from collections.abc import Mapping, Sequence
from typing import Any

from banyan.errors import BanyanError
from banyan.server.auth import scope
from banyan.server.calls import Call
from banyan.server.store.mongo import Document


def item(call: Call, fields: Sequence[str] | Mapping[str, Any] | None = None) -> Document:
    """The item that the call's address names. Errors: `not_found`.

    fields: their names, or a projection.
    """
    query = {"$and": [{"_id": call.item_id}, scope(call.caller, call.resource)]}
    found = call.store[call.resource].find_one(query, fields)
    if found is None:
        raise missing(call.resource, call.item_id)
    return found


def missing(resource: str, item_id: object) -> BanyanError:
    """The error for what is not there, or not for this caller."""
    return BanyanError("not_found", f"there is no {resource.rstrip('s')} {item_id} for you")
