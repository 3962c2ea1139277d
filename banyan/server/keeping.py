"""The operator's rules of retention, from the knobs; read once a process.

Called by the supervisor, which refuses to start with rules that are none, by the verbs that
make or change tasks, and by upkeep.
"""

from collections.abc import Mapping
from functools import cache
from typing import Any

from banyan.config import knobs
from banyan.domain.retention import Rules, forget_after, parse_queues, parse_retain
from banyan.errors import BanyanError

FIELDS = {"retain", "queue"}  # of a task: what its time follows from


@cache
def rules() -> Rules:
    """The rules in force. Errors: `usage`, naming the knob."""
    return Rules(_read("RETAIN", parse_retain), _read("RETAIN_QUEUES", parse_queues))


def mark(task: Mapping[str, Any]) -> dict[str, Any]:
    """The field by which a task with a time of its own is found; most tasks need none."""
    time = forget_after(task, rules())
    return {} if time is None else {"forget_after": time}


def _read(name: str, parse: Any) -> Any:
    try:
        return parse(getattr(knobs(), name))
    except ValueError as problem:
        raise BanyanError("usage", f"BANYAN_{name}: {problem}") from None
