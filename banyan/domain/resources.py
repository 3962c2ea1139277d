"""What a task asks for, what a worker has, and whether the one fits the other.

The validator normalises what clients send to the stored form, the claim and the worker's agent do
the arithmetic. Nothing here reserves anything: a Grant is a number, not a promise.

Numbers of cores and custom resources have six decimals: ten times 0.1 added up is exactly 1.
"""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from banyan.domain.fields import Fields, Number, parse_integer, parse_number, tidy
from banyan.domain.fields import ResourceError as ResourceError
from banyan.domain.units import LARGEST, parse_bytes

MEMORY_BYTES_DEFAULT = 128 * 2**20
CORES_DEFAULT = 1
CORES_MAX = 1_000_000
GPUS_MAX, OWN_GPUS_MAX = 1024, 64  # that a task may ask for, and that a worker may have
CUSTOM_NAMES_MAX = 64
CUSTOM_MAX = LARGEST
CAPABILITY_PART_MAX = 999
TEXT_LENGTH_MAX = 96  # as in NVIDIA's own library

T = TypeVar("T")

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_CAPABILITY = re.compile(r"([0-9]{1,3})(?:\.([0-9]{1,3}))?")
_SHORT_FORMS = {
    "memory": ("cpu_memory_bytes",),
    "cores": ("cpu_cores",),
    "disk": ("disk_bytes",),
    "gpus": (
        "gpu_count",
        "gpu_memory_bytes",
        "gpu_compute_capability_major",
        "gpu_compute_capability_minor",
    ),
}
_REQUEST_FIELDS = (*_SHORT_FORMS, *sum(_SHORT_FORMS.values(), ()), "custom")
_CAPACITY_FIELDS = ("cores", "memory", "gpus", "disk", "custom")


@dataclass(frozen=True, order=True)
class Gpu:
    """One GPU; nothing known about it is 0 bytes and capability (0, 0), the least there is."""

    memory_bytes: int = 0
    capability: tuple[int, int] = (0, 0)

    def covers(self, other: "Gpu") -> bool:
        """At least `other`, in memory and in capability."""
        return self.memory_bytes >= other.memory_bytes and self.capability >= other.capability


@dataclass(frozen=True)
class Grant:
    """What one attempt holds of its worker; memory and capability are of each of its GPUs."""

    cores: Number = 0
    memory_bytes: int = 0
    gpu_count: int = 0
    gpu_memory_bytes: int = 0
    gpu_capability: tuple[int, int] = (0, 0)
    disk_bytes: int = 0
    custom: Mapping[str, Number] = field(default_factory=dict)

    def plus(self, other: "Grant") -> "Grant":
        """Both together; of the GPUs, the larger demands."""
        names = {*self.custom, *other.custom}
        return Grant(
            cores=tidy(self.cores + other.cores),
            memory_bytes=self.memory_bytes + other.memory_bytes,
            gpu_count=self.gpu_count + other.gpu_count,
            gpu_memory_bytes=max(self.gpu_memory_bytes, other.gpu_memory_bytes),
            gpu_capability=max(self.gpu_capability, other.gpu_capability),
            disk_bytes=self.disk_bytes + other.disk_bytes,
            custom={n: tidy(self.custom.get(n, 0) + other.custom.get(n, 0)) for n in names},
        )

    def to_json(self) -> dict[str, object]:
        """`granted_resources`: what the GPUs must be is there only where GPUs are."""
        document: dict[str, object] = {
            "cores": self.cores,
            "memory_bytes": self.memory_bytes,
            "gpu_count": self.gpu_count,
            "disk_bytes": self.disk_bytes,
            "custom": dict(self.custom),
        }
        if self.gpu_count:
            document["gpu_memory_bytes"] = self.gpu_memory_bytes
            document["gpu_compute_capability"] = "{}.{}".format(*self.gpu_capability)
        return document

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> "Grant":
        """The inverse of to_json, for what we wrote ourselves; what is left out is 0."""
        return cls(
            cores=document.get("cores", 0),
            memory_bytes=document.get("memory_bytes", 0),
            gpu_count=document.get("gpu_count", 0),
            gpu_memory_bytes=document.get("gpu_memory_bytes", 0),
            gpu_capability=_capability(document.get("gpu_compute_capability", "0.0")),
            disk_bytes=document.get("disk_bytes", 0),
            custom=dict(document.get("custom", {})),
        )


