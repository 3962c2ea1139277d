"""What the machine has for tasks: cores, memory, GPUs.

Called once, when a worker starts. Looks at what this process may use, not at what is built in:
a container's limits and a CPU affinity count. It must never fail for want of a GPU library.
"""

import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from banyan.domain.units import format_bytes
from banyan.errors import BanyanError
from banyan.worker import cells, cgroups, gpus
from banyan.worker.options import Options

_log = logging.getLogger(__name__)

_NVIDIA_DRIVER = Path("/dev/nvidiactl")
_NO_LIMIT_BYTES = 1 << 60  # version 1 writes "no limit" as a number close to 2**63


def resources(options: Options) -> dict[str, Any]:
    """The `resources` of a registration: what the machine has, less what the owner keeps.

    Errors: BanyanError `usage` where nothing would be left, or the machine cannot hold tasks
    to their memory in the way that is demanded.
    """
    if options.memory_enforcement == "cgroup" and not cells.available():
        raise BanyanError("usage", "there is no cgroup here that could bound a task's memory")
    found_gpus = gpus.found() if options.gpu_count != 0 else []
    count = len(found_gpus) if options.gpu_count is None else options.gpu_count
    if options.gpu_count is None and not found_gpus and _NVIDIA_DRIVER.exists():
        _log.warning(
            "there is an NVIDIA driver, and no GPU was found: pip install 'banyan[gpu]', or say "
            "--gpus N; until then GPUs are not counted, and every task sees all of them"
        )
    unknown: list[dict[str, Any]] = [{"memory": 0}] * max(count - len(found_gpus), 0)
    found: dict[str, Any] = {
        "cores": _cores_to_give(options),
        "memory": _memory_to_give(options),
        "gpus": [*found_gpus[:count], *unknown],
        "custom": dict(options.custom),
    }
    if options.disk_bytes is not None:
        found["disk"] = options.disk_bytes
    return found


def _cores_to_give(options: Options) -> float:
    """Errors: BanyanError `usage` where the owner keeps all."""
    there = cores() if options.cores is None else options.cores
    if there > (most := cores()):
        _log.warning("%s are more than the %g of this machine: tasks will share these",
                     f"--cores {there:g}", most)  # fmt: skip
    if options.reserve_cores and options.reserve_cores >= there:
        raise BanyanError("usage", f"to keep {options.reserve_cores:g} of {there:g} cores is all")
    return round(there - options.reserve_cores, 6) if options.reserve_cores else there


def _memory_to_give(options: Options) -> int:
    """Errors: BanyanError `usage` where the owner keeps all."""
    there = memory_bytes() if options.memory_bytes is None else options.memory_bytes
    if there > (most := memory_bytes()):
        _log.warning("--memory %s is more than the %s of this machine: tasks may find none left",
                     format_bytes(there), format_bytes(most))  # fmt: skip
    kept = options.reserve_memory_bytes + int(there * options.reserve_memory_percent / 100)
    if kept and kept >= there:
        raise BanyanError(
            "usage", f"to keep {format_bytes(kept)} of {format_bytes(there)} of memory is all"
        )
    return there - kept


def cores(proc: Path = Path("/proc/self")) -> int | float:
    """Cores that this process may use; a part of one where a cgroup allows no more."""
    allowed = len(os.sched_getaffinity(0))
    quota = min(_cpu_quotas(proc), default=float(allowed))
    return allowed if quota >= allowed else max(round(quota, 2), 0.01)


def cpus(options: Options) -> tuple[int, ...]:
    """The numbers of the CPUs that tasks are to be bound to; none where they are not to be."""
    return tuple(sorted(os.sched_getaffinity(0))) if options.affinity else ()


def memory_bytes(proc: Path = Path("/proc/self")) -> int:
    """Memory that this process and its children may use."""
    whole = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return min([whole, *_memory_limits(proc)])


def _cpu_quotas(proc: Path) -> Iterator[float]:
    for directory in cgroups.own("cpu", proc):
        quota, _, period = cgroups.text(directory / "cpu.max").partition(" ")  # version 2
        if not quota:
            quota = cgroups.text(directory / "cpu.cfs_quota_us")
            period = cgroups.text(directory / "cpu.cfs_period_us")
        if quota.isdigit() and period.isdigit() and int(period) > 0:
            yield int(quota) / int(period)


def _memory_limits(proc: Path) -> Iterator[int]:
    for directory in cgroups.own("memory", proc):
        limit = cgroups.text(directory / "memory.max") or cgroups.text(
            directory / "memory.limit_in_bytes"
        )
        if limit.isdigit() and int(limit) < _NO_LIMIT_BYTES:
            yield int(limit)
