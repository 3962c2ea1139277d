"""What NVML says of GPUs, and what it does not: in place of a machine that has them."""

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from banyan.worker import gpus, inventory
from banyan.worker.options import Options

MIB = 1 << 20
KEPT_BYTES, USED_BYTES = 600 * MIB, 70 * MIB
NOT_SUPPORTED, NO_PERMISSION, UNKNOWN = 3, 4, 999


class NVMLError(Exception):
    def __init__(self, value: int) -> None:
        super().__init__(f"error {value}")
        self.value = value


class Nvml:
    """As much of pynvml as is used, for two GPUs; `fails`: what cannot be done, and how."""

    NVMLError = NVMLError
    NVML_ERROR_NOT_SUPPORTED = NOT_SUPPORTED
    nvmlMemory_v2 = 2

    def __init__(self) -> None:
        self.fails: dict[Any, int] = {}

    def _may(self, *what: Any) -> None:
        for each in what:
            if each in self.fails:
                raise NVMLError(self.fails[each])

    def nvmlInit(self) -> None:
        self._may("init")

    def nvmlShutdown(self) -> None:
        self._may("shutdown")

    def nvmlDeviceGetCount(self) -> int:
        self._may("count")
        return 2

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        self._may(index)
        return index

    def nvmlDeviceGetMemoryInfo(self, handle: int, version: int | None = None) -> Any:
        self._may("memory", *(["memory 2"] if version else []))
        used = USED_BYTES if version else USED_BYTES + KEPT_BYTES
        return SimpleNamespace(total=(handle + 1) * 1000 * MIB, used=used)

    def nvmlDeviceGetUtilizationRates(self, handle: int) -> Any:
        self._may("utilization")
        return SimpleNamespace(gpu=50 + handle)

    def nvmlDeviceGetCudaComputeCapability(self, handle: int) -> tuple[int, int]:
        return 9, 0

    def nvmlDeviceGetUUID(self, handle: int) -> str:
        return f"GPU-{handle}"

    def nvmlDeviceGetName(self, handle: int) -> str:
        return "a GPU"


@pytest.fixture
def nvml(monkeypatch: pytest.MonkeyPatch):
    there = Nvml()
    monkeypatch.setitem(sys.modules, "pynvml", there)
    monkeypatch.setattr(gpus, "_indexes", [], raising=False)
    return there


def ids() -> list[str]:
    options = Options("http://x", Path("/nowhere"), memory_enforcement="none")
    return [gpu["uuid"] for gpu in inventory.resources(options)["gpus"]]


def test_what_is_there_and_what_is_used_of_it(nvml: Nvml):
    first = {"memory": 1000 * MIB, "compute_capability": "9.0", "uuid": "GPU-0", "name": "a GPU"}
    assert gpus.found()[0] == first
    assert gpus.usage_of([1]) == [
        {"ordinal": 1, "used_memory_bytes": USED_BYTES, "utilization_percent": 51}
    ]
    assert gpus.usage_of([2]) == [], "one that was only claimed to be there"


@pytest.mark.parametrize("what", ["init", "count"])
def test_without_a_driver_there_are_none(nvml: Nvml, what: str):
    nvml.fails[what] = UNKNOWN
    assert ids() == []


def test_what_may_not_be_used_is_not_given(nvml: Nvml):
    nvml.fails[0] = NO_PERMISSION
    assert ids() == ["GPU-1"]
    assert gpus.usage_of([0])[0]["utilization_percent"] == 51, "counted as CUDA does"


def test_memory_of_its_own_may_be_missing(nvml: Nvml):
    nvml.fails["memory"] = NOT_SUPPORTED
    assert [gpu["memory"] for gpu in gpus.found()] == [0, 0]
    assert gpus.usage_of([0]) == []


def test_its_use_may_be_unknown(nvml: Nvml):
    assert ids()
    nvml.fails["utilization"] = NOT_SUPPORTED
    assert gpus.usage_of([0]) == [{"ordinal": 0, "used_memory_bytes": USED_BYTES}]


def test_an_old_driver_counts_its_own_memory(nvml: Nvml):
    assert ids()
    nvml.fails["memory 2"] = UNKNOWN
    assert gpus.usage_of([0])[0]["used_memory_bytes"] == USED_BYTES + KEPT_BYTES


def test_one_that_is_lost_hides_no_other(nvml: Nvml):
    assert ids()
    nvml.fails[0] = UNKNOWN
    nvml.fails["shutdown"] = UNKNOWN
    assert [used["ordinal"] for used in gpus.usage_of([0, 1])] == [1]
