"""What this process has done, counted: the numbers behind /metrics that no document tells.

Anybody in the process counts here; upkeep hands what has come together since the last time to
the database (`drain`), where the counts of all processes add up: /metrics is the same whichever
of them answers, and goes on where it was after a restart. Labels are words of ours, never what
users write.
"""

import threading
from bisect import bisect_left
from collections.abc import Mapping

SECONDS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
SIZES = (0.0, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)

Labels = Mapping[str, str]


def series(name: str, labels: Labels) -> str:
    """A series as /metrics writes it: `name{label="value"}`."""
    told = ",".join(f'{label}="{_escaped(value)}"' for label, value in sorted(labels.items()))
    return f"{name}{{{told}}}" if told else name


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


class Counters:
    """Sums by series; safe from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sums: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}

    def count(self, name: str, amount: float = 1, **labels: str) -> None:
        """Add to a counter."""
        key = name, tuple(labels.items())
        with self._lock:
            self._sums[key] = self._sums.get(key, 0) + amount

    def observe(
        self, name: str, value: float, bounds: tuple[float, ...] = SECONDS, **labels: str
    ) -> None:
        """Add to a histogram: in each bucket is what is not above its bound, but above the last."""
        place = bisect_left(bounds, value)
        bound = f"{bounds[place]:g}" if place < len(bounds) else "+Inf"
        self.count(f"{name}_bucket", 1, **labels, le=bound)
        self.count(f"{name}_sum", value, **labels)

    def drain(self) -> dict[str, float]:
        """What was counted since the last time, by series."""
        with self._lock:
            sums, self._sums = self._sums, {}
        return {series(name, dict(labels)): value for (name, labels), value in sums.items()}


COUNTERS = Counters()
