"""Steal: an idle worker takes tasks that others have claimed and not started.

The holder is replaced in one compare-and-set that demands that the attempt has not
started; a worker starts a task only after its own compare-and-set said so. One of the
two comes first, and the other is refused.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from bson import ObjectId

from banyan.domain.lifecycle import Change
from banyan.domain.resources import Capacity, capacity_from, fits, grant_for
from banyan.server import aftermath, validation
from banyan.server.calls import Answer, Call
from banyan.server.schemas import workers as schemas
from banyan.server.store import attempts, tasks
from banyan.server.store.mongo import Document, now
from banyan.server.verbs import claim
from banyan.server.verbs.leases import renewed


def steal(call: Call) -> Answer:
    """POST /tasks/steal, as a claim: {"worker", "max", "fits", "queues", "labels", "start"}."""
    body = validation.demand(schemas.CLAIM, call.body)
    worker = renewed(call, body["worker"])
    if worker["mode"] != "active":
        return Answer({"_items": []})
    stolen = _take_away(call, worker, _fullest(call, worker), body)
    items = [claim.shown(call, task) for task in stolen]
    return Answer({"_items": items})


def _fullest(call: Call, thief: Document) -> list[Document]:
    """What may be stolen: half of what the worker that holds most has not started."""
    query = {"holder.started": False, "holder.worker": {"$ne": thief["_id"]}, "state": "running"}
    idle = tasks.held(call.store, query)
    counts = Counter(task["holder"]["worker"] for task in idle)
    if not counts:
        return []
    victim, count = counts.most_common(1)[0]
    mine = sorted(
        (task for task in idle if task["holder"]["worker"] == victim),
        key=lambda task: (task["priority"], -task["seq"]),  # what the victim comes to last
    )
    return mine[: (count + 1) // 2]


def _take_away(
    call: Call, thief: Document, loot: list[Document], body: Mapping[str, Any]
) -> list[Document]:
    total = capacity_from(thief["resources"])
    chosen = _fitting(loot, thief, body, claim.free_of(call, thief, body.get("fits"), total), total)
    claims: list[Change] = []
    for task, grant in chosen:
        again = {**task, "state": "available"}
        decision = claim.decide(again, thief, grant, body.get("claim_id"), bool(body.get("start")))
        if isinstance(decision, Change):
            expected = {
                "state": "running",
                "holder.attempt": task["holder"]["attempt"],
                "holder.started": False,
            }
            claims.append(Change(**{**vars(decision), "expected": expected}))
    written = tasks.apply(call.store, claims)
    won = [change for change, fields in zip(claims, written, strict=True) if fields]
    by_id = {task["_id"]: task for task, _ in chosen}
    attempts.report(call.store, [_ended(by_id[change.task_id]) for change in won])
    attempts.record(call.store, won)
    aftermath.tell_workers(call.context, {by_id[c.task_id]["holder"]["worker"] for c in won})
    found: dict[ObjectId, Document] = tasks.find(call.store, [change.task_id for change in won])
    return [found[change.task_id] for change in won if change.task_id in found]


def _fitting(
    loot: list[Document], thief: Document, body: Mapping[str, Any], free: Capacity, total: Capacity
) -> list[tuple[Document, Any]]:
    chosen = []
    for task in loot[: body.get("max", claim.TASKS_DEFAULT)]:
        grant = grant_for(task["requested_resources"], total)
        served = task["queue"] in body.get("queues", thief["queues"])
        labels = body.get("labels", thief["labels"])
        if served and claim.has_labels(task["labels"], labels) and fits(grant, free):
            chosen.append((task, grant))
            free = free.minus(grant)
    return chosen


def _ended(task: Document) -> attempts.Addition:
    """The victim's attempt never started; it ends without fault."""
    fields = {"exit_status": "lost", "reason": "stolen before it started", "time_terminated": now()}
    return attempts.Addition(task["holder"]["attempt"], task["_id"], fields)
