"""Statistics of tasks and workers, worked out by the database.

Counts are of tasks as they are now. What was over time is told of attempts: when they ended,
how long they waited and ran, and what they had in use; their tallies outlive them.
"""

import re
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from banyan.domain import tallies as domain
from banyan.domain.tallies import RESOURCES, Tally, Window
from banyan.errors import BanyanError
from banyan.server import queries, scoped
from banyan.server.auth import scope
from banyan.server.calls import Answer, Call
from banyan.server.schemas.tasks import NAME, SCHEMA
from banyan.server.store import attempts, samples, statistics, tallies, tasks, workers
from banyan.server.store.mongo import Document, Store, now
from banyan.server.store.tallies import Tallied, Whose
from banyan.server.verbs.explain import times_of
from banyan.server.verbs.windows import read_window

_GROUPS = ("state", "outcome", "queue", "owner", "name")
_TAG = re.compile(rf"tags\.{NAME}")
_GROUPS_MAX = 8
_QUEUES_SHOWN = 1000
# Where `where` asks for more than owner and queue: the attempts of so many tasks are looked at.
TASKS_MAX = 10_000


def of_tasks(call: Call) -> Answer:
    """GET /tasks/statistics?where=&by=: {"count", "by_state", "by_outcome", "by_queue", …}.

    With `window`, `from`, `to` or `buckets` also what was then: {"window", "ended",
    "waiting_milliseconds", "running_milliseconds", "buckets", …}.
    GET /tasks/<id>/statistics: {"attempts", "waiting_milliseconds", "running_milliseconds"}.
    """
    if call.item_id:
        task = scoped.item(call)
        return Answer(times_of(task, attempts.times_of_task(call.store, task)))
    groups = _groups(call.args.get("by"))
    where = queries.parse_where(call.args.get("where"), SCHEMA)
    window = read_window(call.args, None if _more_than_whose(where) else tallies.KEPT)
    limits = scope(call.caller, "tasks")
    query = {"$and": [limits, where]} if limits and where else limits or where
    past = _past(call, where, window) if window else {}
    return Answer({**statistics.count_tasks(call.store, query, groups), **past}, wait_for=["tasks"])


def _groups(text: str | None) -> list[str]:
    groups = ["state", "outcome", "queue"] if text is None else text.split(",")
    if len(groups) > _GROUPS_MAX or len(set(groups)) < len(groups):
        raise BanyanError("bad_request", f"by: at most {_GROUPS_MAX}, each once")
    if not all(name in _GROUPS or _TAG.fullmatch(name) for name in groups):
        raise BanyanError("bad_request", f"by: {', '.join(_GROUPS)}, or a tag as in tags.sweep")
    return groups


# --- Over time ----------------------------------------------------------------------------


def _past(call: Call, where: Mapping[str, Any], window: Window) -> Document:
    """What the caller's attempts of tasks that match came to. Errors: `forbidden`."""
    if not call.caller.has("provider", "operator"):
        raise BanyanError("forbidden", "what was over time is for providers and operators")
    whose, truncated = _whose(call, where), False
    if _more_than_whose(where):
        found, truncated = _of_matching(call.store, where, whose)
    else:
        found = tallies.series(call.store, whose, window.width, window.start)
    return {**_told(window, found), **({"truncated": True} if truncated else {})}


def _more_than_whose(where: Mapping[str, Any]) -> bool:
    asked = statistics.of_kinds(where)
    return asked is None or not asked.keys() <= {"owner", "queue"}


def _whose(call: Call, where: Mapping[str, Any]) -> Whose:
    """Whose attempts: of nobody but the caller, where it may not see all."""
    asked = statistics.of_kinds(where) or {}
    owners = frozenset(asked["owner"]) if "owner" in asked else None
    if not call.caller.has("operator"):
        own = frozenset({call.caller.account})
        owners = own if owners is None else owners & own
    return Whose(owners, frozenset(asked["queue"]) if "queue" in asked else None)


