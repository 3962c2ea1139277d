"""Create, edit and remove for resources without a life of their own.

A resource that DOMAIN declares without functions is served by these: its schema says
what is valid, its rows of VIRTUAL_RESOURCES what may be appended, removed and set. Each
edit is one write: plain values, additions and removals together, additions first.
"""

from collections.abc import Mapping
from typing import Any

from bson import ObjectId
from flask import current_app

from banyan.config import knobs
from banyan.errors import BanyanError
from banyan.server import conditions, links, scoped, validation
from banyan.server.auth import scope
from banyan.server.calls import Answer, Call
from banyan.server.store import plain
from banyan.server.store.mongo import Document

_Lists = dict[str, tuple[list[Any], list[Any], bool]]
_Changes = tuple[dict[str, Any], _Lists]


def create(call: Call) -> Answer:
    """POST of one item or a list: 201 with what was stored."""
    bodies = call.body if isinstance(call.body, list) else [call.body]
    if len(bodies) > knobs().BULK_ITEMS_MAX:
        raise BanyanError("too_large", f"at most {knobs().BULK_ITEMS_MAX} items in a request")
    if not bodies:
        raise BanyanError("invalid", "an empty list: send at least one item")
    checked = [validation.check(_schema(call), body) for body in bodies]
    if any(issues for _, issues in checked):
        told, more = validation.items_told(dict(enumerate(issues for _, issues in checked)))
        told = told if isinstance(call.body, list) else checked[0][1]
        raise BanyanError("invalid", f"nothing was stored: see _issues{more}", told)
    stored = plain.insert(
        call.store, call.resource, [item for item, _ in checked], call.caller.account
    )
    items = [{**_shown(call, item), "_status": "OK"} for item in stored]
    if isinstance(call.body, list):
        return Answer({"_status": "OK", "_items": items}, 201)
    return Answer(items[0], 201)


def edit_one(call: Call) -> Answer:
    """PATCH of an item, and every virtual write to it."""
    assert call.item_id is not None  # noqa: S101 - an item's route
    item = scoped.item(call)
    conditions.check(call.if_match, item)
    version = None if call.if_match is None else item["_etag"]
    update = plain.update(item["_id"], *_read(call, call.body), version)
    if not plain.write(call.store, call.resource, [update]):
        conditions.check(call.if_match, scoped.item(call))  # else it has been removed
    return Answer({**_shown(call, scoped.item(call)), "_status": "OK"})


def edit_together(call: Call, edits: Mapping[ObjectId, Mapping[str, Any]]) -> None:
    """Several edits, all checked before the first is written."""
    query = {"$and": [{"_id": {"$in": list(edits)}}, scope(call.caller, call.resource)]}
    found = {item["_id"]: item for item in call.store[call.resource].find(query)}
    absent = [str(one) for one in edits if one not in found]
    if absent:
        told = absent[: validation.DOCUMENTS_TOLD_MAX]
        issues = dict.fromkeys(told, "there is no such item for you")
        message = f"{len(absent)} of the targets are not there; nothing was written: see _issues"
        raise BanyanError("invalid", message, issues)
    # Many targets have one and the same body: it is read once.
    read: dict[int, _Changes] = {}
    for body in edits.values():
        if id(body) not in read:
            read[id(body)] = _read(call, body)
    updates = [plain.update(one, *read[id(body)]) for one, body in edits.items()]
    plain.write(call.store, call.resource, updates)


def remove(call: Call) -> Answer:
    """DELETE of an item: 204."""
    plain.delete(call.store, call.resource, scoped.item(call, ["_id"])["_id"])
    return Answer(None, 204)


def _schema(call: Call) -> Mapping[str, Any]:
    schema: Mapping[str, Any] = current_app.config["DOMAIN"][call.resource]["schema"]
    return schema


def _read(call: Call, body: Any) -> _Changes:
    """The values that a body sets, and what it adds to lists and takes off them."""
    if not isinstance(body, dict):
        raise BanyanError("invalid", "a JSON object of fields to change, please")
    rows = current_app.config["VIRTUAL_RESOURCES"].get(call.resource, {})
    values: dict[str, Any] = {}
    lists: _Lists = {}
    issues: dict[str, Any] = {}
    ordinary = {name: value for name, value in body.items() if name not in rows}
    for name in body.keys() - ordinary.keys():
        row = rows[name]
        if not call.caller.has(*row["writers"]):
            raise BanyanError("forbidden", f"your roles may not write {name!r}")
        if row["kind"] not in ("append", "remove", "alias") or row["readonly"]:
            issues[name] = "read-only"
            continue
        checked, wrong = validation.check_value(row["schema"], row["field"], body[name])
        if row["target"] in values or str(row["target"]).partition(".")[0] in ordinary:
            wrong = f"{row['target']} is set by another field of the request, too"
        issues.update({name: wrong} if wrong else {})
        if row["kind"] == "alias":
            values[row["target"]] = checked
        else:
            added, removed, _ = lists.setdefault(row["target"], ([], [], False))
            (added if row["kind"] == "append" else removed).extend(checked or ())
            repeats = row["schema"][row["field"]].get("allows_duplicates", False)
            lists[row["target"]] = (added, removed, repeats)
    checked, wrong = validation.check(_schema(call), ordinary, update=True)
    issues.update(wrong)
    if issues:
        raise BanyanError("invalid", "some fields are invalid: see _issues", issues)
    return {**checked, **values}, lists


def _shown(call: Call, item: Document) -> Document:
    automatic = ("_id", "_etag") if call.minimal else ("_id", "_created", "_updated", "_etag")
    fields = () if call.minimal else _schema(call)
    shown = {name: item[name] for name in (*automatic, *fields) if name in item}
    if not call.minimal:
        shown["_links"] = links.of_item(current_app.config, call.resource, shown, call.caller)
    return shown
