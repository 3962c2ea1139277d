"""The lease of the worker that calls, and the token of the attempt that it reports on."""

from bson import ObjectId

from banyan.errors import BanyanError
from banyan.server.auth import attempt_of
from banyan.server.calls import Call, Caller
from banyan.server.scoped import missing
from banyan.server.store import workers
from banyan.server.store.mongo import Document


def renewed(
    call: Call,
    worker_id: ObjectId,
    fields: Document | None = None,
    claim_id: str | None = None,
) -> Document:
    """The caller's worker as it was, its lease renewed from now on; see `workers.renew`.

    Errors: `not_found` where it is not the caller's or was removed; `lease_lost` where the
    lease has lapsed: the worker must end its attempts and register anew.
    """
    worker = workers.renew(call.store, worker_id, call.caller.account, fields or {}, claim_id)
    if worker:
        return worker
    found = workers.find(call.store, worker_id)
    if not found or found["account"] != call.caller.account:
        raise missing("workers", worker_id)
    if found["mode"] == "off":  # an operator is removing it, its tasks first
        raise missing("workers", worker_id)
    raise BanyanError(
        "lease_lost", "the worker's lease has lapsed: end its attempts, register anew"
    )


def _is_foreign(caller: Caller, task: Document) -> bool:
    """Whether it is no concern of the caller, who must learn nothing of it.

    A running task speaks for itself alone, a worker's account for tasks of its queues.
    """
    if caller.task:
        return bool(task["_id"] != caller.task)
    if caller.queues is None or caller.has("operator"):
        return False
    return task["queue"] not in caller.queues and task["owner"] != caller.account


def demand_token(token: str | None) -> None:
    """Errors: `token_missing` (401)."""
    if not token:
        raise BanyanError("token_missing", "send the attempt's token, from the answer to its claim")


def check_token(call: Call, task: Document, token: str | None) -> ObjectId:
    """The attempt that the token speaks for, which must be the one that holds the task.

    Errors: `token_missing` (401); `lease_lost` (409) for another or an older attempt;
    `not_found` (404) where that would tell of a task that is foreign to the caller;
    `forbidden` (403) for an account that did not claim it.
    """
    demand_token(token)
    attempt_id = attempt_of(call.context.attempt_secret, token)
    holder = task.get("holder") or {}
    if attempt_id is None or holder.get("attempt") != attempt_id:
        if _is_foreign(call.caller, task):
            raise missing("tasks", task["_id"])
        state = {"state": task["state"]}
        raise BanyanError(
            "lease_lost", "the task is not this attempt's any more; end it", extra=state
        )
    if holder["account"] != call.caller.account and call.caller.attempt != attempt_id:
        raise BanyanError("forbidden", "this token belongs to another account's attempt")
    return attempt_id
