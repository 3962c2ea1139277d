"""How an attempt ended, in the words of a report.

Called by the agent with what its launcher said.
"""

import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from banyan.domain.attempts import exit_status_of
from banyan.worker.spawning import NOT_EXECUTABLE

_REASON_LENGTH_MAX = 1024
# Why the launcher stopped it -> the exit status, and what to say about it.
_STOPPED = {
    "timeout": ("timeout", None),
    "oom": ("oom", None),
    "cancelled": ("cancelled", None),
    "lease": ("lost", "its worker had no word from the server until the lease was over"),
    "launcher": ("lost", "the launcher of its worker died"),
}


def end_of(ended: Mapping[str, Any]) -> dict[str, Any]:
    """The state and the execution data that a report carries; None where nothing is known."""
    why = ended["why"]
    if why in (None, "processes", "output"):  # there is no status of its own for these
        status, reason = exit_status_of(ended["code"], ended["signal"]), None
    else:
        status, reason = _STOPPED[why]
    left = ended.get("left")
    stuck = f"these processes would not end: {', '.join(map(str, left))}" if left else None
    reasons = [each for each in (ended.get("reason"), reason, stuck) if each]
    return {
        "state": "cancelled" if why == "cancelled" else "terminated",
        "exit_status": status,
        "time_started": time_text(ended["time_started"]) if "time_started" in ended else None,
        "time_terminated": time_text(ended["time_ended"]),
        "cpu_seconds": ended.get("cpu_seconds"),
        "peak_memory_bytes": ended.get("peak_memory_bytes"),
        "reason": "; ".join(reasons)[:_REASON_LENGTH_MAX] or None,
    }


def failed_at_start(attempt: str, reason: str) -> dict[str, Any]:
    """What a launcher would say of an attempt that can't be started, for a fault of its own."""
    return {
        "attempt": attempt,
        "why": None,
        "code": NOT_EXECUTABLE,
        "signal": None,
        "time_ended": time.time(),
        "reason": reason,
        "inline": "",
    }


def time_text(seconds: float) -> str:
    """Seconds since 1970 as dates travel: UTC, milliseconds."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")[:23] + "Z"
