"""The NVIDIA GPUs of this machine: what there is, and what is used of it.

Called by the inventory and for samples of attempts that were granted GPUs. It must never fail
for want of the library or the driver.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any


def found() -> list[dict[str, Any]]:
    """Those there are, in the order of their indexes; none without the library or the driver."""
    with _library() as nvml:
        return [_gpu(nvml, index) for index in range(nvml.nvmlDeviceGetCount())] if nvml else []


def usage_of(indexes: Sequence[int]) -> list[dict[str, Any]]:
    """What is used of these: ordinal, used_memory_bytes, utilization_percent.

    An attempt has its GPUs for itself, so what is used of them is used by it.
    """
    if not indexes:
        return []
    with _library() as nvml:
        try:
            return [_usage(nvml, index) for index in indexes] if nvml else []
        except nvml.NVMLError:  # one has fallen off the bus; the task will notice
            return []


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
        pynvml.nvmlShutdown()


def _usage(nvml: Any, index: int) -> dict[str, Any]:
    handle = nvml.nvmlDeviceGetHandleByIndex(index)
    return {
        "ordinal": index,
        "used_memory_bytes": int(nvml.nvmlDeviceGetMemoryInfo(handle).used),
        "utilization_percent": int(nvml.nvmlDeviceGetUtilizationRates(handle).gpu),
    }


def _gpu(nvml: Any, index: int) -> dict[str, Any]:
    handle = nvml.nvmlDeviceGetHandleByIndex(index)
    major, minor = nvml.nvmlDeviceGetCudaComputeCapability(handle)
    return {
        "memory": int(nvml.nvmlDeviceGetMemoryInfo(handle).total),
        "compute_capability": f"{major}.{minor}",
        "uuid": str(nvml.nvmlDeviceGetUUID(handle)),
        "name": str(nvml.nvmlDeviceGetName(handle)),
    }
