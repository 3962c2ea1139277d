"""Workers come, drain and go."""

from bson import ObjectId

from banyan.config import knobs
from banyan.domain.lifecycle import READ_AT_END
from banyan.errors import BanyanError
from banyan.server import aftermath, represent, scoped, validation
from banyan.server.auth import check_queues, scope
from banyan.server.calls import Answer, Call
from banyan.server.quotas import QUOTAS, WORKERS
from banyan.server.schemas.answers import NOTHING
from banyan.server.schemas.workers import SAID_BYTES_MAX, SCHEMA
from banyan.server.store import sizes, tasks, workers
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
        "queues": ["default"],
        "labels": {},
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
    lease = {
        "lease_seconds": knobs().LEASE_SECONDS,
        "lease_margin_seconds": knobs().LEASE_MARGIN_SECONDS,
    }
    return Answer({**represent.worker(call, worker), **lease, "_status": "OK"}, 201)


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
    """DELETE /workers/<id>: 204. What it holds is given back; its next beat gets 404."""
    worker = _own(call)
    workers.set_mode(call.store, worker["_id"], "off")  # from here on it renews nothing
    for held in tasks.held_in_pieces(call.store, [worker["_id"]], READ_AT_END):
        give_back(call.context, held, "its worker was removed")
    workers.delete(call.store, worker["_id"])
    call.context.signals.signal(f"worker:{worker['_id']}")
    return Answer(None, 204)


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
