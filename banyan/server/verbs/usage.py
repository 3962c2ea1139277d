"""GET /tasks/usage: what each account's tasks have used over a time, from tallies alone.

An operator sees all accounts, others their own. Nothing is read of tasks, and of attempts only
what no tally holds yet.
"""

from typing import Any

from banyan.domain import tallies as domain
from banyan.domain.tallies import BUCKETS_MAX, Window
from banyan.server.calls import Answer, Call
from banyan.server.store import accounts, tallies
from banyan.server.store.mongo import now
from banyan.server.store.tallies import Tallied
from banyan.server.verbs.windows import read_window

_WINDOW = "30 days"
_OWNERS_MAX = 5_000
_FAILED = ("failure", "timeout", "oom", "lost")


def usage(call: Call) -> Answer:
    """{"window", "_items": [{"owner", "core_seconds", …}, …]}, who has used most first."""
    asked = {"window": _WINDOW, **call.args} if "from" not in call.args else dict(call.args)
    window = read_window({**asked, "buckets": str(BUCKETS_MAX)}, tallies.KEPT)
    assert window is not None  # noqa: S101 - `buckets` is given
    sees_all = call.caller.has("operator")
    owners = accounts.names(call.store, _OWNERS_MAX + 1) if sees_all else [call.caller.account]
    one = window.whole()
    found = tallies.of_owners(call.store, owners[:_OWNERS_MAX], one)
    used = [_used(owner, one, tallied) for owner, tallied in found.items()]
    items = [item for item in used if item["attempts"] or item["core_seconds"]]
    items.sort(key=lambda item: (-item["core_seconds"], item["owner"]))
    more = {"truncated": True} if len(owners) > _OWNERS_MAX else {}
    return Answer({"window": {"from": one.start, "to": one.end}, "_items": items, **more})


def _used(owner: str, window: Window, tallied: Tallied) -> dict[str, Any]:
    buckets = domain.in_buckets(window, tallied.series)
    ended = domain.words(buckets[0])
    (used,) = domain.used_in(window, buckets, tallied.running, now())
    amounts = {name: round(amount, 3) for name, amount in used.items()}
    return {
        "owner": owner,
        "ended": ended,
        "attempts": sum(ended.values()),
        "failed": sum(ended.get(word, 0) for word in _FAILED),
        "cpu_seconds": round(buckets[0].get("cpu", 0), 3),
        "running_seconds": round(domain.total(buckets[0], "run") / 1000, 3),
        "core_seconds": amounts["cores"],
        "memory_byte_seconds": amounts["memory_bytes"],
        "gpu_seconds": amounts["gpu_count"],
    }
