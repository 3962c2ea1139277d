"""PATCH of tasks: one, many (each for itself), or several as a whole.

A request is sorted by what it asks: a claim, a worker's report, or an edit by a
provider. An edit is one guarded write of plain fields, edges and the new state
together; edges go through `link.py`, which writes both ends.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from time import monotonic
from typing import Any

from bson import ObjectId
from flask import current_app

from banyan.config import knobs
from banyan.domain.continuations import CHILD_LISTS
from banyan.domain.lifecycle import Change, Same
from banyan.domain.states import State
from banyan.errors import BanyanError
from banyan.server import aftermath, represent, validation
from banyan.server.auth import owned
from banyan.server.calls import Answer, Call
from banyan.server.schemas.workers import CLAIM_ONE
from banyan.server.scoped import missing
from banyan.server.shapes import SHAPES
from banyan.server.store import sizes, tasks
from banyan.server.store.mongo import Document
from banyan.server.verbs import claim, link, report
from banyan.server.verbs.edits import Edit, decide, read_edit, refuse_too_many_edges

Result = Document | BanyanError
_ROUNDS = 8  # for edits of one task: those of a list, and those that others overtake
_TOO_OFTEN = f"the list edits this task more than {_ROUNDS} times: send its changes together"
# Each item of a list with edges is a transaction, and may look at as much as one may: those of a
# request together keep a thread for so long, and a little longer.
_LINKING_SECONDS_MAX = 3.0
# What a running task may do to what waits for it, besides submitting further tasks.
_TASK_MAY_ADD = {f"add_{name}" for name in CHILD_LISTS}
_LINKS = [f"{what}_{name}" for what in ("add", "remove") for name in CHILD_LISTS]


class _OvertakenError(BanyanError):
    """Another edit of the task came first, and it may be decided anew."""


def edit_one(call: Call) -> Answer:
    """PATCH /tasks/<id>, and every virtual write to one task."""
    assert call.item_id is not None  # noqa: S101 - an item's route
    result = _edit(call, [(call.item_id, call.body)])[0]
    if isinstance(result, BanyanError):
        raise result
    return Answer(result)


def edit_many(call: Call) -> Answer:
    """PATCH /tasks: each item for itself; 200 where all were applied, else 207.

    Of several tasks the results are left out of the answer.
    """
    bodies = call.body
    if not isinstance(bodies, list) or not bodies:
        raise BanyanError("invalid", 'a list of {"_id": ..., ...updates}, please')
    if len(bodies) > knobs().BULK_ITEMS_MAX:
        raise BanyanError("too_large", f"at most {knobs().BULK_ITEMS_MAX} items in a request")
    refuse_too_many_edges(bodies, _LINKS)
    report.refuse_too_many_chunks(bodies)
    results: list[Result | None] = [_malformed(body) for body in bodies]
    good = [index for index, problem in enumerate(results) if problem is None]
    pairs = [(ObjectId(bodies[i]["_id"]), _without_id(bodies[i])) for i in good]
    for index, result in zip(good, _edit(call, pairs), strict=True):
        results[index] = result
    items = [
        _told(body, result)
        for body, result in zip(bodies, results, strict=True)
        if result is not None
    ]
    failed = any(item["_status"] == "ERR" for item in items)
    answer = {"_status": "ERR" if failed else "OK", "_items": items}
    return Answer(answer, 207 if failed else 200)


def _malformed(body: Any) -> BanyanError | None:
    if (
        isinstance(body, dict)
        and isinstance(body.get("_id"), str)
        and ObjectId.is_valid(body["_id"])
    ):
        return None
    return BanyanError("invalid", "see _issues", {"_id": "an id of 24 hex digits, please"})


def _without_id(body: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in body.items() if name != "_id"}


def _told(body: Any, result: Result) -> Document:
    if not isinstance(result, BanyanError):
        return result
    item = result.body()
    if isinstance(body, dict) and "_id" in body:
        item["_id"] = body["_id"]
    return item


def edit_together(call: Call, edits: Mapping[ObjectId, Mapping[str, Any]]) -> None:
    """Several edits as a whole: nothing is written unless all may be. Errors: the first refusal."""
    if call.caller.has("worker") and not call.caller.has("provider", "operator"):
        _reports_together(call, edits)
        return
    found = _changeable(call, edits, ["owner", "state", "holder"])
    absent = [str(task_id) for task_id in edits if task_id not in found]
    if absent:
        told = absent[: validation.DOCUMENTS_TOLD_MAX]
        issues = dict.fromkeys(told, "there is no such task for you")
        message = f"{len(absent)} of the targets are not there; nothing was written"
        raise BanyanError("invalid", message, issues)
    # Many targets have one and the same body: it is read once.
    read: dict[int, Edit] = {}
    parsed: list[Edit] = []
    for task_id, body in edits.items():
        if id(body) not in read:
            read[id(body)] = read_edit(call, task_id, body)
        parsed.append(replace(read[id(body)], task_id=task_id))
    link.write_together(call, parsed, found)


def _reports_together(call: Call, edits: Mapping[ObjectId, Mapping[str, Any]]) -> None:
    report.refuse_too_many_chunks(edits.values())
    reports = [_read_report(call, task_id, body) for task_id, body in edits.items()]
    for result in report.report_many(call, reports, as_a_whole=True):
        if isinstance(result, BanyanError):
            raise result


def _edit(call: Call, pairs: Sequence[tuple[ObjectId, Any]]) -> list[Result]:
    """Sort the items by what they ask, and do each kind in as few commands as it takes."""
    results: dict[int, Result] = {}
    reports: dict[int, report.Report] = {}
    edits: dict[int, Edit] = {}
    for index, (task_id, body) in enumerate(pairs):
        try:
            if not isinstance(body, dict):
                raise BanyanError("invalid", "a JSON object of fields to change, please")
            if _is_claim(call, body):
                results[index] = _claim(call, task_id, body)
            elif _is_report(call, body):
                reports[index] = _read_report(call, task_id, body)
            else:
                edits[index] = _read_edit(call, task_id, body)
        except BanyanError as error:
            results[index] = error
    if reports:
        results.update(zip(reports, report.report_many(call, list(reports.values())), strict=True))
    if edits:
        results.update(zip(edits, _apply(call, list(edits.values())), strict=True))
    return [results[index] for index in range(len(pairs))]


def _is_claim(call: Call, body: Mapping[str, Any]) -> bool:
    """A provider who asks for `running` has not claimed: that is a move like any other."""
    claims = call.caller.has("worker") or "update_execution_data" in body
    return claims and body.get("state") == State.RUNNING


def _claim(call: Call, task_id: ObjectId, body: Mapping[str, Any]) -> Document:
    if not call.caller.has("worker"):
        raise BanyanError("forbidden", "only a worker claims tasks")
    more = body.keys() - {"state", "update_execution_data"}
    if more:
        raise BanyanError("invalid", "a claim changes nothing else", dict.fromkeys(more, "not now"))
    data = body.get("update_execution_data")
    named, issues = validation.check(CLAIM_ONE, {} if data is None else data)
    if issues:
        message = "a claim names its worker, and nothing else"
        raise BanyanError("invalid", message, {"update_execution_data": issues})
    return claim.claim_one(call, task_id, named["worker"])


def _is_report(call: Call, body: Mapping[str, Any]) -> bool:
    """Whether a worker speaks: what it may send is about the attempt that it holds.

    A running task that speaks for itself says how far it is, and what it gives back.
    """
    if call.caller.task:
        return bool(body) and body.keys() <= {"progress", "result"}
    if "update_execution_data" in body or body.get("state") == State.TERMINATED:
        if not call.caller.has("worker") and "update_execution_data" in body:
            raise BanyanError("forbidden", "only the worker that holds the attempt reports on it")
        return call.caller.has("worker")
    return call.caller.has("worker") and not call.caller.has("provider", "operator")


def _read_report(call: Call, task_id: ObjectId, body: Mapping[str, Any]) -> report.Report:
    """Appends to the attempt are members of `update_execution_data` under another name."""
    rows = current_app.config["VIRTUAL_RESOURCES"]["tasks"]
    own = {"state", "update_execution_data", *report.OWN_FIELDS}
    appended: dict[str, Any] = {}
    for name in body.keys() - own:
        row = rows.get(name)
        if row is None or not str(row.get("target", "")).startswith("attempt.") or row["readonly"]:
            raise BanyanError("forbidden", f"a worker may not change {name!r}")
        appended[row["field"]] = body[name]
    data = body.get("update_execution_data")
    if isinstance(data, dict | None) and appended:
        data = {**(data or {}), **appended}
    kept = {name: body[name] for name in body.keys() & own}
    return report.read_report(task_id, {**kept, "update_execution_data": data}, call)


def _read_edit(call: Call, task_id: ObjectId, body: Mapping[str, Any]) -> Edit:
    may_edit = call.caller.has("provider", "operator")
    if not may_edit and not (call.caller.task and body.keys() <= _TASK_MAY_ADD):
        raise BanyanError("forbidden", "only the owner or an operator edits tasks")
    return replace(read_edit(call, task_id, body), if_match=call.if_match)


def _changeable(
    call: Call, task_ids: Any, fields: Sequence[str] | Mapping[str, Any] | None = None
) -> dict[ObjectId, Document]:
    several = fields is None and len(task_ids) > 1
    parts = tasks.WITHOUT_RESULT if several else fields
    return tasks.find(call.store, task_ids, owned(call.caller), parts, bounded=several)


def _apply(call: Call, edits: Sequence[Edit]) -> list[Result]:
    """The results of edits, each made from what the one before it has left.

    What somebody else's edit has overtaken is decided anew; several of one task take turns.
    """
    too_often = BanyanError("invalid", "see _issues", {"_id": _TOO_OFTEN})
    results: list[Result] = [too_often] * len(edits)
    left = list(range(len(edits)))
    for _ in range(_ROUNDS):
        first = {edits[index].task_id: index for index in reversed(left)}
        turn = sorted(first.values())
        for index, result in zip(turn, _apply_once(call, [edits[i] for i in turn]), strict=True):
            results[index] = result
            if not isinstance(result, _OvertakenError):
                left.remove(index)
        if not left:
            break
    return results


def _apply_once(call: Call, edits: Sequence[Edit]) -> list[Result]:
    found = _changeable(call, {edit.task_id for edit in edits})
    results: dict[int, Result] = {}
    changes: dict[int, Change] = {}
    same: list[Document] = []
    until = monotonic() + _LINKING_SECONDS_MAX
    for index, edit in enumerate(edits):
        task = found.get(edit.task_id)
        try:
            if task is None:
                raise missing("tasks", edit.task_id)
            if edit.has_links and monotonic() > until:
                message = "the edges before this one took long; send this item again"
                raise BanyanError("unavailable", message)
            if edit.has_links:
                results[index] = link.write_one(call, edit, task)
                continue
            decision = decide(edit, task)
            if isinstance(decision, Same):
                same.append(task)
                results[index] = _shown(call, task)
            else:
                changes[index] = decision
        except BanyanError as error:
            results[index] = error
    results.update(_write(call, edits, changes, found))
    call.store.confirm(same)
    return [results[index] for index in range(len(edits))]


def _write(
    call: Call,
    edits: Sequence[Edit],
    changes: Mapping[int, Change],
    found: Mapping[ObjectId, Document],
) -> dict[int, Result]:
    """Apply the changes, settle what ended, and tell winners and losers what is there now."""
    reshaped = [change for change in changes.values() if "shape" in change.set]
    as_new = [{**found[one.task_id], **one.set} for one in reshaped]
    SHAPES.admit_stored(call.store, as_new)
    SHAPES.note(call.store, as_new)
    written = dict(zip(changes, tasks.apply(call.store, list(changes.values())), strict=True))
    aftermath.follow(call.context, [changes[i] for i, fields in written.items() if fields], found)
    # What was written is known; what others wrote, and what settling did, is to be read.
    unknown = [one.task_id for i, one in changes.items() if one.ends or not written[i]]
    parts = tasks.WITHOUT_RESULT if len(changes) > 1 else None
    current = tasks.find(call.store, unknown, fields=parts) if unknown else {}
    results: dict[int, Result] = {}
    for index, change in changes.items():
        fields = written[index]
        if fields and not change.ends:
            results[index] = _shown(call, {**found[change.task_id], **fields})
            continue
        task = current.get(change.task_id)
        if task is None:
            results[index] = missing("tasks", change.task_id)
        elif fields == tasks.TOO_LARGE:
            results[index] = sizes.too_large()
        elif fields is None:
            message = f"another request was faster: the task is {task['state']}"
            same = task["state"] == found[change.task_id]["state"] and edits[index].if_match is None
            kind = _OvertakenError if same else BanyanError
            results[index] = kind("conflict", message, extra={"state": task["state"]})
        else:
            results[index] = _shown(call, task)
    return results


def _shown(call: Call, task: Document) -> Document:
    return {**represent.changed(call, task), "_status": "OK"}
