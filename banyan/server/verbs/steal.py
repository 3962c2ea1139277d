"""Steal: an idle worker takes tasks that others have claimed and not started.

The holder is replaced in one compare-and-set that demands that the attempt has not
started; a worker starts a task only after its own compare-and-set said so. One of the
two comes first, and the other is refused.
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from bson import ObjectId

from banyan.domain import lifecycle
from banyan.domain.lifecycle import Change
from banyan.domain.resources import Grant, capacity_from, fits, grant_for
from banyan.server import aftermath, represent, validation
from banyan.server.calls import Answer, Call
from banyan.server.schemas import workers as schemas
from banyan.server.store import attempts, claims, tasks
from banyan.server.store.mongo import Document, now
from banyan.server.verbs import claim
from banyan.server.verbs.leases import renewed


def steal(call: Call) -> Answer:
    """POST /tasks/steal, as a claim: {"worker", "max", "fits", "queues", "labels", "start"}."""
    body = validation.demand(schemas.CLAIM, call.body)
    worker = renewed(call, body["worker"])
    stolen = claim.claimed_before(call, worker, body)
    if stolen is None:
        stolen = _take_away(call, worker, body) if worker["mode"] == "active" else []
    return Answer({"_items": [claim.shown(call, task) for task in stolen]})


def _take_away(call: Call, thief: Document, body: Mapping[str, Any]) -> list[Document]:
    loot = {task["_id"]: (task, grant) for task, grant in _loot(call, thief, body)}
    thefts = [_theft(task, thief, grant, body) for task, grant in loot.values()]
    written = tasks.apply(call.store, thefts)
    won = [theft for theft, fields in zip(thefts, written, strict=True) if fields]
    attempts.report(call.store, [_ended(loot[theft.task_id][0]) for theft in won])
    attempts.record(call.store, won)
    aftermath.tell_workers(
        call.context, {loot[theft.task_id][0]["holder"]["worker"] for theft in won}
    )
    found: dict[ObjectId, Document] = tasks.find(call.store, [theft.task_id for theft in won])
    represent.announce(call.context, found.values())
    return [found[theft.task_id] for theft in won if theft.task_id in found]


def _loot(call: Call, thief: Document, body: Mapping[str, Any]) -> list[tuple[Document, Grant]]:
    """Of the worker that has most of what the thief may take: half of that, if it fits."""
    total = capacity_from(thief["resources"])
    free = claim.free_of(call, thief, body.get("fits"), total)
    labels = body.get("labels", thief["labels"])
    queues = body.get("queues", thief["queues"])
    by_victim: dict[ObjectId, list[tuple[Document, Grant]]] = defaultdict(list)
    within = body.get("ends_within_milliseconds")
    for task in claims.not_started(call.store, thief["_id"], queues, within):
        grant = grant_for(task["requested_resources"], total)
        if claim.has_labels(task["labels"], labels) and fits(grant, free):
            by_victim[task["holder"]["worker"]].append((task, grant))
    fullest = max(by_victim.values(), key=len, default=[])
    fullest.sort(key=lambda one: (one[0]["priority"], -one[0]["seq"]))  # what it comes to last
    most = min(body.get("max", claim.TASKS_DEFAULT), (len(fullest) + 1) // 2)
    chosen: list[tuple[Document, Grant]] = []
    for task, grant in fullest:
        if len(chosen) < most and fits(grant, free):
            chosen.append((task, grant))
            free = free.minus(grant)
    return chosen


def _theft(task: Document, thief: Document, grant: Grant, body: Mapping[str, Any]) -> Change:
    """A claim of the task as if nobody held it, which holds only while it has not started."""
    again = {**task, "state": "available"}
    change = claim.decide(again, thief, grant, body.get("claim_id"), bool(body.get("start")))
    assert isinstance(change, Change)  # noqa: S101 - what is available may be claimed
    expected = {
        "state": "running",
        "holder.attempt": task["holder"]["attempt"],
        "holder.started": False,
    }
    return replace(change, expected=expected)


def _ended(task: Document) -> attempts.Addition:
    """The victim's attempt never started; it ends without fault."""
    end = lifecycle.given_back(task, "stolen before it started", now())
    assert isinstance(end, Change)  # noqa: S101 - it is held
    return attempts.Addition(task["holder"]["attempt"], task["_id"], end.attempt)
