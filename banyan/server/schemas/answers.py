"""What actions are given and what actions and views answer, as data in the schemas' own language.

Rows of VIRTUAL_RESOURCES and DOMAIN name these as `body` and `answer`. `item_of` stands for
all fields of a resource's item, to which the rule adds its own.
"""

from typing import Any

from banyan.domain.states import State
from banyan.server.schemas.attempts import SCHEMA as ATTEMPT
from banyan.server.schemas.tasks import SCHEMA as TASK

Rules = dict[str, Any]

_ID: Rules = {"type": "objectid"}
_COUNT: Rules = {"type": "integer"}
_NUMBER: Rules = {"type": "number"}
_TEXT: Rules = {"type": "string", "nullable": True}
_FREE: Rules = {"type": "dict", "allow_unknown": True}


def _object(**fields: Rules) -> Rules:
    return {"type": "dict", "schema": fields}


def _list(of: Rules) -> Rules:
    return {"type": "list", "schema": of}


def _items(of: Rules, **more: Rules) -> Rules:
    return _object(_items=_list(of), **more)


# --- Bodies of actions: schemas of objects ---------------------------------------------
TARGETS_MAX = 1024

NOTHING: Rules = {}
TARGETS: Rules = {
    "targets": {
        "type": "list",
        "minlength": 1,
        "maxlength": TARGETS_MAX,
        "schema": {"type": "objectid", "coerce": "object_id"},
        "required": True,
    }
}
CANCEL: Rules = {"force": {"type": "boolean"}}
CANCEL_MANY: Rules = {**TARGETS, **CANCEL}
# What a retry may change of the task.
RETRIED: Rules = {name: TASK[name] for name in ("requested_resources", "timeout_milliseconds")}
RETRY: Rules = {"downstream": {"type": "boolean"}, **RETRIED}
RETRY_MANY: Rules = {**TARGETS, **RETRY}
RELEASE: Rules = {"token": {"type": "string", "maxlength": 256}}
RELEASE_MANY: Rules = {
    "tokens": {
        "type": "list",
        "maxlength": TARGETS_MAX,
        "schema": {"type": "string"},
        "required": True,
    },
    "reason": {"type": "string", "maxlength": 256},
}

# --- Answers: rules of one value -------------------------------------------------------
DONE = _object(_status={"type": "string"})
CLAIMED: Rules = {
    "item_of": "tasks",
    "schema": {"granted_resources": ATTEMPT["granted_resources"], "token": {"type": "string"}},
}
CLAIMED_MANY = _items(CLAIMED, lease_seconds=_NUMBER)
REGISTERED: Rules = {
    "item_of": "workers",
    "schema": {"lease_seconds": _NUMBER, "lease_margin_seconds": _NUMBER},
}
BEAT = _object(
    lease_seconds=_NUMBER,
    mode={"type": "string", "allowed": ["active", "draining"]},
    cancel=_list(_object(task=_ID, attempt=_ID, force={"type": "boolean"})),
    lost=_list(_ID),
    wanted=_object(number=_COUNT, attempts=_list(_ID)),
)
ACCOUNT_WITH_TOKEN: Rules = {"item_of": "accounts", "schema": {"token": {"type": "string"}}}
REVOKED: Rules = {"item_of": "accounts", "schema": {"open_task_count": _COUNT}}
TOKEN = _object(name=_TEXT, token={"type": "string"}, _status={"type": "string"})
_TIME: Rules = {"type": "datetime", "nullable": True}
TOKENS = _items(_object(_id={"type": "string"}, created=_TIME, expires=_TIME, last_use=_TIME))

_TRUNCATED: Rules = {"type": "boolean"}  # there is more than an answer has room for
HISTORY = _items({"item_of": "attempts", "schema": {}}, truncated=_TRUNCATED)
RUNNING = _items({"item_of": "tasks", "schema": {}}, truncated=_TRUNCATED)

_TIMES = _object(
    waiting_milliseconds=_COUNT,
    dependencies_milliseconds=_COUNT,
    queue_milliseconds=_COUNT,
    running_milliseconds=_COUNT,
    retries_milliseconds=_COUNT,
    attempts=_COUNT,
)
_STATE: Rules = {"type": "string", "allowed": [str(state) for state in State]}
EXPLAIN = _object(
    _id=_ID,
    state=_STATE,
    causes=_list(
        {**_object(cause={"type": "string"}, message={"type": "string"}), "allow_unknown": True}
    ),
    times=_TIMES,
)
ESTIMATE = _object(
    milliseconds=_COUNT, unknown=_list(_ID), path=_list(_ID), truncated={"type": "boolean"}
)
GRAPH = _object(
    nodes=_list(_object(_id=_ID, name=_TEXT, state=_STATE, outcome=_TEXT)),
    edges=_list(_object(parent=_ID, child=_ID, kind={"type": "string"})),
    truncated={"type": "boolean"},
)
_COUNTS: Rules = {"type": "dict", "valuesrules": _COUNT}
_RESOURCES = _object(cores=_NUMBER, memory_bytes=_NUMBER, gpu_count=_NUMBER)
_WINDOW = _object(**{"from": _TIME, "to": _TIME, "bucket_milliseconds": _COUNT})
_SPREAD: Rules = {
    **_object(count=_COUNT, mean=_NUMBER, p50=_NUMBER, p90=_NUMBER, p99=_NUMBER, max=_NUMBER),
    "nullable": True,
}
TASK_TIMES = _TIMES
TASKS_COUNTED = _object(
    count=_COUNT,
    by_state=_COUNTS,
    by_outcome=_COUNTS,
    by_queue=_COUNTS,
    by_owner=_COUNTS,
    by_name=_COUNTS,
    by_tag={"type": "dict", "valuesrules": _COUNTS},
    window=_WINDOW,
    ended=_COUNTS,
    ended_per_second=_NUMBER,
    cpu_seconds=_NUMBER,
    waiting_milliseconds=_SPREAD,
    running_milliseconds=_SPREAD,
    buckets=_list(
        _object(
            time=_TIME,
            ended=_COUNT,
            failed=_COUNT,
            cores=_NUMBER,
            memory_bytes=_NUMBER,
            gpu_count=_NUMBER,
        )
    ),
    truncated={"type": "boolean"},
)
USAGE = _object(
    window=_object(**{"from": _TIME, "to": _TIME}),
    _items=_list(
        _object(
            owner={"type": "string"},
            ended=_COUNTS,
            attempts=_COUNT,
            failed=_COUNT,
            cpu_seconds=_NUMBER,
            running_seconds=_NUMBER,
            core_seconds=_NUMBER,
            memory_byte_seconds=_NUMBER,
            gpu_seconds=_NUMBER,
        )
    ),
    truncated={"type": "boolean"},
)
_WORKERS = {
    "capacity": _RESOURCES,
    "reserved": _RESOURCES,
    "used": _RESOURCES,
}
WORKER_NOW = _object(count=_COUNT, running=_COUNT, **_WORKERS)
WORKERS_COUNTED = _object(
    count=_COUNT,
    running=_COUNT,
    by_mode=_COUNTS,
    by_queue=_COUNTS,
    **_WORKERS,
    window=_WINDOW,
    buckets=_list(_object(time=_TIME, count=_NUMBER, running=_NUMBER, **_WORKERS)),
)
