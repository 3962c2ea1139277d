"""The targets of an action: the item in the address, or a list of ids in the body."""

from collections.abc import Sequence
from typing import Any

from bson import ObjectId

from banyan.errors import BanyanError
from banyan.server.auth import owned
from banyan.server.calls import Call
from banyan.server.scoped import missing
from banyan.server.store import tasks
from banyan.server.store.mongo import Document

TARGETS_MAX = 1024


def read(
    call: Call, allowed: frozenset[str] = frozenset()
) -> tuple[list[ObjectId], dict[str, Any]]:
    """(the ids that the action is for, the body's other members). Errors: `invalid`."""
    body = {} if call.body is None else call.body
    if not isinstance(body, dict):
        raise BanyanError("invalid", "a JSON object, please")
    options = {name: value for name, value in body.items() if name != "targets" or call.item_id}
    unknown = options.keys() - allowed
    if unknown:
        raise BanyanError("invalid", "see _issues", dict.fromkeys(unknown, "unknown field"))
    if call.item_id:
        return [call.item_id], options
    targets = body.get("targets")
    if not isinstance(targets, list) or not targets:
        raise BanyanError("invalid", "see _issues", {"targets": "a list of task ids, please"})
    if len(targets) > TARGETS_MAX:
        raise BanyanError("too_large", f"at most {TARGETS_MAX} targets")
    bad = [one for one in targets if not isinstance(one, str) or not ObjectId.is_valid(one)]
    if bad:
        raise BanyanError("invalid", "see _issues", {"targets": "an id is 24 hex digits"})
    return list(dict.fromkeys(ObjectId(one) for one in targets)), options


def find(
    call: Call, ids: list[ObjectId], fields: Sequence[str] | None = None
) -> dict[ObjectId, Document]:
    """The targets, all of them the caller's to change. Errors: `not_found`, `invalid`."""
    found = tasks.find(call.store, ids, owned(call.caller), fields)
    absent = [str(one) for one in ids if one not in found]
    if absent and call.item_id:
        raise missing("tasks", absent[0])
    if absent:
        issues = {"targets": f"there are no such tasks for you: {', '.join(absent[:10])}"}
        raise BanyanError("invalid", "nothing was written", issues)
    return found
