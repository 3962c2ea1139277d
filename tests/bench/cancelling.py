"""Cancelling: from the request until no process is left, and until the task is `cancelled`."""

import time
from pathlib import Path

from tests.bench.figures import Figure, median, percentile
from tests.bench.stack import stack

_TASK = {"command": "sleep 1000 & wait", "state": "available"}


def cancelling(count: int) -> list[Figure]:
    """`count` running tasks with a child each, one after the other."""
    gone, told = [], []
    with stack() as up:
        for _ in range(count):
            task = up.provider.post("tasks", _TASK)["_id"]
            while len(_processes(task)) < 2:
                time.sleep(0.01)
            start = time.perf_counter()
            up.provider.post(f"tasks/{task}/cancel", {})
            while _processes(task):
                time.sleep(0.002)
            gone.append(1000 * (time.perf_counter() - start))
            while up.provider.get(f"tasks/{task}")["state"] != "cancelled":
                time.sleep(0.002)
            told.append(1000 * (time.perf_counter() - start))
    return [
        Figure("Cancel to no process left, median", median(gone), "ms"),
        Figure("Cancel to no process left, p95", percentile(gone, 95), "ms", most=1000),
        Figure("Cancel to `cancelled`, median", median(told), "ms"),
        Figure("Cancel to `cancelled`, p95", percentile(told, 95), "ms", most=1000),
    ]


def _processes(task: str) -> list[str]:
    """The ids of the processes on this machine that belong to the task."""
    mark = f"BANYAN_TASK_ID={task}".encode()
    return [entry.name for entry in Path("/proc").iterdir() if mark in _environment(entry)]


def _environment(process: Path) -> list[bytes]:
    try:
        return (process / "environ").read_bytes().split(b"\0") if process.name.isdigit() else []
    except OSError:  # it has ended meanwhile, or is somebody else's
        return []
