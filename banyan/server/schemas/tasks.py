"""The fields of a task: types and limits as data; who may set a field and when, in `meta`.

meta.change: when a client may change the field: `inactive` (the default), `create` (at
creation only), `claim` (until the task runs), `always`.
"""

from typing import Any

from banyan.domain import variables
from banyan.domain.states import Outcome, State
from banyan.domain.units import LARGEST

NAME = r"[A-Za-z0-9_-]{1,64}"
SECRET_NAME = r"[A-Za-z_][A-Za-z0-9_]{0,63}"  # noqa: S105 - of a name, not a secret
EDGES_MAX = 1024
EDGES_IN_REQUEST_MAX = 100_000
COMMAND_CHARACTERS_MAX = 32_768
COMMAND_WORDS_MAX = 32_768  # an empty one has no characters and takes room all the same

_EDGES = {
    "type": "list",
    "maxlength": EDGES_MAX,
    "allows_duplicates": False,
    "schema": {"type": "objectid", "coerce": "object_id"},
    "meta": {"change": "create"},
}
_WORDS = {
    "type": "dict",
    "keysrules": {"type": "string", "regex": NAME},
    "valuesrules": {"type": "string", "maxlength": 256},
    "maxlength": 64,
}
_DURATION = {"type": "integer", "coerce": "duration", "min": 0, "max": LARGEST}
_OPTIONAL_DURATION = {**_DURATION, "min": 1, "nullable": True}


def _from_server(kind: str | list[str], **rules: Any) -> dict[str, Any]:
    return {"type": kind, "readonly": True, "nullable": True, **rules}


SCHEMA: dict[str, Any] = {
    "name": {"type": "string", "minlength": 1, "maxlength": 256, "nullable": True},
    "command": {"type": ["string", "list"], "nullable": True, "check_with": "command"},
    "requested_resources": {
        "type": "dict",
        "coerce": "requested_resources",
        "schema": {
            "cpu_memory_bytes": {"type": "integer"},
            "cpu_cores": {
                "type": "dict",
                "schema": {"count": {"type": "number"}, "percent": {"type": "number"}},
            },
            "gpu_count": {"type": "integer"},
            "gpu_memory_bytes": {"type": "integer"},
            "gpu_compute_capability_major": {"type": "integer"},
            "gpu_compute_capability_minor": {"type": "integer"},
            "disk_bytes": {"type": "integer"},
            "custom": {"type": "dict", "valuesrules": {"type": "number"}},
        },
    },
    "state": {"type": "string", "allowed": [str(state) for state in State]},
    "continuations": _EDGES,
    "failure_continuations": _EDGES,
    "final_continuations": _EDGES,
    "after": _EDGES,
    "after_failure": _EDGES,
    "after_any": _EDGES,
    "queue": {"type": "string", "regex": r"[A-Za-z0-9_.-]{1,128}"},
    "labels": _WORDS,
    "priority": {
        "type": "integer",
        "coerce": "priority",
        "min": -1_000_000_000,
        "max": 1_000_000_000,
        "meta": {"change": "claim"},
    },
    "tags": {**_WORDS, "meta": {"change": "always"}},
    "env": {
        "type": "dict",
        "keysrules": {
            "type": "string",
            "regex": variables.NAME,
            "maxlength": variables.NAME_LENGTH_MAX,
        },
        "valuesrules": {"type": ["string", "dict"], "check_with": "env_value"},
        "maxlength": variables.COUNT_MAX,
        "check_with": "env_size",
    },
    "cwd": {
        "type": "string",
        "minlength": 1,
        "maxlength": 4096,
        "nullable": True,
        "check_with": "no_nul",
    },
    "not_before": {"type": "datetime", "coerce": "time", "nullable": True},
    "max_attempt_count": {"type": "integer", "min": 1, "max": 1_000_000},
    "retry_delay_milliseconds": _DURATION,
    "retry_backoff": {"type": "number", "min": 1, "max": 1000},
    "max_lost_count": {"type": "integer", "min": 0, "max": 1_000_000},
    "timeout_milliseconds": _OPTIONAL_DURATION,
    "max_shutdown_time_milliseconds": _DURATION,
    "estimated_runtime_milliseconds": _OPTIONAL_DURATION,
    "dedupe_key": {
        "type": "string",
        "minlength": 1,
        "maxlength": 256,
        "nullable": True,
        "meta": {"change": "create"},
    },
    "retain": {
        "type": ["integer", "string"],
        "coerce": "retain",
        "nullable": True,
        "meta": {"change": "always"},
    },
    "owner": _from_server("string"),
    # Of a task that a running task has submitted: which one, and how many such steps it is away
    # from what an account has submitted. Others have neither.
    "submitted_by": _from_server("objectid"),
    "submission_depth": _from_server("integer"),
    # How many tasks it has submitted itself, by all its attempts since it was last retried.
    "submission_count": _from_server("integer"),
    "pending_dependency_count": _from_server("integer"),
    "attempt_count": _from_server("integer"),
    "outcome": _from_server("string", allowed=[str(outcome) for outcome in Outcome]),
    "reason": _from_server("string"),
    "attempt_id": _from_server("objectid"),
    "host": _from_server("string"),  # of that attempt's worker, which may be gone
    "progress": _from_server(
        "dict",
        schema={
            "done": {"type": "number", "min": 0},
            "total": {"type": "number", "min": 0},
            "message": {"type": "string", "maxlength": 256},
        },
    ),
    "result": _from_server(["dict", "list", "string", "number", "boolean"]),
}

# What is stored of what a client leaves out; of `AS_CREATED`, as clients may write it.
DEFAULTS: dict[str, Any] = {
    "name": None,
    "command": None,
    "queue": "default",
    "labels": {},
    "priority": 0,
    "tags": {},
    "env": {},
    "cwd": None,
    "not_before": None,
    "max_attempt_count": 1,
    "retry_delay_milliseconds": 0,
    "retry_backoff": 1,
    "max_lost_count": 3,
    "timeout_milliseconds": None,
    "max_shutdown_time_milliseconds": 600_000,
    "estimated_runtime_milliseconds": None,
    "dedupe_key": None,
    "retain": None,
    "continuations": [],
    "failure_continuations": [],
    "final_continuations": [],
    "after": [],
    "after_failure": [],
    "after_any": [],
    "attempt_count": 0,
    "outcome": None,
    "reason": None,
    "attempt_id": None,
    "host": None,
    "progress": None,
    "result": None,
}
AS_CREATED: dict[str, Any] = {
    "requested_resources": {"cores": 1, "memory": "128 MiB"},
    "state": str(State.INACTIVE),
    **DEFAULTS,
}
