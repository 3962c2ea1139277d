"""The NVIDIA GPUs of this machine: what there is, and what is used of it.

Called by the inventory and for samples of attempts that were granted GPUs. It must never fail
for want of the library or the driver.
"""

import contextlib
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

_log = logging.getLogger(__name__)

# Of those found, as NVML counts them: it counts also what this process may not use, CUDA does not.
_indexes: list[int] = []


def found() -> list[dict[str, Any]]:
    """Those that can be used, in the order in which CUDA counts them by PCI bus.

    None without the library or the driver.
    """
    _indexes.clear()
    gpus: list[dict[str, Any]] = []
    with _library() as nvml:
        for index in range(_count(nvml)):
            try:
                gpus.append(_gpu(nvml, index))
                _indexes.append(index)
            except nvml.NVMLError as error:  # no permission, or fallen off the bus
                _log.warning("GPU %d is not given to tasks: %s", index, error)
    return gpus


def usage_of(ordinals: Sequence[int]) -> list[dict[str, Any]]:
    """What is used of these: ordinal, used_memory_bytes, utilization_percent where it is known.

    ordinals: positions in what `found` has returned. An attempt has its GPUs for itself, so what
    is used of them is used by it.
    """
    known = [ordinal for ordinal in ordinals if ordinal < len(_indexes)]
    if not known:
        return []
    usage: list[dict[str, Any]] = []
    with _library() as nvml:
        for ordinal in known if nvml else ():
            # Fallen off the bus, the task will notice; or its memory is the machine's.
            with contextlib.suppress(nvml.NVMLError):
                usage.append({"ordinal": ordinal, **_usage(nvml, _indexes[ordinal])})
    return usage


@contextmanager
def _library() -> Iterator[Any]:
    try:
        import pynvml

        pynvml.nvmlInit()
    except ImportError:
        yield None
        return
    except pynvml.NVMLError:
        yield None
        return
    try:
        yield pynvml
    finally:
        with contextlib.suppress(pynvml.NVMLError):
            pynvml.nvmlShutdown()


def _count(nvml: Any) -> int:
    if not nvml:
        return 0
    try:
        return int(nvml.nvmlDeviceGetCount())
    except nvml.NVMLError:
        return 0


def _usage(nvml: Any, index: int) -> dict[str, Any]:
    handle = nvml.nvmlDeviceGetHandleByIndex(index)
    usage = {"used_memory_bytes": _used_bytes(nvml, handle)}
    with contextlib.suppress(nvml.NVMLError):  # not told of one that is divided (MIG)
        usage["utilization_percent"] = int(nvml.nvmlDeviceGetUtilizationRates(handle).gpu)
    return usage


def _used_bytes(nvml: Any, handle: Any) -> int:
    """As nvidia-smi says it: without what the driver keeps for itself."""
    try:
        return int(nvml.nvmlDeviceGetMemoryInfo(handle, nvml.nvmlMemory_v2).used)
    except nvml.NVMLError:  # a driver before 510 counts both together
        return int(nvml.nvmlDeviceGetMemoryInfo(handle).used)


def _gpu(nvml: Any, index: int) -> dict[str, Any]:
    handle = nvml.nvmlDeviceGetHandleByIndex(index)
    major, minor = nvml.nvmlDeviceGetCudaComputeCapability(handle)
    return {
        "memory": _memory_bytes(nvml, handle),
        "compute_capability": f"{major}.{minor}",
        "uuid": str(nvml.nvmlDeviceGetUUID(handle)),
        "name": str(nvml.nvmlDeviceGetName(handle)),
    }


def _memory_bytes(nvml: Any, handle: Any) -> int:
    """0, of which nothing may be asked, where it has none of its own: its memory is the machine's.

    Errors: NVMLError where it cannot be used at all.
    """
    try:
        return int(nvml.nvmlDeviceGetMemoryInfo(handle).total)
    except nvml.NVMLError as error:
        if error.value != nvml.NVML_ERROR_NOT_SUPPORTED:
            raise
        return 0
