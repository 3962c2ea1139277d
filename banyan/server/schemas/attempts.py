"""The record of an attempt, and what the worker that holds it may report."""

from typing import Any

from banyan.domain.attempts import EXIT_STATUS_PATTERN
from banyan.domain.units import LARGEST

_TIME = {"type": "datetime", "coerce": "time", "nullable": True}
_COUNT = {"type": "integer", "min": 0, "max": LARGEST}
_MEMORY_SAMPLE = {
    "type": "dict",
    "schema": {
        "time": {**_TIME, "required": True},
        "resident_memory_bytes": {**_COUNT, "required": True},
        "virtual_memory_bytes": _COUNT,
    },
}
_CPU_SAMPLE = {
    "type": "dict",
    "schema": {
        "time": {**_TIME, "required": True},
        "utilization_percent": {"type": "number", "min": 0, "max": 1e6, "required": True},
    },
}
_GPU_SAMPLE = {
    "type": "dict",
    "schema": {
        "time": {**_TIME, "required": True},
        "ordinal": {**_COUNT, "required": True},
        "used_memory_bytes": {**_COUNT, "required": True},
        "utilization_percent": {"type": "number", "min": 0, "max": 100},
    },
}
_MESSAGE = {
    "type": "dict",
    "schema": {
        "time": _TIME,
        "text": {"type": "string", "minlength": 1, "maxlength": 1024, "required": True},
    },
}


def _samples(sample: dict[str, Any]) -> dict[str, Any]:
    return {"type": "list", "maxlength": 1000, "allows_duplicates": True, "schema": sample}


SCHEMA: dict[str, Any] = {
    "task": {"type": "objectid"},
    "attempt_count": {"type": "integer"},
    "owner": {"type": "string"},
    "queue": {"type": "string", "nullable": True},
    "worker": {"type": "objectid"},
    "host": {"type": "string", "nullable": True},  # workers go, and come again with another id
    "account": {"type": "string"},
    "granted_resources": {
        "type": "dict",
        "schema": {
            "cores": {"type": "number"},
            "memory_bytes": {"type": "integer"},
            "gpu_count": {"type": "integer"},
            "gpu_memory_bytes": {"type": "integer"},
            "gpu_compute_capability": {"type": "string"},
            "disk_bytes": {"type": "integer"},
            "custom": {"type": "dict", "valuesrules": {"type": "number"}},
        },
    },
    "time_available": {"type": "datetime", "nullable": True},
    "time_claimed": {"type": "datetime"},
    "time_started": _TIME,
    "time_terminated": _TIME,
    "exit_status": {"type": "string", "regex": EXIT_STATUS_PATTERN},
    "exit_code": {"type": "integer", "nullable": True},
    "signal": {"type": "string", "nullable": True},
    "reason": {"type": "string", "maxlength": 1024},
    "cpu_seconds": {"type": "number", "min": 0, "max": 1e12},
    "peak_memory_bytes": _COUNT,
    "log_size_bytes": {"type": "integer"},
    "memory_usage": _samples(_MEMORY_SAMPLE),
    "cpu_utilization": _samples(_CPU_SAMPLE),
    "time_log_removed": {"type": "datetime", "nullable": True},
    "gpu_usage": _samples(_GPU_SAMPLE),
    "messages": _samples(_MESSAGE),
}

LOG_CHUNKS_MAX = 10_000  # of one report, and of all in a request

# `update_execution_data`: what goes with a claim, a report or the end of an attempt.
EXECUTION_DATA: dict[str, Any] = {
    "worker": {"type": "objectid", "coerce": "object_id"},
    "token": {"type": "string", "maxlength": 256},
    "time_started": SCHEMA["time_started"],
    "time_terminated": SCHEMA["time_terminated"],
    "exit_status": SCHEMA["exit_status"],
    "reason": SCHEMA["reason"],
    "cpu_seconds": SCHEMA["cpu_seconds"],
    "peak_memory_bytes": SCHEMA["peak_memory_bytes"],
    "memory_usage": SCHEMA["memory_usage"],
    "cpu_utilization": SCHEMA["cpu_utilization"],
    "gpu_usage": SCHEMA["gpu_usage"],
    "messages": SCHEMA["messages"],
    "log": {
        "type": "list",
        "maxlength": LOG_CHUNKS_MAX,
        "schema": {
            "type": "dict",
            "schema": {
                "offset": {**_COUNT, "required": True},
                "stream": {
                    "type": "string",
                    "allowed": ["stdout", "stderr", "answer"],
                    "required": True,
                },
                "data": {"type": "binary", "coerce": "base64", "required": True},
            },
        },
    },
}
