"""Claim, as a request: what waits for a worker; and where nothing does, what others can spare.

The two ways are verbs of their own (`claim.py`, `steal.py`). Here they are one question, so that
a worker with nothing to do asks once and then waits.
"""

import hashlib
from collections.abc import Mapping
from typing import Any

import orjson

from banyan.config import knobs
from banyan.server import validation
from banyan.server.auth import check_queues
from banyan.server.calls import Answer, Call
from banyan.server.schemas import workers as schemas
from banyan.server.twins import one_at_a_time
from banyan.server.verbs import steal
from banyan.server.verbs.claim import claim_many, claim_one, shown
from banyan.server.verbs.leases import renewed


def claim(call: Call) -> Answer:
    """POST /tasks/<id>/claim and POST /tasks/claim; "steal": true, if nothing waits, also that."""
    if call.item_id:
        named = validation.demand(schemas.CLAIM_ONE, call.body)
        return Answer(claim_one(call, call.item_id, named["worker"]))
    body = validation.demand(schemas.CLAIM, call.body)
    check_queues(call.caller, body.get("queues", ()))
    with one_at_a_time(body.get("claim_id")):
        worker = renewed(call, body["worker"], claim_id=body.get("claim_id"))
        claimed = claim_many(call, worker, body)
        if not claimed and body.get("steal") and worker["mode"] == "active":
            claimed = steal.take_away(call, worker, body)
    items = [shown(call, task) for task in claimed]
    answer = {"_items": items, "lease_seconds": knobs().LEASE_SECONDS}
    if items:
        return Answer(answer)
    topics = ("available", f"worker:{worker['_id']}")
    return Answer(answer, wait_for=topics, wait_as=_claimant(worker, body))


def _claimant(worker: Mapping[str, Any], body: Mapping[str, Any]) -> str:
    """Account, worker, and a digest that is equal where the same would be found."""
    wish = {name: value for name, value in body.items() if name not in ("worker", "claim_id")}
    of_worker = [worker[name] for name in ("mode", "queues", "labels", "resources")]
    # What is free of it, where it does not say, is its own.
    own = "" if "fits" in body else str(worker["_id"])
    text = orjson.dumps([wish, of_worker, own], default=str, option=orjson.OPT_SORT_KEYS)
    account = hashlib.sha1(worker["account"].encode(), usedforsecurity=False).hexdigest()
    wished = hashlib.sha1(text, usedforsecurity=False).hexdigest()
    return f"{account} {worker['_id']} {wished}"