@dataclass(frozen=True)
class Capacity:
    """What a worker has, or has left. `disk_bytes` None: not declared, so without limit."""

    cores: Number
    memory_bytes: int
    gpus: tuple[Gpu, ...] = ()
    disk_bytes: int | None = None
    custom: Mapping[str, Number] = field(default_factory=dict)

    def minus(self, grant: Grant) -> "Capacity":
        """What is left beside the grant, never below nothing: a worker may have shrunk since."""
        disk = self.disk_bytes
        return Capacity(
            cores=max(0, tidy(self.cores - grant.cores)),
            memory_bytes=max(0, self.memory_bytes - grant.memory_bytes),
            gpus=_without(self.gpus, grant),
            disk_bytes=None if disk is None else max(0, disk - grant.disk_bytes),
            custom={n: max(0, tidy(v - grant.custom.get(n, 0))) for n, v in self.custom.items()},
        )


def fits(grant: Grant, free: Capacity) -> bool:
    """Whether all of the grant is there at once; GPUs that are too small do not count."""
    return (
        grant.cores <= free.cores
        and grant.memory_bytes <= free.memory_bytes
        and (free.disk_bytes is None or grant.disk_bytes <= free.disk_bytes)
        and all(amount <= free.custom.get(name, 0) for name, amount in grant.custom.items())
        and (not grant.gpu_count or grant.gpu_count <= _count_gpus(grant, free.gpus))
    )


def grant_for(request: Mapping[str, Any], total: Capacity) -> Grant:
    """What a request in the stored form comes to on a worker that has `total` when empty.

    Only percent depends on the worker: the share is rounded up to whole cores, but never past
    what the worker has, so that 100 % of 2.5 cores fits.
    """
    cores = request["cpu_cores"]
    share = min(math.ceil(tidy(cores["percent"] * total.cores / 100)), total.cores)
    return Grant(
        cores=max(cores["count"], share),
        memory_bytes=request["cpu_memory_bytes"],
        gpu_count=request["gpu_count"],
        gpu_memory_bytes=request["gpu_memory_bytes"],
        gpu_capability=(
            request["gpu_compute_capability_major"],
            request["gpu_compute_capability_minor"],
        ),
        disk_bytes=request["disk_bytes"],
        custom=request["custom"],
    )


def normalise_request(given: Mapping[str, object] | None) -> dict[str, object]:
    """The stored form, every key there, from short forms or the stored form; idempotent.

    `gpus` as a list is kept as a count and the largest memory and capability that any of them
    asks for: a task gets GPUs of one kind. Demands on GPUs without a count mean one GPU.
    Raises ResourceError naming every field that is wrong.
    """
    fields = Fields({} if given is None else given, _REQUEST_FIELDS)
    for short, long_names in _SHORT_FORMS.items():
        for name in long_names:
            if short in fields.given and name in fields.given:
                fields.issues[short] = f"says the same as {name}: give one of them"
    count, least = fields.read("gpus", _wanted_gpus, (0, Gpu()))
    least = Gpu(
        fields.read("gpu_memory_bytes", parse_bytes, least.memory_bytes),
        (
            fields.read("gpu_compute_capability_major", _capability_part, least.capability[0]),
            fields.read("gpu_compute_capability_minor", _capability_part, least.capability[1]),
        ),
    )
    if "gpus" not in fields.given and least != Gpu():
        count = 1
    memory = fields.read("memory", parse_bytes, MEMORY_BYTES_DEFAULT)
    cores = {"count": fields.read("cores", _cores, CORES_DEFAULT), "percent": 0}
    stored: dict[str, object] = {
        "cpu_memory_bytes": fields.read("cpu_memory_bytes", parse_bytes, memory),
        "cpu_cores": fields.read("cpu_cores", _cores_and_percent, cores),
        "gpu_count": fields.read("gpu_count", _gpu_count, count),
        "gpu_memory_bytes": least.memory_bytes,
        "gpu_compute_capability_major": least.capability[0],
        "gpu_compute_capability_minor": least.capability[1],
        "disk_bytes": fields.read("disk_bytes", parse_bytes, fields.read("disk", parse_bytes, 0)),
        "custom": fields.read("custom", _custom, {}),
    }
    fields.check()
    return stored


