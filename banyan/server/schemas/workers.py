"""A worker: one process on one machine that claims tasks for it."""

from typing import Any

from banyan.addresses import HOST, HOST_LENGTH_MAX
from banyan.domain.units import LARGEST
from banyan.server.schemas.tasks import NAME

_QUEUES = {
    "type": "list",
    "minlength": 1,
    "maxlength": 64,
    "allows_duplicates": False,
    "schema": {"type": "string", "regex": r"[A-Za-z0-9_.-]{1,128}"},
}
_LABELS = {
    "type": "dict",
    "keysrules": {"type": "string", "regex": NAME},
    "valuesrules": {"type": "string", "maxlength": 256},
    "maxlength": 64,
}
SAID_BYTES_MAX = 16_384  # of what a worker says of itself: resources, queues and labels

_USED = {
    "type": "dict",
    "schema": {
        "cores": {"type": "number", "min": 0, "max": 1e6},
        "memory_bytes": {"type": "integer", "min": 0, "max": LARGEST},
        # Granted to attempts that have ended, of which processes would not; memory that is left.
        "stuck": {
            "type": "dict",
            "schema": {
                "cores": {"type": "number", "min": 0, "max": 1e6},
                "memory_bytes": {"type": "integer", "min": 0, "max": LARGEST},
                "gpu_count": {"type": "integer", "min": 0, "max": 1000},
            },
        },
    },
}

SCHEMA: dict[str, Any] = {
    "host": {"type": "string", "regex": HOST, "maxlength": HOST_LENGTH_MAX, "required": True},
    "resources": {
        "type": "dict",
        "coerce": "capacity",
        "required": True,
        "schema": {
            "cores": {"type": "number"},
            "memory": {"type": "integer"},
            "gpus": {"type": "list", "schema": {"type": "dict", "allow_unknown": True}},
            "disk": {"type": "integer", "nullable": True},
            "custom": {"type": "dict", "valuesrules": {"type": "number"}},
        },
    },
    "queues": _QUEUES,
    "labels": _LABELS,
    "account": {"type": "string", "readonly": True},
    "mode": {
        "type": "string",
        "allowed": ["active", "draining", "lost", "off"],
        "readonly": True,
    },
    "last_beat": {"type": "datetime", "readonly": True},
    "used": {**_USED, "readonly": True},
    "reserved": {
        "type": "dict",
        "readonly": True,
        "schema": {
            "cores": {"type": "number"},
            "memory_bytes": {"type": "integer"},
            "gpu_count": {"type": "integer"},
        },
    },
}

AS_CREATED: dict[str, Any] = {"queues": ["default"], "labels": {}}

CLAIM: dict[str, Any] = {
    "worker": {"type": "objectid", "coerce": "object_id", "required": True},
    "claim_id": {"type": "string", "minlength": 1, "maxlength": 128},
    "max": {"type": "integer", "min": 1, "max": 1000},
    "fits": {"type": "dict", "check_with": "free"},
    "queues": _QUEUES,
    "labels": _LABELS,
    "start": {"type": "boolean"},
    "ahead": {"type": "integer", "min": 0, "max": 1000},
    "steal": {"type": "boolean"},
    "ends_within_milliseconds": {"type": "integer", "min": 0, "max": LARGEST},
}

CLAIM_ONE: dict[str, Any] = {"worker": CLAIM["worker"]}

BEAT: dict[str, Any] = {
    "attempts": {
        "type": "list",
        "maxlength": 100_000,
        "schema": {"type": "objectid", "coerce": "object_id"},
    },
    "claims": {"type": "list", "maxlength": 100, "schema": {"type": "string", "maxlength": 200}},
    "used": _USED,
    "wanted_number": {"type": "integer", "min": 0},
    "takes_over": {"type": "integer", "min": 1},
}
