"""VIRTUAL_RESOURCES -> routes. The three forms of a virtual write become one.

`POST /tasks/<id>/add_continuations [..]`, the same as a field of `PATCH /tasks/<id>`, and
`POST /tasks/add_continuations [{targets, values}]` all end in the resource's own editing
function with the same mapping of names to values, so they validate and answer alike.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from bson import ObjectId
from flask import current_app

from banyan.errors import BanyanError
from banyan.server import aliases, scoped, table
from banyan.server.calls import OK, Answer, Call

ENTRIES_MAX = 128
TARGETS_MAX = VALUES_MAX = 1024
PAIRS_MAX = 100_000  # of targets and values, over all entries


def serve(call: Call) -> Answer:
    """What a route of a virtual subresource does, by its kind."""
    row = call.row
    if row["kind"] in ("action", "view"):
        return table.function(row["function"])(call)
    if call.headers["Method"] in ("GET", "HEAD"):
        return _read(call)
    return _write_item(call) if call.item_id else _write_collection(call)


def _read(call: Call) -> Answer:
    """GET of an alias: {"<name>": value}."""
    item = scoped.item(call, aliases.stored_fields(call.resource, ["_etag", call.name]))
    aliases.fill(call.store, call.resource, [item], [call.name])
    return Answer({call.name: item.get(call.name)}, wait_for=[f"task:{call.item_id}"])


def _write_item(call: Call) -> Answer:
    return editor(call.resource).one(replace(call, body={call.name: call.body}))


def _write_collection(call: Call) -> Answer:
    """The collection form: checked as a whole before anything is written."""
    entries = _entries(call)
    edits = _edits(call, entries)
    try:
        editor(call.resource).together(call, edits)
    except BanyanError as error:
        error.issues = _by_entry(error.issues, entries)
        raise
    return Answer(OK)


def _edits(call: Call, entries: Sequence[Mapping[str, Any]]) -> dict[ObjectId, dict[str, Any]]:
    """What becomes of each target; all that the same entries name have one and the same edit."""
    named: dict[ObjectId, list[int]] = {}
    for index, entry in enumerate(entries):
        for target in _ids(entry["targets"], index):
            named.setdefault(target, []).append(index)
    made: dict[tuple[int, ...], dict[str, Any]] = {}
    edits: dict[ObjectId, dict[str, Any]] = {}
    for target, indexes in named.items():
        key = tuple(indexes)
        if key not in made:
            made[key] = {call.name: _merged(call, [entries[one]["values"] for one in indexes])}
        edits[target] = made[key]
    return edits


def _by_entry(issues: Mapping[str, Any], entries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Issues by the entry that they come from, where they are told by the target's id."""
    told: dict[str, Any] = {}
    for name, found in issues.items():
        with_target = [index for index, entry in enumerate(entries) if name in entry["targets"]]
        # Of several entries with this target, the one with a value that the issue speaks of.
        text = str(found)
        blamed = [index for index in with_target if _speaks_of(text, entries[index]["values"])]
        told[str((blamed or with_target)[0]) if with_target else name] = found
    return told


def _speaks_of(issue: str, values: Any) -> bool:
    return isinstance(values, list) and any(str(value) in issue for value in values)


def _entries(call: Call) -> list[dict[str, Any]]:
    if not isinstance(call.body, list) or not call.body:
        raise BanyanError("invalid", 'a list of {"targets": [ids], "values": [...]}, please')
    if len(call.body) > ENTRIES_MAX:
        raise BanyanError("too_large", f"at most {ENTRIES_MAX} entries")
    issues: dict[str, Any] = {}
    for index, entry in enumerate(call.body):
        if not isinstance(entry, dict) or entry.keys() != {"targets", "values"}:
            issues[str(index)] = {"": "an object with `targets` and `values`"}
        elif not isinstance(entry["targets"], list) or len(entry["targets"]) > TARGETS_MAX:
            issues[str(index)] = {"targets": f"a list of at most {TARGETS_MAX} ids"}
        elif isinstance(entry["values"], list) and len(entry["values"]) > VALUES_MAX:
            issues[str(index)] = {"values": f"at most {VALUES_MAX} values"}
    if not issues:
        _refuse_too_many_pairs(call.body)
        issues = _wrong_values(call)
    if issues:
        raise BanyanError("invalid", "some entries are invalid; nothing was written", issues)
    return call.body


def _refuse_too_many_pairs(entries: Sequence[Mapping[str, Any]]) -> None:
    """Each target gets each value: what is to be done is their product, not what was sent."""
    pairs = sum(len(entry["targets"]) * _parts(entry["values"]) for entry in entries)
    if pairs > PAIRS_MAX:
        message = f"{pairs} pairs of target and value: send at most {PAIRS_MAX} in a request"
        raise BanyanError("too_large", message)


def _parts(value: Any) -> int:
    if isinstance(value, dict | list):
        return max(1, sum(map(_parts, value.values() if isinstance(value, dict) else value)))
    return 1


def _wrong_values(call: Call) -> dict[str, Any]:
    issues: dict[str, Any] = {}
    for index, entry in enumerate(call.body):
        try:
            _checked(call, entry["values"])
        except BanyanError as error:
            issues[str(index)] = {"values": error.issues.get(call.name, error.message)}
    return issues


def _checked(call: Call, values: Any) -> Any:
    from banyan.server.validation import demand_value

    return demand_value(call.row["schema"], call.row["field"], values, call.name)


def _ids(targets: Any, index: int) -> list[ObjectId]:
    if not all(isinstance(target, str) and ObjectId.is_valid(target) for target in targets):
        issues = {str(index): {"targets": "each is an id of 24 hex digits"}}
        raise BanyanError("invalid", "some entries are invalid; nothing was written", issues)
    return [ObjectId(target) for target in targets]


def _merged(call: Call, values: Sequence[Any]) -> Any:
    """Several entries with one target: their lists are added up; of values the last stands."""
    if call.row["kind"] == "alias" or len(values) == 1:
        return values[-1]
    every = [value for several in values for value in several]
    if call.row["schema"][call.row["field"]].get("allows_duplicates", False):
        return every
    once: dict[str, Any] = {}
    for value in every:
        once.setdefault(str(value), value)
    return list(once.values())


class Editor:
    """How a resource's items are changed: one, and several as a whole."""

    def __init__(self, one: table.Function, together: Any) -> None:
        self.one = one
        self.together = together


def editor(resource: str) -> Editor:
    """The editing functions of a resource: its own where it declares PATCH, else the plain ones."""
    declared: Mapping[str, Any] = current_app.config["DOMAIN"][resource].get("item", {})
    path = declared.get("PATCH", {}).get("function", "banyan.server.verbs.plain:edit_one")
    module = path.partition(":")[0]
    return Editor(table.function(path), table.function(f"{module}:edit_together"))
