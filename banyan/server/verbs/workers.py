"""Workers come, drain and go."""

from collections.abc import Mapping
from typing import Any

from bson import ObjectId

from banyan.config import knobs
from banyan.domain.lifecycle import READ_AT_END
from banyan.errors import BanyanError
from banyan.server import aftermath, represent, scoped, validation
from banyan.server.auth import check_queues, scope
from banyan.server.calls import Answer, Call, Context
from banyan.server.quotas import QUOTAS, WORKERS
from banyan.server.schemas.answers import NOTHING
from banyan.server.schemas.workers import AS_CREATED, SAID_BYTES_MAX, SCHEMA
from banyan.server.store import accounts, sizes, tasks, workers
from banyan.server.store.mongo import Document, new_etag, now
from banyan.server.verbs.release import give_back


def register(call: Call) -> Answer:
    """POST /workers: 201 with the worker and the lease that it must keep."""
    body = validation.demand(SCHEMA, call.body)
    _check_size(body)
    if call.caller.queues is not None:
        body.setdefault("queues", sorted(call.caller.queues))
        check_queues(call.caller, body["queues"])
    QUOTAS.admit(call.store, call.caller.account, 1, WORKERS)
    time = now()
    worker: Document = {
        "_id": ObjectId(),
        **AS_CREATED,
        **body,
        "account": call.caller.account,
        "mode": "active",
        "last_beat": time,
        "used": {},
        "_created": time,
        "_updated": time,
        "_etag": new_etag(),
    }
    workers.insert(call.store, worker)
    _refuse_revoked(call, worker)
    lease = {
        "lease_seconds": knobs().LEASE_SECONDS,
        "lease_margin_seconds": knobs().LEASE_MARGIN_SECONDS,
    }
    return Answer({**represent.worker(call, worker), **lease, "_status": "OK"}, 201)


def _refuse_revoked(call: Call, worker: Document) -> None:
    """Errors: `unauthenticated`. A remembered token may have just lost its worth.

    Asked after the worker is stored: whoever revokes the account notes that before it looks for
    workers, and so one of the two finds the other.
    """
    if accounts.is_revoked(call.store, worker["account"]):
        workers.delete(call.store, [worker["_id"]])
        raise BanyanError("unauthenticated", "this account has been revoked")


def _check_size(body: Document) -> None:
    """Errors: `too_large`. All live workers are read again and again, by every server."""
    found = sizes.bytes_of({name: body.get(name) for name in ("resources", "queues", "labels")})
    if found > SAID_BYTES_MAX:
        message = (
            f"resources, queues and labels take {found:,} bytes together, and may take "
            f"{SAID_BYTES_MAX:,}: send fewer queues and labels, or shorter ones, or a count of GPUs"
        )
        raise BanyanError("too_large", message)


def drain(call: Call) -> Answer:
    """POST /workers/<id>/drain: it finishes what runs and takes nothing new."""
    return _change(call, "active", "draining")


def resume(call: Call) -> Answer:
    """POST /workers/<id>/resume: it takes tasks again; one that is lost or off stays so."""
    return _change(call, "draining", "active")


def _change(call: Call, before: str, after: str) -> Answer:
    validation.demand(NOTHING, {} if call.body is None else call.body)
    worker = _own(call)
    if worker["mode"] == before:
        worker = workers.set_mode(call.store, worker["_id"], after, before) or worker
        aftermath.tell_workers(call.context, {worker["_id"]})
    return Answer({**represent.worker(call, worker), "_status": "OK"})


def remove(call: Call) -> Answer:
    """DELETE /workers/<id>: 204. What it holds is given back; its next beat gets 404.

    `?lost=1`: all that it ran was killed with it. A task that does that is not to run for ever.
    """
    said = call.args.get("lost", "0")
    if said not in ("0", "1"):
        raise BanyanError("bad_request", f"lost: expected 0 or 1, got {said!r}")
    worker = {"_id": _own(call)["_id"]}
    if said == "1":
        _remove_all(call.context, worker, "lost with its worker", lost=True)
    else:
        _remove_all(call.context, worker, "its worker was removed")
    return Answer(None, 204)


def remove_of(context: Context, account: str) -> None:
    """Remove all workers of an account that was revoked."""
    _remove_all(context, {"account": account}, "the account of its worker was revoked")


def _remove_all(
    context: Context, query: Mapping[str, Any], reason: str, lost: bool = False
) -> None:
    """Remove workers; what they hold is given back, for that reason."""
    removed = workers.turn_off(context.store, query)
    for held in tasks.held_in_pieces(context.store, removed, READ_AT_END):
        give_back(context, held, reason, lost)
    workers.delete(context.store, removed)
    for worker_id in removed:
        context.signals.signal(f"worker:{worker_id}")


def running(call: Call) -> Answer:
    """GET /workers/<id>/running: the tasks that it holds, as far as the caller may see them.

    {"_items": [tasks], "truncated"}: of large ones as many as PAGE_BYTES_MAX has room for.
    """
    worker = scoped.item(call, ["_id"])
    query = {"$and": [{"holder.worker": worker["_id"]}, scope(call.caller, "tasks")]}
    found = tasks.held_within(call.store, query, knobs().PAGE_BYTES_MAX)
    items = [represent.task(call, task) for task in found.documents]
    return Answer({"_items": items, "truncated": found.is_cut})


def _own(call: Call) -> Document:
    """The worker, for an operator or for its own account. Errors: `not_found`."""
    worker = workers.find(call.store, call.item_id) if call.item_id else None
    if not worker:
        raise scoped.missing("workers", call.item_id)
    if not call.caller.has("operator") and worker["account"] != call.caller.account:
        raise BanyanError("not_found", scoped.missing("workers", call.item_id).message)
    return worker
