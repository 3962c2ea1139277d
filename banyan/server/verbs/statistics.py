"""Statistics of tasks and workers, counted by the database."""

from collections.abc import Mapping
from typing import Any

from banyan.errors import BanyanError
from banyan.server import queries, scoped
from banyan.server.auth import scope
from banyan.server.calls import Answer, Call
from banyan.server.schemas.tasks import SCHEMA
from banyan.server.store import attempts, statistics, tasks, workers
from banyan.server.store.mongo import Document
from banyan.server.verbs.explain import times_of

_GROUPS = ("state", "outcome", "queue", "owner", "name")


def of_tasks(call: Call) -> Answer:
    """GET /tasks/statistics?where=&by=: {"count", "by_state", "by_outcome", "by_queue", …}.

    GET /tasks/<id>/statistics: {"attempts", "waiting_milliseconds", "running_milliseconds"}.
    """
    if call.item_id:
        task = scoped.item(call)
        return Answer(times_of(task, attempts.of_task(call.store, task["_id"])))
    unknown = call.args.keys() - {"where", "by"}
    if unknown:
        raise BanyanError("bad_request", f"unknown argument {min(unknown)!r}; known: by, where")
    groups = call.args.get("by", "state,outcome,queue").split(",")
    if not set(groups) <= set(_GROUPS):
        raise BanyanError("bad_request", f"by: one or more of {', '.join(_GROUPS)}")
    where = queries.parse_where(call.args.get("where"), SCHEMA)
    limits = scope(call.caller, "tasks")
    query = {"$and": [limits, where]} if limits and where else limits or where
    counts = statistics.count_tasks(call.store, query, groups)
    times = statistics.attempt_times(call.store, scope(call.caller, "attempts"))
    return Answer({**counts, **times}, wait_for=["tasks"])


def of_workers(call: Call) -> Answer:
    """GET /workers/statistics: capacity, reserved and used, added up over live workers.

    GET /workers/<id>/statistics: the same of one worker.
    """
    if call.item_id:
        every = [scoped.item(call)]
    else:
        seen = scope(call.caller, "workers").get("account")
        every = [one for one in workers.live(call.store) if seen in (None, one["account"])]
    held = tasks.held_by(call.store, [one["_id"] for one in every], ["holder"])
    answer: dict[str, Any] = {
        "count": len(every),
        "capacity": _total(_capacity(one) for one in every),
        "reserved": _total(task["holder"]["granted"] for task in held),
        "used": _total(one.get("used", {}) for one in every),
        "running": len(held),
    }
    return Answer(answer, wait_for=["tasks"])


def _capacity(worker: Document) -> dict[str, float]:
    resources = worker["resources"]
    return {
        "cores": resources["cores"],
        "memory_bytes": resources["memory"],
        "gpu_count": len(resources["gpus"]),
    }


def _total(parts: Any) -> Mapping[str, float]:
    added = {"cores": 0, "memory_bytes": 0, "gpu_count": 0}
    for part in parts:
        for name in added:
            added[name] += part.get(name, 0)
    return added
