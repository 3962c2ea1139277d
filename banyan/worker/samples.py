"""Samples of what an attempt uses, from the launcher's message to the server's report.

Held by the reports for each attempt. In bounded space: while the server is away the oldest go.
"""

from collections.abc import Mapping
from typing import Any

from banyan.worker.endings import time_text

_SAMPLES_MAX = 60  # ten minutes


class Samples:
    """Those of one attempt that are not delivered yet."""

    def __init__(self) -> None:
        self._waiting: list[Mapping[str, Any]] = []
        self._dropped = 0  # that were too old, in all
        self._delivered = 0

    def add(self, sample: Mapping[str, Any]) -> None:
        """As the launcher says it; `gpus` may be there, as `gpus.usage_of` says it."""
        self._waiting.append(sample)
        excess = len(self._waiting) - _SAMPLES_MAX
        if excess > 0:
            del self._waiting[:excess]
            self._dropped += excess

    @property
    def end(self) -> int:
        """How many there were, for `delivered`."""
        return self._dropped + self._delivered + len(self._waiting)

    def delivered(self, end: int) -> None:
        """All up to there are recorded."""
        count = min(max(end - self._dropped - self._delivered, 0), len(self._waiting))
        del self._waiting[:count]
        self._delivered += count

    def as_report(self) -> dict[str, Any]:
        """The members of `update_execution_data`; empty where there is nothing to say."""
        if not self._waiting:
            return {}
        memory, cpu, gpu = [], [], []
        for sample in self._waiting:
            time = {"time": time_text(sample["time"])}
            sizes = ("resident_memory_bytes", "virtual_memory_bytes")
            memory.append({**time, **{name: sample[name] for name in sizes}})
            cpu.append({**time, "utilization_percent": sample["utilization_percent"]})
            gpu += [{**time, **each} for each in sample.get("gpus", ())]
        peak_bytes = max(sample["peak_memory_bytes"] for sample in self._waiting)
        report = {"memory_usage": memory, "cpu_utilization": cpu, "peak_memory_bytes": peak_bytes}
        return {**report, "gpu_usage": gpu[-1000:]} if gpu else report