def changed_request(stored: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, object]:
    """A stored request with what is given in its place; what is left out stays as it is."""
    for short, names in _SHORT_FORMS.items():
        if short in given or (short == "gpus" and not stored["gpu_count"]):
            stored = {name: value for name, value in stored.items() if name not in names}
    return normalise_request({**stored, **given})


def normalise_capacity(given: Mapping[str, object]) -> dict[str, object]:
    """A worker's `resources`, every key there: {"cores", "memory", "gpus", "disk", "custom"}.

    `cores` and `memory` (bytes) are required; `gpus` becomes a list, also from a count (of which
    then nothing is known, so they serve only tasks that ask nothing of them); `disk` left out is
    None, without limit. Idempotent. Raises ResourceError.
    """
    fields = Fields(given, _CAPACITY_FIELDS)
    fields.issues |= {name: "required" for name in ("cores", "memory") if name not in given}
    stored: dict[str, object] = {
        "cores": fields.read("cores", _cores, 0),
        "memory": fields.read("memory", parse_bytes, 0),
        "gpus": fields.read("gpus", _own_gpus, []),
        "disk": fields.read("disk", _bytes_or_none, None),
        "custom": fields.read("custom", _custom, {}),
    }
    fields.check()
    return stored


def capacity_from(resources: Mapping[str, Any]) -> Capacity:
    """From the form that normalise_capacity gives."""
    return Capacity(
        cores=resources["cores"],
        memory_bytes=resources["memory"],
        gpus=_gpus_from(resources["gpus"]),
        disk_bytes=resources["disk"],
        custom=resources["custom"],
    )


def free_from(given: Mapping[str, object], total: Capacity) -> Capacity:
    """A claim's `fits`: what of `total` is free; what it leaves out is all free.

    Never more than total. A count of GPUs stands for the largest of them, so a worker whose GPUs
    differ had better list the free ones. Raises ResourceError.
    """
    fields = Fields(given, _CAPACITY_FIELDS)
    cores = fields.read("cores", _cores, total.cores)
    memory = fields.read("memory", parse_bytes, total.memory_bytes)
    gpus = fields.read("gpus", lambda value: _free_gpus(value, total.gpus), total.gpus)
    disk = fields.read("disk", _bytes_or_none, None)
    custom = fields.read("custom", _custom, {})
    fields.check()
    disks = [size for size in (disk, total.disk_bytes) if size is not None]
    return Capacity(
        cores=min(cores, total.cores),
        memory_bytes=min(memory, total.memory_bytes),
        gpus=gpus,
        disk_bytes=min(disks, default=None),
        custom={name: min(custom.get(name, has), has) for name, has in total.custom.items()},
    )


def _cores(value: object) -> Number:
    return parse_number(value, CORES_MAX)


def _gpu_count(value: object) -> int:
    return parse_integer(value, GPUS_MAX)


def _capability_part(value: object) -> int:
    return parse_integer(value, CAPABILITY_PART_MAX)


def _bytes_or_none(value: object) -> int | None:
    return None if value is None else parse_bytes(value)


def _cores_and_percent(value: object) -> dict[str, Number]:
    fields = Fields(value, ("count", "percent"))
    count = fields.read("count", _cores, 0 if "percent" in fields.given else CORES_DEFAULT)
    percent = fields.read("percent", lambda given: parse_number(given, 100), 0)
    fields.check()
    return {"count": count, "percent": percent}


def _custom(value: object) -> dict[str, Number]:
    if not isinstance(value, Mapping) or len(value) > CUSTOM_NAMES_MAX:
        raise ValueError(f"must be an object of name and number, at most {CUSTOM_NAMES_MAX}")
    for name in value:
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise ValueError("names are 1 to 64 of A-Z, a-z, 0-9, _ and -")
    fields = Fields(value, value)
    numbers = {name: fields.read(name, lambda v: parse_number(v, CUSTOM_MAX), 0) for name in value}
    fields.check()
    return numbers


