"""The body of a provider's PATCH, read and validated: fields, edges, the new state."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from bson import ObjectId
from flask import current_app
from werkzeug.datastructures import ETags

from banyan.domain import lifecycle
from banyan.domain.continuations import CHILD_LISTS
from banyan.domain.lifecycle import Change, Refusal, Same
from banyan.domain.resources import changed_request
from banyan.domain.scheduling import DURATIONS
from banyan.domain.states import State
from banyan.errors import BanyanError
from banyan.server import conditions, keeping, validation, weights
from banyan.server.calls import Call
from banyan.server.schemas.tasks import EDGES_IN_REQUEST_MAX, SCHEMA
from banyan.server.shapes import of_task
from banyan.server.store.mongo import Document, now

_WHEN = {
    "inactive": ("inactive",),
    "claim": ("inactive", "available"),
    "always": tuple(State),
    "create": (),
}


# A field that no row of the table names stands for itself.
_ITSELF: Mapping[str, Any] = {"kind": "alias", "readonly": False}
_SHAPE_FIELDS = {"requested_resources", "queue", "labels", *DURATIONS}


@dataclass(frozen=True)
class Edit:
    """What a provider wants changed about one task.

    added, removed: by the parent's list, the children to add to it and to take off it.
    resources: of `requested_resources` what the client sent; the rest of them stays.
    """

    task_id: ObjectId
    fields: Mapping[str, Any]
    state: State | None = None
    added: Mapping[str, list[ObjectId]] = field(default_factory=dict)
    removed: Mapping[str, list[ObjectId]] = field(default_factory=dict)
    if_match: ETags | None = None
    resources: Mapping[str, Any] | None = None

    @property
    def has_links(self) -> bool:
        """Whether it adds or removes edges."""
        return bool(self.added or self.removed)

    def is_of_waiting(self, task: Document) -> bool:
        """Whether the task is available, and the edit says so: `{"state": "available", ...}`."""
        return self.state is State.AVAILABLE and State(task["state"]) is State.AVAILABLE

    def changed_fields(self, task: Document) -> dict[str, Any]:
        """The fields whose value changes. Errors: `invalid` where the state forbids it."""
        fields = dict(self.fields)
        if self.resources is not None:
            stored = task["requested_resources"]
            fields["requested_resources"] = changed_request(stored, self.resources)
        changed = {name: v for name, v in fields.items() if task.get(name) != v}
        # Who says that it waits, and is to, may change it there.
        state = State.INACTIVE if self.is_of_waiting(task) else task["state"]
        issues = {
            name: f"can't be changed while the task is {task['state']}"
            for name in changed
            if state not in _WHEN[SCHEMA[name].get("meta", {}).get("change", "inactive")]
        }
        if issues:
            message = "this can't be changed now: see _issues"
            raise BanyanError("invalid", message, issues, {"state": task["state"]})
        return changed


def refuse_too_many_edges(bodies: Sequence[Any], lists: Sequence[str]) -> None:
    """What edges cost grows with their number: each is read, and written at both ends.

    lists: the fields that name other tasks. Errors: `too_large`.
    """
    found = (one.get(name) for one in bodies if isinstance(one, dict) for name in lists)
    count = sum(len(named) for named in found if isinstance(named, list))
    if count > EDGES_IN_REQUEST_MAX:
        message = f"{count:,} edges: send at most {EDGES_IN_REQUEST_MAX:,} in a request"
        raise BanyanError("too_large", f"{message}, or put a group in between")


def read_edit(call: Call, task_id: ObjectId, body: Mapping[str, Any]) -> Edit:
    """Validate a PATCH's body against the schema and the table. Errors: `invalid`."""
    rows = current_app.config["VIRTUAL_RESOURCES"]["tasks"]
    plain: dict[str, Any] = {}
    links: dict[str, dict[str, list[ObjectId]]] = {"append": {}, "remove": {}}
    issues: dict[str, Any] = {}
    asked_as: dict[str, str] = {}
    for name, value in body.items():
        row = rows.get(name, _ITSELF)
        if name not in SCHEMA and row is not _ITSELF and not call.caller.has(*row["writers"]):
            raise BanyanError("forbidden", f"your roles may not write {name!r}")
        field, part = name, ""
        if "target" in row:
            field, _, part = str(row["target"]).partition(".")
        if row["kind"] == "alias" and not row["readonly"] and field in {*SCHEMA, name}:
            if field in plain:
                issues[name] = f"{field} is set by another field of the request, too"
            plain[field] = {part: value} if part else value
            asked_as[field] = name
        elif row["kind"] in links and row["target"] in CHILD_LISTS:
            values, wrong = validation.check_value(row["schema"], row["field"], value)
            links[row["kind"]][row["target"]] = values
            issues.update({name: wrong} if wrong else {})
        else:
            issues[name] = "read-only"
    checked, wrong = validation.check(SCHEMA, plain, update=True)
    issues.update({asked_as.get(field, field): problem for field, problem in wrong.items()})
    if issues:
        raise BanyanError("invalid", "some fields are invalid: see _issues", issues)
    state = State(checked.pop("state")) if "state" in checked else None
    resources = plain.get("requested_resources")
    return Edit(task_id, checked, state, links["append"], links["remove"], resources=resources)


def decide(edit: Edit, task: Document) -> Change | Same:
    """The one guarded write of an edit without edges. Errors: its refusal."""
    conditions.check(edit.if_match, task)
    fields = edit.changed_fields(task)
    moved = lifecycle.move({**task, **fields}, edit.state, now()) if edit.state else Same()
    if isinstance(moved, Refusal):
        raise BanyanError(moved.word, moved.message, extra={"state": task["state"]})
    if fields.keys() & _SHAPE_FIELDS:
        fields["shape"] = of_task({**task, **fields})
    if fields.keys() & keeping.FIELDS:
        fields["forget_after"] = keeping.mark({**task, **fields}).get("forget_after")
    if not fields.keys().isdisjoint(weights.FIELDS):
        heavy = weights.mark({**task, **fields}).get("heavy", 0)
        fields |= {"heavy": heavy} if heavy != task.get("heavy", 0) else {}
    if isinstance(moved, Same):
        if not fields:
            return moved
        moved = _staying(edit, task, fields)
    moved = replace(moved, set={**fields, **moved.set})
    return conditions.guarded(edit.if_match, task, lifecycle.as_edit(task, moved))


def _staying(edit: Edit, task: Document, fields: Mapping[str, Any]) -> Change:
    """The write of these fields where the task's state is not to change."""
    if edit.is_of_waiting(task):
        return lifecycle.edit_where_it_waits(task, fields, now())
    return Change(task["_id"], {"state": task["state"]}, {})
