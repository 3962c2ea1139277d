"""The exit status of an attempt: a closed vocabulary, and what follows from it."""

import re
import signal
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from banyan.domain.states import Outcome

EXIT_STATUS_PATTERN = (
    r"success|timeout|oom|cancelled|lost|failure \((?:[1-9][0-9]{0,2}|SIG[A-Z0-9+-]{2,12})\)"
)
# No machine has more; what a worker says it used is not believed beyond that.
CORES_OF_A_MACHINE_MAX = 1024
_FARTHEST = timedelta(days=36_525)  # a clock is off by a century at most
_FAILURE = re.compile(r"failure \((?:(?P<code>[0-9]+)|(?P<signal>SIG[A-Z0-9+-]+))\)")


def outcome_of(exit_status: str) -> Outcome | None:
    """The outcome of a task whose last attempt ended so; None where it was cancelled."""
    if exit_status == "cancelled":
        return None
    return Outcome(exit_status.split(" ", 1)[0])


def exit_code_and_signal(exit_status: str) -> tuple[int | None, str | None]:
    """("failure (3)") -> (3, None); ("failure (SIGKILL)") -> (None, "SIGKILL")."""
    if exit_status == "success":
        return 0, None
    match = _FAILURE.fullmatch(exit_status)
    if not match:
        return None, None
    return (int(match["code"]) if match["code"] else None), match["signal"]


def exit_status_of(exit_code: int | None, signal_number: int | None) -> str:
    """The word for how a process ended: its exit code, or the signal that ended it."""
    if signal_number:
        try:
            return f"failure ({signal.Signals(signal_number).name})"
        except ValueError:
            return f"failure (SIG{signal_number})"
    return f"failure ({exit_code})" if exit_code else "success"


def _near(time: datetime | None, claimed: datetime) -> datetime | None:
    """Within what may be reckoned with: the first and the last year that there are end there."""
    return time and min(max(time, claimed - _FARTHEST), claimed + _FARTHEST)


def believed(said: Mapping[str, Any], holder: Mapping[str, Any], now: datetime) -> dict[str, Any]:
    """What a worker says of its attempt, put right where it cannot be so.

    Times lie between the claim and now, and the end not before the start. Where the worker's
    clock is off both are moved, so that the attempt keeps its length. `cpu_seconds` are at most
    what the largest machine has had since the claim.
    said: `time_started`, `time_terminated`, `cpu_seconds`, each if it is said; holder: of the task.
    """
    claimed = holder["claimed"]
    now = max(now, claimed)  # another server's clock may be behind
    start, end = (_near(said.get(one), claimed) for one in ("time_started", "time_terminated"))
    first, last = start or end, end or start
    moved = timedelta(0)
    if last and last > now:
        moved = now - last
    elif first and first < claimed:
        moved = claimed - first
    right = dict(said)
    earliest = holder.get("time_started", claimed)
    if start:
        right["time_started"] = earliest = min(max(start + moved, claimed), now)
    if end:
        right["time_terminated"] = min(max(end + moved, earliest), now)
    if said.get("cpu_seconds") is not None:
        held_seconds = (now - claimed).total_seconds() + 1
        right["cpu_seconds"] = min(said["cpu_seconds"], CORES_OF_A_MACHINE_MAX * held_seconds)
    return right
