"""W5: many simulated workers through one and two server processes."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.bench.figures import Figure
from tests.bench.programs import Cpu
from tests.bench.stack import Stack, stack
from tests.bench.waiting import ended

WORKERS = 100
BATCH = 16  # tasks that a simulated worker claims at a time
BATCH_OF_SHORT = 256  # as many as a real one does whose tasks are over in no time
BEAT_SECONDS = 5.0  # a worker beats every 15 s; more often, so that there is something to count
NOTHING = {"command": ["/bin/true"], "state": "available"}


@contextmanager
def swarm(up: Stack, **order: Any) -> Iterator["subprocess.Popen[str]"]:
    """Simulated workers that have registered; `go` starts them."""
    given = {"url": up.url, "token": up.tokens["worker"], "batch": BATCH, "tasks": 0}
    given |= {"task_seconds": 0.0, **order}
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.bench.swarm"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(given) + "\n")
        process.stdin.flush()
        if process.stdout.readline() != "ready\n":
            raise RuntimeError("the simulated workers could not register")
        yield process
    finally:
        process.kill()
        process.wait()


def go(process: "subprocess.Popen[str]") -> dict[str, Any]:
    """Start them; what they found when they are done."""
    found, _ = process.communicate("\n")
    result: dict[str, Any] = json.loads(found)
    return result


def w5(count: int, workers: int = WORKERS) -> list[Figure]:
    """Simulated workers drain `count` no-op tasks."""
    figures = []
    for server_processes, batch in ((1, BATCH), (2, BATCH), (2, BATCH_OF_SHORT)):
        figures += _drained(count, workers, server_processes, batch)
    return figures


def _drained(count: int, workers: int, server_processes: int, batch: int) -> list[Figure]:
    with stack("--no-worker", "--processes", str(server_processes)) as up:
        for _ in range(0, count, 1000):
            up.provider.post("tasks", [NOTHING] * 1000)
        order = {"mode": "drain", "tasks": count, "beat_seconds": BEAT_SECONDS, "batch": batch}
        with swarm(up, workers=workers, **order) as process:
            cpu = Cpu(up)
            found = go(process)
            used = cpu.milliseconds(count)
        lost = count - ended(up)
    name = f"W5, {server_processes} server process{'es' * (server_processes > 1)}"
    name += f", claims of {batch}"
    return list(_figures(name, found, used, server_processes, lost))


def _figures(
    name: str, found: dict[str, Any], used: dict[str, float], server_processes: int, lost: int
) -> Iterator[Figure]:
    aimed = {"least": 4000} if server_processes == 2 else {}
    yield Figure(name, found["ended"] / found["seconds"], "tasks/s", **aimed)
    for what in ("claim", "beat", "end"):
        took = found["took"].get(what, {"p50": 0.0, "p99": 0.0})  # none: it was over too soon
        yield Figure(f"{name}, {what} p50", took["p50"], "ms")
        most = {"most": 150} if (what, server_processes) == ("claim", 2) else {}
        yield Figure(f"{name}, {what} p99", took["p99"], "ms", **most)
    wrong = found["error_count"] + abs(lost)
    yield Figure(f"{name}, errors and tasks lost", wrong, "", most=0)
    for kind in ("server", "mongod"):
        yield Figure(f"{name}, {kind}", used[kind], "ms CPU a task")
    share = found["cpu_seconds"] / found["seconds"] / (os.cpu_count() or 1) * 100
    yield Figure(f"{name}, the simulated workers themselves", share, "% of all cores")
    for error in found["errors"]:
        print(error, file=sys.stderr)
