"""Release: a worker gives tasks back that it has claimed; nobody is to blame for it."""

from collections.abc import Sequence

from bson import ObjectId

from banyan.domain import lifecycle
from banyan.domain.lifecycle import Change
from banyan.errors import BanyanError
from banyan.server import aftermath, represent
from banyan.server.auth import attempt_of
from banyan.server.calls import OK, Answer, Call, Context
from banyan.server.store import attempts, tasks
from banyan.server.store.mongo import Document, now
from banyan.server.verbs.leases import check_token

TOKENS_MAX = 1024


def release(call: Call) -> Answer:
    """POST /tasks/<id>/release {"token"}, POST /tasks/release {"tokens": [...]}."""
    if call.item_id:
        return Answer(_one(call, call.item_id))
    tokens = call.body.get("tokens") if isinstance(call.body, dict) else None
    if not isinstance(tokens, list) or not all(isinstance(token, str) for token in tokens):
        raise BanyanError("invalid", "see _issues", {"tokens": "a list of attempt tokens"})
    if len(tokens) > TOKENS_MAX:
        raise BanyanError("too_large", f"at most {TOKENS_MAX} tokens")
    held = {attempt_of(call.context.attempt_secret, token) for token in tokens} - {None}
    query = {"holder.attempt": {"$in": list(held)}, "holder.account": call.caller.account}
    give_back(call.context, tasks.held(call.store, query), "released by its worker")
    return Answer(OK)


def _one(call: Call, task_id: ObjectId) -> Document:
    found = tasks.find(call.store, [task_id]).get(task_id)
    if found is None:
        raise BanyanError("not_found", f"there is no task {task_id}")
    token = call.body.get("token") if isinstance(call.body, dict) else None
    check_token(call, found, token)
    give_back(call.context, [found], "released by its worker")
    current = tasks.find(call.store, [task_id])[task_id]
    return {**represent.task(call, current), **OK}


def give_back(context: Context, held: Sequence[Document], reason: str, lost: bool = False) -> int:
    """End the attempts that hold these tasks; the tasks may run elsewhere.

    lost: the worker failed them, which counts against `max_lost_count`.
    Returns how many were given back; the others changed meanwhile.
    """
    decide = lifecycle.lost if lost else lifecycle.given_back
    decisions = [decide(task, reason, now()) for task in held]
    changes = [one for one in decisions if isinstance(one, Change)]
    written = tasks.apply(context.store, changes)
    won = [change for change, fields in zip(changes, written, strict=True) if fields]
    attempts.record(context.store, won)
    aftermath.follow(context, won, {})
    return len(won)
