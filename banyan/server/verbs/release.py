"""Release: a worker gives tasks back that it has claimed; nobody is to blame for it."""

from collections.abc import Sequence

from bson import ObjectId

from banyan.domain import lifecycle
from banyan.domain.lifecycle import Change
from banyan.server import aftermath, represent, validation
from banyan.server.auth import attempt_of
from banyan.server.calls import OK, Answer, Call, Context
from banyan.server.schemas import answers as schemas
from banyan.server.scoped import missing
from banyan.server.store import handover, tasks
from banyan.server.store.mongo import Document, now
from banyan.server.verbs.leases import check_token, demand_token

_REASON = "released by its worker"
_ROUNDS = 5
_CHANGED_BY_OTHERS = ("attempt_id", "edit_count", "revival_count")


def release(call: Call) -> Answer:
    """POST /tasks/<id>/release {"token"}, POST /tasks/release {"tokens": [...], "reason"}."""
    if call.item_id:
        return Answer(_one(call, call.item_id))
    body = validation.demand(schemas.RELEASE_MANY, call.body)
    held = {attempt_of(call.context.attempt_secret, token) for token in body["tokens"]} - {None}
    query = {"holder.attempt": {"$in": list(held)}, "holder.account": call.caller.account}
    reason = body.get("reason", _REASON)
    give_back(call.context, tasks.held(call.store, query, lifecycle.READ_AT_END), reason)
    return Answer(OK)


def _one(call: Call, task_id: ObjectId) -> Document:
    body = validation.demand(schemas.RELEASE, {} if call.body is None else call.body)
    demand_token(body.get("token"))  # before anything is told of the task
    found = tasks.find(call.store, [task_id]).get(task_id)
    if found is None:
        raise missing("tasks", task_id)
    check_token(call, found, body.get("token"))
    given = give_back(call.context, [found], _REASON)
    current = tasks.find(call.store, [task_id])[task_id]
    if not given:  # its worker may have lost it meanwhile
        check_token(call, current, body.get("token"))
    is_as_it_was = all(current.get(name) == found.get(name) for name in _CHANGED_BY_OTHERS)
    show = represent.task if given and is_as_it_was else represent.held_before
    return {**show(call, current), **OK}


def give_back(context: Context, held: Sequence[Document], reason: str, lost: bool = False) -> int:
    """End the attempts that hold these tasks; the tasks may run elsewhere.

    Where one has changed meanwhile (it was cancelled, say) and is still held, it is ended as it
    is now: its worker has let go of it for good.
    lost: the worker failed them, which counts against `max_lost_count`.
    Of many, some at a time: a transaction may take seconds only.
    Returns how many were given back; the others are held no more.
    """
    pieces = range(0, len(held), tasks.HELD_AT_ONCE)
    return sum(
        _give_back_some(context, held[start : start + tasks.HELD_AT_ONCE], reason, lost)
        for start in pieces
    )


def _give_back_some(context: Context, held: Sequence[Document], reason: str, lost: bool) -> int:
    decide = lifecycle.lost if lost else lifecycle.given_back
    count = 0
    left = list(held)
    for _ in range(_ROUNDS):
        if not left:
            break
        decisions = [decide(task, reason, now()) for task in left]
        changes = [one for one in decisions if isinstance(one, Change)]
        written = handover.apply(context.store, changes)
        won = [change for change, fields in zip(changes, written, strict=True) if fields]
        aftermath.follow(context, won, {})
        count += len(won)
        beaten = [change for change, fields in zip(changes, written, strict=True) if not fields]
        attempts = {"$in": [change.attempt_id for change in beaten]}
        query = {"holder.attempt": attempts}
        left = tasks.held(context.store, query, lifecycle.READ_AT_END) if beaten else []
    return count
