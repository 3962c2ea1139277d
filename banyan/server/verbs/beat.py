"""Beat: one call that renews the lease of all of a worker's attempts.

The answer carries what the worker must do: cancel, give up, drain; and what an idle worker
wants of it, which it gives back where it has not started it. With `Prefer: wait`
it is held until there is something new to say, so that a cancellation is there at once.
What the worker has heard already it names by `If-None-Match`, the ETag of that answer.
"""

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

from werkzeug.http import parse_etags

from banyan.config import knobs
from banyan.domain.lifecycle import READ_AT_END
from banyan.domain.states import State
from banyan.server import validation
from banyan.server.calls import Answer, Call
from banyan.server.render import dumps
from banyan.server.schemas import workers as schemas
from banyan.server.store import tasks, workers
from banyan.server.store.mongo import Document
from banyan.server.unheard import UNHEARD
from banyan.server.verbs.leases import renewed
from banyan.server.verbs.release import give_back

_OF_HELD = ("state", "forced", "holder.attempt", "holder.claim_id")
_NOTHING_WANTED: Document = {"number": 0, "attempts": []}


def beat(call: Call) -> Answer:
    """POST /workers/<id>/beat {"attempts": [...], "claims": [...], "used": {...}}.

    attempts: all that the worker knows of; claims: claim_ids whose answer it may still get.
    """
    assert call.item_id is not None  # noqa: S101 - the row has the level `item` only
    body = validation.demand(schemas.BEAT, {} if call.body is None else call.body)
    fields = {"used": body["used"]} if "used" in body else {}
    worker = renewed(call, call.item_id, fields)
    # Who has just taken over has claimed nothing yet: the list is of all that there is. A request
    # that arrives a second time, or after the next one has taken over, says nothing of that kind.
    number = body.get("takes_over")
    takes_over = number is not None and workers.take_over(call.store, call.item_id, number)
    held = tasks.held_by(call.store, [call.item_id], _OF_HELD)
    wanted = worker.get("wanted", _NOTHING_WANTED)
    if body.get("wanted_number") == wanted["number"]:
        wanted = {**wanted, "attempts": []}
    orders = {
        "mode": worker["mode"],
        "cancel": [_cancelled(one) for one in held if one["state"] == State.PENDING_CANCELLATION],
        "lost": _reconcile(call, worker, held, body, takes_over) if "attempts" in body else [],
        "wanted": wanted,
    }
    etag = _etag(orders)
    quiet = not orders["cancel"] and not orders["lost"] and worker["mode"] == "active"
    quiet = quiet and body.get("wanted_number", wanted["number"]) == wanted["number"]
    known = call.headers.get("If-None-Match")
    # To who has heard of a drain it is news that all is quiet again.
    nothing_new = parse_etags(known).contains_weak(etag) if known else quiet
    return Answer(
        {"lease_seconds": knobs().LEASE_SECONDS, **orders},
        headers={"ETag": f'"{etag}"'},
        wait_for=[f"worker:{call.item_id}"] if nothing_new else (),
    )


def _cancelled(task: Document) -> Document:
    forced = task.get("forced", False)
    return {"task": task["_id"], "attempt": task["holder"]["attempt"], "force": forced}


def _etag(orders: Mapping[str, Any]) -> str:
    """Of what is wanted the number alone: who tells it with the next beat is not told again."""
    told = dumps({**orders, "wanted": orders["wanted"]["number"]})
    return hashlib.sha1(told, usedforsecurity=False).hexdigest()


def _reconcile(
    call: Call,
    worker: Document,
    held: Iterable[Document],
    body: Mapping[str, Any],
    takes_over: bool,
) -> list[Any]:
    """What the worker thinks it holds and does not; and the other way round, give it back."""
    known, unanswered = body["attempts"], body.get("claims", ())
    listed = set(known)
    by_attempt = {task["holder"]["attempt"]: task for task in held}
    heard = {
        attempt
        for attempt, task in by_attempt.items()
        if attempt in listed or task["holder"].get("claim_id") in unanswered
    }
    unknown = by_attempt.keys() - heard
    lacked = unknown if takes_over else UNHEARD.lacked(worker["_id"], unknown)
    if lacked:
        ids = [by_attempt[one]["_id"] for one in lacked]
        attempts = {"_id": {"$in": ids}, "holder.attempt": {"$in": list(lacked)}}
        stale = tasks.held(call.store, attempts, READ_AT_END)
        give_back(call.context, stale, "its worker does not know of it")
    if len(by_attempt) >= tasks.HELD_MAX:
        return []  # there may be more, and these may be among them
    return [one for one in known if one not in by_attempt]
