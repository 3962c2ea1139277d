"""Steal: an idle worker takes tasks that others have claimed and not started.

What its holder must report as started before it starts it is taken at once: the holder is
replaced in one compare-and-set that demands that the attempt has not started. One of the two
comes first, and the other is refused.

What was claimed ahead by a worker that need not ask before it starts ("start": true) only that
worker knows to be waiting still. It is told in its beat which an idle worker wants, and gives
back those that it has not started and never will; the idle one, whose claim is held, gets them
by that. Such a task is never on two workers, and costs no request where nobody is idle.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from bson import ObjectId

from banyan.domain import lifecycle
from banyan.domain.lifecycle import ATTEMPTS_MAX, Change
from banyan.domain.resources import Capacity, Grant, capacity_from, fits, grant_for
from banyan.server import aftermath, represent, validation, weights
from banyan.server.auth import check_queues
from banyan.server.calls import Answer, Call
from banyan.server.schemas import workers as schemas
from banyan.server.store import attempts, claims, handover, tasks, workers
from banyan.server.store.mongo import Document, now
from banyan.server.twins import one_at_a_time
from banyan.server.verbs import claim
from banyan.server.verbs.choosing import has_labels
from banyan.server.verbs.leases import renewed

_ROUNDS = 4
# Read more than is asked for: some may not be taken, some will be lost to other thieves.
_LOOK_MIN = 64
_LOOK_FURTHER = 4


class _Loot(NamedTuple):
    """A task that the thief may take; `waits`: it has no room for it at once."""

    task: Document
    grant: Grant
    waits: bool


def steal(call: Call) -> Answer:
    """POST /tasks/steal, as a claim: {"worker", "max", "fits", "queues", "labels", "start"}."""
    body = validation.demand(schemas.CLAIM, call.body)
    check_queues(call.caller, body.get("queues", ()))
    with one_at_a_time(body.get("claim_id")):
        worker = renewed(call, body["worker"], claim_id=body.get("claim_id"))
        stolen = claim.claimed_before(call, worker, body)
        if stolen is None:
            stolen = take_away(call, worker, body) if worker["mode"] == "active" else []
    return Answer({"_items": [claim.shown(call, task) for task in stolen]})


def take_away(call: Call, thief: Document, body: Mapping[str, Any]) -> list[Document]:
    """What was stolen. Where other thieves were faster, it looks again, and not at the same."""
    for lost_rounds in range(_ROUNDS):
        loot = _loot(call, thief, body, lost_rounds)
        if not loot:
            break
        won = _take(call, thief, body, loot)
        if won or all(one.task["holder"]["started"] for one in loot):
            return won
    return []


def _take(
    call: Call, thief: Document, body: Mapping[str, Any], loot: Sequence[_Loot]
) -> list[Document]:
    """Steals what can be had at once, and asks the victim for the rest; what was stolen."""
    by_id = {one.task["_id"]: one.task for one in loot}
    asked = [one.task for one in loot if one.task["holder"]["started"]]
    thefts = [_theft(one, thief, body) for one in loot if not one.task["holder"]["started"]]
    ends = [_ended(by_id[theft.task_id]) for theft in thefts]
    written = handover.apply(call.store, thefts, ends)
    won = [theft for theft, fields in zip(thefts, written, strict=True) if fields]
    if asked:  # all of one worker
        victim, wanted = asked[0]["holder"]["worker"], [task["holder"]["attempt"] for task in asked]
        workers.want(call.store, victim, wanted)
        claims.asked_for(call.store, asked)
    told = [*asked, *(by_id[theft.task_id] for theft in won)]
    aftermath.tell_workers(call.context, {task["holder"]["worker"] for task in told})
    ids = [theft.task_id for theft in won]
    found: dict[ObjectId, Document] = tasks.find(call.store, ids, fields=tasks.WITHOUT_RESULT)
    represent.announce(call.context, found.values())
    return claim.still_held(found, {theft.task_id: theft.attempt_id for theft in won})


def _loot(call: Call, thief: Document, body: Mapping[str, Any], lost_rounds: int) -> list[_Loot]:
    """Half of what the fullest worker has that the thief may take, what it comes to last.

    lost_rounds: how often others were faster: from then on any of that half.
    """
    queues = body.get("queues", thief["queues"])
    within = body.get("ends_within_milliseconds")
    total = capacity_from(thief["resources"])
    free = claim.free_of(call, thief, body.get("fits"), total)
    wish = {"labels": thief["labels"], "max": claim.TASKS_DEFAULT, "ahead": 0, **body}
    look = max(_LOOK_MIN, _LOOK_FURTHER * (wish["max"] + wish["ahead"]))
    for victim, count in claims.fullest(call.store, thief["_id"], queues, within):
        spare = claims.spare_of(call.store, victim, queues, within, look)
        mine = _may_take(spare, wish, free, total)
        if mine:
            half = mine[: ((len(mine) if count <= look else count) + 1) // 2]
            if lost_rounds:
                random.shuffle(half)
            return _that_there_is_room_for(weights.together(half), wish, free)
    return []


def _may_take(
    spare: Sequence[Document], wish: Mapping[str, Any], free: Capacity, total: Capacity
) -> list[tuple[Document, Grant]]:
    """What fits in now; what is claimed ahead, too, but a victim is asked only by the idle."""
    later = total if wish["ahead"] else free
    granted = [(task, grant_for(task["requested_resources"], total)) for task in spare]
    return [
        (task, grant)
        for task, grant in granted
        if has_labels(task["labels"], wish["labels"])
        and task["attempt_count"] < ATTEMPTS_MAX
        and fits(grant, free if task["holder"]["started"] else later)
    ]


def _that_there_is_room_for(
    half: Sequence[tuple[Document, Grant]], wish: Mapping[str, Any], free: Capacity
) -> list[_Loot]:
    """As many as are asked for; of what the victim must be asked for, all: others are idle too."""
    most, ahead = wish["max"], wish["ahead"]
    loot: list[_Loot] = []
    for task, grant in half:
        goes = most > 0 and fits(grant, free)
        if task["holder"]["started"]:
            loot.append(_Loot(task, grant, waits=True))
        elif goes:
            most, free = most - 1, free.minus(grant)
            loot.append(_Loot(task, grant, waits=False))
        elif ahead > 0:
            ahead -= 1
            loot.append(_Loot(task, grant, waits=True))
    return loot


def _theft(one: _Loot, thief: Document, body: Mapping[str, Any]) -> Change:
    """A claim of the task as if nobody held it, which holds only while it has not started."""
    again = {**one.task, "state": "available"}
    start = bool(body.get("start"))
    spare = one.waits or not start
    change = claim.decide(again, thief, one.grant, body.get("claim_id"), start, spare)
    assert isinstance(change, Change)  # noqa: S101 - what is available may be claimed
    expected = {
        "state": "running",
        "holder.attempt": one.task["holder"]["attempt"],
        "holder.started": False,
    }
    return replace(change, expected=expected)


def _ended(task: Document) -> attempts.Addition:
    """The victim's attempt never started; it ends without fault."""
    end = lifecycle.given_back(task, "stolen before it started", now())
    assert isinstance(end, Change)  # noqa: S101 - it is held
    return attempts.Addition(task["holder"]["attempt"], task["_id"], end.attempt)
