"""The exit status of an attempt: a closed vocabulary, and what follows from it."""

import re
import signal

from banyan.domain.states import Outcome

EXIT_STATUS_PATTERN = (
    r"success|timeout|oom|cancelled|lost|failure \((?:[1-9][0-9]{0,2}|SIG[A-Z0-9+-]{2,12})\)"
)
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