def _capability(value: object) -> tuple[int, int]:
    """ "7.5", and as clients write it so, the number 7.5."""
    match = _CAPABILITY.fullmatch(str(value)) if isinstance(value, str | int | float) else None
    if match is None:
        raise ValueError('must be text like "7.5"')
    return int(match[1]), int(match[2] or 0)


def _text(value: object) -> str:
    if not isinstance(value, str) or len(value) > TEXT_LENGTH_MAX:
        raise ValueError(f"must be text of at most {TEXT_LENGTH_MAX} characters")
    return value


def _each(value: object, parse: Callable[[object], T], most: int) -> list[T]:
    """Parses a list of GPUs, naming what is wrong by position."""
    if not isinstance(value, list | tuple) or len(value) > most:
        raise ValueError(f"must be a count of GPUs or a list of them, at most {most}")
    by_position = {str(i): gpu for i, gpu in enumerate(value)}
    fields = Fields(by_position, by_position)
    parsed = [fields.read(name, lambda gpu: [parse(gpu)], []) for name in by_position]
    fields.check()
    return [gpu for one in parsed for gpu in one]


def _wanted_gpus(value: object) -> tuple[int, Gpu]:
    """How many, and the least that each must be."""
    if isinstance(value, int | float):
        return _gpu_count(value), Gpu()
    gpus = _each(value, _wanted_gpu, GPUS_MAX)
    memory = max((gpu.memory_bytes for gpu in gpus), default=0)
    return len(gpus), Gpu(memory, max((gpu.capability for gpu in gpus), default=(0, 0)))


def _wanted_gpu(value: object) -> Gpu:
    fields = Fields(value, ("memory", "min_compute_capability"))
    gpu = Gpu(
        fields.read("memory", parse_bytes, 0),
        fields.read("min_compute_capability", _capability, (0, 0)),
    )
    fields.check()
    return gpu


def _own_gpus(value: object) -> list[dict[str, object]]:
    if isinstance(value, int | float):
        count = parse_integer(value, OWN_GPUS_MAX)
        return [{"memory": 0, "compute_capability": "0.0"} for _ in range(count)]
    return _each(value, _own_gpu, OWN_GPUS_MAX)


def _own_gpu(value: object) -> dict[str, object]:
    fields = Fields(value, ("memory", "compute_capability", "uuid", "name"))
    capability = fields.read("compute_capability", _capability, (0, 0))
    gpu: dict[str, object] = {
        "memory": fields.read("memory", parse_bytes, 0),
        "compute_capability": "{}.{}".format(*capability),
    }
    gpu |= {name: fields.read(name, _text, "") for name in ("uuid", "name") if name in fields.given}
    fields.check()
    return gpu


def _gpus_from(gpus: list[dict[str, Any]]) -> tuple[Gpu, ...]:
    return tuple(Gpu(gpu["memory"], _capability(gpu["compute_capability"])) for gpu in gpus)


def _free_gpus(value: object, total: tuple[Gpu, ...]) -> tuple[Gpu, ...]:
    """A count: the largest of them. A list: each that one of the worker's own can be."""
    if isinstance(value, int | float):
        return tuple(sorted(total, reverse=True)[: _gpu_count(value)])
    unmatched, free = sorted(total), []
    for gpu in sorted(_gpus_from(_own_gpus(value)), reverse=True):
        own = next((own for own in unmatched if own.covers(gpu)), None)
        if own is not None:
            unmatched.remove(own)
            free.append(gpu)
    return tuple(free)


def _count_gpus(grant: Grant, gpus: tuple[Gpu, ...]) -> int:
    """How many of them will do."""
    if grant.gpu_count > len(gpus):
        return 0
    least = _least_gpu(grant)
    return sum(gpu.covers(least) for gpu in gpus)


def _least_gpu(grant: Grant) -> Gpu:
    return Gpu(grant.gpu_memory_bytes, grant.gpu_capability)


def _without(gpus: tuple[Gpu, ...], grant: Grant) -> tuple[Gpu, ...]:
    """Takes the least GPUs that will do, then any: a grant that is held counts in any case."""
    if not grant.gpu_count:
        return gpus
    least = _least_gpu(grant)
    return tuple(sorted(gpus, key=lambda gpu: (not gpu.covers(least), gpu))[grant.gpu_count :])
