"""What claims and ends cost, by the size of their batches: latency, and CPU a task."""

from collections.abc import Callable
from typing import Any

from tests.bench.figures import Figure, median
from tests.bench.programs import TRUE, milliseconds
from tests.bench.stack import Stack, stack
from tests.bench.swarm import end_of

_RESOURCES = {"cores": 100_000, "memory": "8000 TiB"}
_LINE = [{"offset": 0, "stream": "stdout", "data": "aGVsbG8sIHdvcmxkCg=="}]
_SIZES = (1, 16, 500)


def cost(most: int) -> list[Figure]:
    """For each size, batches of up to `most` tasks together; every end brings a line of output."""
    with stack("--no-worker") as up:
        body = {"host": "bench", "resources": _RESOURCES}
        worker = up.worker.post("workers", body)["_id"]
        _batches(up, worker, 1, 20)
        figures: list[Figure] = []
        for size in _SIZES:
            figures += _batches(up, worker, size, max(4, min(200, most // size)))
        return figures


def _batches(up: Stack, worker: str, size: int, count: int) -> list[Figure]:
    for start in range(0, size * count, 1000):
        up.provider.post("tasks", [TRUE] * min(1000, size * count - start))
    body = {"worker": worker, "max": size, "start": True, "fits": _RESOURCES}
    claimed: list[list[dict[str, Any]]] = []

    def claim() -> None:
        claimed.append(up.worker.post("tasks/claim", body)["_items"])

    def end() -> None:
        ends = [end_of(item) for item in claimed.pop()]
        for one in ends:
            one["update_execution_data"]["log"] = _LINE
        up.worker.patch("tasks", ends)

    return [
        *_of(up, f"claim of {size}", claim, size, count),
        *_of(up, f"end of {size} with output", end, size, count),
    ]


def _of(up: Stack, what: str, work: Callable[[], Any], size: int, count: int) -> list[Figure]:
    before = up.cpu_seconds()
    took = [milliseconds(work) for _ in range(count)]
    after = up.cpu_seconds()
    used = {kind: (after[kind] - before[kind]) * 1000 for kind in ("server", "mongod")}
    return [
        Figure(what, median(took), "ms"),
        *(
            Figure(f"{what}, {kind}", one / size / count, "ms CPU a task")
            for kind, one in used.items()
        ),
    ]
