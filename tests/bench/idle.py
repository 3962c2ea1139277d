"""What a stack costs that has nothing to do: with its own worker, and with simulated ones."""

import time

from tests.bench import processes
from tests.bench.figures import Figure
from tests.bench.many import go, swarm
from tests.bench.stack import Stack, stack

_MEBIBYTE = 1 << 20
_SETTLE_SECONDS = 2.0
# All of them come at one moment, and only what they ask for after that is measured.
_FIRST_REQUESTS_A_SECOND = 100
# As long as a beat is held, so that each worker beats as often as it ever does.
_SECONDS = 15.0


def idle(most_workers: int) -> list[Figure]:
    """With a real worker, then with 1, a tenth of and all of the simulated ones."""
    figures = _with_a_worker()
    for workers in sorted({1, max(1, most_workers // 10), most_workers}):
        with stack("--no-worker") as up:
            figures += _with_simulated(up, workers)
    return figures


def _with_a_worker() -> list[Figure]:
    with stack() as up:
        time.sleep(_SETTLE_SECONDS)
        before = up.cpu_seconds()
        time.sleep(_SECONDS)
        after = up.cpu_seconds()
        resident = processes.resident_bytes(up.pid)
    most = {"worker": 0.5}
    figures = [
        Figure(
            f"idle with its own worker, {kind}",
            (after[kind] - before[kind]) / _SECONDS * 100,
            "% of a core",
            most=most.get(kind),
        )
        for kind in ("server", "mongod", "worker")
    ]
    aimed = {"server": 120.0, "worker": 60.0}
    for kind in ("server", "mongod", "worker"):
        # Of the servers the largest: the other is the supervisor. A worker is all its processes.
        size = sum(resident[kind]) if kind == "worker" else max(resident[kind])
        name = f"idle, resident memory of a {kind}"
        figures.append(Figure(name, size / _MEBIBYTE, "MiB", most=aimed.get(kind)))
    return figures


def _with_simulated(up: Stack, workers: int) -> list[Figure]:
    settle = _SETTLE_SECONDS + workers / _FIRST_REQUESTS_A_SECOND
    order = {"mode": "idle", "seconds": _SECONDS, "settle_seconds": settle}
    with swarm(up, workers=workers, **order) as process:
        before = up.cpu_seconds()
        found = go(process)
        after = up.cpu_seconds()
        server = max(processes.resident_bytes(up.pid)["server"]) / _MEBIBYTE
    name = f"{workers} idle simulated workers"
    used = {kind: (after[kind] - before[kind]) / found["seconds"] * 100 for kind in after}
    aimed = {"most": 30} if workers == 1000 else {}
    return [
        Figure(f"{name}, server", used["server"], "% of a core", **aimed),
        Figure(f"{name}, mongod", used["mongod"], "% of a core"),
        Figure(f"{name}, requests", found["requests"] / found["seconds"], "/s"),
        Figure(f"{name}, resident memory of the server", server, "MiB"),
        Figure(f"{name}, errors", found["error_count"], "", most=0),
    ]