def _of_matching(store: Store, where: Mapping[str, Any], whose: Whose) -> tuple[Tallied, bool]:
    """Of the newest tasks that match; and whether there are more of them."""
    limits = {} if whose.owners is None else {"owner": {"$in": sorted(whose.owners)}}
    ids = tasks.newest(store, {"$and": [limits, where]}, TASKS_MAX + 1)
    query = {"task": {"$in": ids[:TASKS_MAX]}}
    return tallies.of_attempts(store, query, Whose(whose.owners)), len(ids) > TASKS_MAX


def _told(window: Window, found: Tallied) -> Document:
    time = now()
    buckets = domain.in_buckets(window, found.series)
    used = domain.in_use(window, buckets, found.running, time)
    inside: Tally = {}
    for bucket in buckets[: window.count]:
        domain.add(inside, bucket)
    ended = domain.words(inside)
    return {
        "window": _window(window),
        "ended": ended,
        "ended_per_second": _rate(window, sum(ended.values()), time),
        "cpu_seconds": round(inside.get("cpu", 0), 3),
        "waiting_milliseconds": domain.times(inside, "wait"),
        "running_milliseconds": domain.times(inside, "run"),
        "buckets": [
            {"time": window.time(place), **_ends(domain.words(bucket)), **used[place]}
            for place, bucket in enumerate(buckets[: window.count])
        ],
    }


def _window(window: Window) -> Document:
    return {
        "from": window.start,
        "to": window.end,
        "bucket_milliseconds": window.seconds * 1000,
    }


def _rate(window: Window, count: int, time: datetime) -> float:
    return round(count / max(1.0, (min(time, window.end) - window.start).total_seconds()), 6)


def _ends(ended: Mapping[str, int]) -> Document:
    return {
        "ended": sum(ended.values()),
        "failed": sum(ended.get(word, 0) for word in ("failure", "timeout", "oom", "lost")),
    }


# --- Workers ------------------------------------------------------------------------------


def of_workers(call: Call) -> Answer:
    """GET /workers/statistics: capacity, reserved and used, added up over live workers.

    With `window`, `from`, `to` or `buckets` also what it was then, on average of each bucket.
    GET /workers/<id>/statistics: the same of one worker, as it is now.
    """
    if call.item_id:
        return Answer(now_of(call.store, [scoped.item(call, workers.FIGURES)]), wait_for=["tasks"])
    window = read_window(call.args)
    seen = scope(call.caller, "workers").get("account")
    if window and seen is not None:
        raise BanyanError("forbidden", "what was over time is for providers and operators")
    own = {} if seen is None else {"account": seen}
    every = workers.live(call.store, own, workers.FIGURES)
    answer = {
        **now_of(call.store, every),
        "by_mode": workers.count_by_mode(call.store, seen),  # those that are gone, too
        "by_queue": workers.count_by_queue(call.store, own, _QUEUES_SHOWN),
    }
    return Answer(
        {**answer, **(_samples(call.store, window) if window else {})}, wait_for=["tasks"]
    )


def now_of(store: Store, these: Iterable[Document]) -> Document:
    """What these workers have, and what of it is reserved and used now."""
    every = list(these)
    reserved = tasks.reserved_by(store, [one["_id"] for one in every]).values()
    stuck = [one["used"]["stuck"] for one in every if one.get("used", {}).get("stuck")]
    return {
        "count": len(every),
        "capacity": _total(_capacity(one) for one in every),
        "reserved": _total([*reserved, *stuck]),
        "used": _total(one.get("used", {}) for one in every),
        "running": sum(one["running"] for one in reserved),
    }


def _samples(store: Store, window: Window) -> Document:
    return {
        "window": _window(window),
        "buckets": [
            {"time": window.time(place), **(sample or {})}
            for place, sample in enumerate(samples.in_buckets(store, window))
        ],
    }


def _capacity(worker: Document) -> dict[str, float]:
    resources = worker["resources"]
    return {
        "cores": resources["cores"],
        "memory_bytes": resources["memory"],
        "gpu_count": worker["gpu_count"],
    }


def _total(parts: Iterable[Mapping[str, Any]]) -> Mapping[str, float]:
    added = dict.fromkeys(RESOURCES, 0)
    for part in parts:
        for name in added:
            added[name] += part.get(name, 0)
    return {name: domain.bounded(amount) for name, amount in added.items()}
