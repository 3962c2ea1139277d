"""What clients may write in place of the stored form: the short forms, as JSON Schema.

`validation.COERCIONS` reads these forms; documents about the API show them. By the name in
`coerce`. Each describes all that is read, and what it can't say it tells in words.
"""

from collections.abc import Mapping
from typing import Any

from banyan.domain.resources import (
    CAPABILITY_PART_MAX,
    CORES_MAX,
    CUSTOM_MAX,
    CUSTOM_NAMES_MAX,
    GPUS_MAX,
    OWN_GPUS_MAX,
    TEXT_LENGTH_MAX,
)
from banyan.domain.retention import FOREVER, LONGEST_MILLISECONDS
from banyan.domain.units import LARGEST
from banyan.server.schemas.tasks import NAME

Form = dict[str, Any]

PRIORITIES = {"backfill": -100, "low": -10, "normal": 0, "high": 10}

# Patterns of text: all that is read fits, though not all that fits has a meaning.
_BYTES_TEXT = "^[0-9]{1,19}([.][0-9]{1,18})? ?[A-Za-z]{1,5}$"
_DURATION_TEXT = (
    "^(([0-9]{1,19}([.][0-9]{1,18})? ?[A-Za-z]{1,12} ?)+"
    "|[Pp][0-9.TtWwDdHhMmSs]+"
    "|([0-9]{1,9}-)?[0-9]{1,9}:[0-5][0-9]:[0-5][0-9]([.][0-9]{1,9})?)$"
)
_TIME_TEXT = (
    "^([0-9]{4}-[0-9]{2}-[0-9]{2}([Tt ][0-9]{2}:[0-9]{2}(:[0-9]{2}([.][0-9]{1,9})?)?"
    "([Zz]|[+-][0-9]{2}(:?[0-9]{2})?)?)?"
    "|[A-Z][a-z]{2}, [0-9]{1,2} [A-Z][a-z]{2} [0-9]{4} [0-9]{2}:[0-9]{2}:[0-9]{2} (GMT|UTC))$"
)

OBJECT_ID: Form = {"type": "string", "pattern": "^[0-9a-fA-F]{24}$"}
_BYTES: Form = {
    "description": "Bytes, or text with a unit.",
    "anyOf": [
        {"type": "integer", "minimum": 0, "maximum": LARGEST},
        {"type": "string", "pattern": _BYTES_TEXT, "examples": ["1 GiB", "512 MiB", "1.5 GB"]},
    ],
}
_CORES: Form = {"type": "number", "minimum": 0, "maximum": CORES_MAX}
_GPU_COUNT: Form = {"type": "integer", "minimum": 0, "maximum": GPUS_MAX}
_CAPABILITY: Form = {
    "anyOf": [
        {"type": "string", "pattern": "^[0-9]{1,3}([.][0-9]{1,3})?$"},
        {"type": "number", "minimum": 0},
    ],
    "examples": ["7.5"],
}
_CAPABILITY_PART: Form = {"type": "integer", "minimum": 0, "maximum": CAPABILITY_PART_MAX}
_CUSTOM: Form = {
    "type": "object",
    "description": "Any counted thing that a worker declares, e.g. licences.",
    "maxProperties": CUSTOM_NAMES_MAX,
    "propertyNames": {"pattern": f"^{NAME}$"},
    "additionalProperties": {"type": "number", "minimum": 0, "maximum": CUSTOM_MAX},
}


def _object(**properties: Form) -> Form:
    return {"type": "object", "properties": properties, "additionalProperties": False}


def _gpus(gpu: Form, most: int = GPUS_MAX) -> Form:
    several = {"type": "array", "items": gpu, "maxItems": most}
    count = {**_GPU_COUNT, "maximum": most}
    return {"description": "A count, or one object for each.", "anyOf": [count, several]}


_TEXT: Form = {"type": "string", "maxLength": TEXT_LENGTH_MAX}

_DURATIONS: list[Form] = [
    {"type": "integer", "minimum": 0, "maximum": LARGEST},
    {
        "type": "string",
        "pattern": _DURATION_TEXT,
        "examples": ["10 minutes", "1h30m", "PT10M", "00:10:00"],
    },
]

FORMS: Mapping[str, Form] = {
    "object_id": OBJECT_ID,
    "time": {
        "type": "string",
        "pattern": _TIME_TEXT,
        "description": "ISO 8601 (UTC where no offset stands) or RFC 1123.",
        "examples": ["2026-11-22T06:51:14.123Z", "Sun, 22 Nov 2026 06:51:14 GMT"],
    },
    "duration": {
        "description": "Milliseconds, or text with units.",
        "anyOf": _DURATIONS,
    },
    "retain": {
        "description": "Milliseconds after the last change, or text with units; or for ever.",
        "anyOf": [
            {**_DURATIONS[0], "maximum": LONGEST_MILLISECONDS},
            _DURATIONS[1],
            {"type": "string", "enum": [FOREVER]},
        ],
    },
    "priority": {"anyOf": [{"type": "integer"}, {"type": "string", "enum": list(PRIORITIES)}]},
    "base64": {"type": "string", "contentEncoding": "base64"},
    "requested_resources": {
        **_object(
            memory=_BYTES,
            cores=_CORES,
            gpus=_gpus(_object(memory=_BYTES, min_compute_capability=_CAPABILITY)),
            disk=_BYTES,
            cpu_memory_bytes=_BYTES,
            cpu_cores=_object(count=_CORES, percent={**_CORES, "maximum": 100}),
            gpu_count=_GPU_COUNT,
            gpu_memory_bytes=_BYTES,
            gpu_compute_capability_major=_CAPABILITY_PART,
            gpu_compute_capability_minor=_CAPABILITY_PART,
            disk_bytes=_BYTES,
            custom=_CUSTOM,
        ),
        "description": "The short forms (memory, cores, gpus, disk) or the stored ones.",
        "examples": [{"cores": 2, "memory": "1 GiB", "gpus": 1}],
    },
    "capacity": {
        **_object(
            cores=_CORES,
            memory=_BYTES,
            gpus=_gpus(
                _object(memory=_BYTES, compute_capability=_CAPABILITY, uuid=_TEXT, name=_TEXT),
                OWN_GPUS_MAX,
            ),
            disk={**_BYTES, "anyOf": [*_BYTES["anyOf"], {"type": "null"}]},
            custom=_CUSTOM,
        ),
        "required": ["cores", "memory"],
    },
}


# A claim's `fits` reads as a capacity of which anything may be left out.
FREE: Form = {name: rule for name, rule in FORMS["capacity"].items() if name != "required"}
