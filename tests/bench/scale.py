"""The simulation behind docs/scale.md: what workers cost by their number, and tasks by theirs.

Simulated workers on loopback, each with four cores, whose tasks take some seconds and run
nothing. Offered are as many tasks a second as they can run; the shares of a core that server
and mongod take tell what a worker costs, and what a task.
"""

import os
from collections.abc import Iterator
from typing import Any

from pymongo import MongoClient

from tests.bench.backlog import DATABASE
from tests.bench.figures import Figure
from tests.bench.many import NOTHING, go, swarm
from tests.bench.stack import Stack, stack

CORES = 4
_SECONDS = 15.0
_BEAT_SECONDS = 15.0  # as a worker does it
# Of the most workers the share, the seconds that a task takes, server processes.
_CASES = ((10, 1.0, 1), (3, 3.0, 1), (1, 10.0, 1), (1, 5.0, 1), (1, 5.0, 2))


def scale(most_workers: int) -> tuple[list[Figure], str]:
    """From a tenth of the workers to all of them: what was found, and a row for each case."""
    cases = [
        _paced(max(1, most_workers // share), seconds * most_workers / 1000, server_processes)
        for share, seconds, server_processes in _CASES
    ]
    table = "\n".join([_HEAD, *map(_row, cases)])
    wrong = sum(case["error_count"] for case in cases)
    figures = [
        Figure("errors", wrong, "", most=0),
        Figure("the simulated workers themselves", cases[-1]["swarm"], "% of all cores"),
        *_derived(cases),
        Figure(
            "an ended task with its attempt and their indexes, before compression",
            cases[-1]["bytes_a_task"],
            "bytes",
        ),
    ]
    return figures, table


def _derived(cases: list[dict[str, Any]]) -> Iterator[Figure]:
    """What one more worker costs, and one more task, as differences between cases."""
    few, _, many, busy, _ = cases
    for kind in ("server", "mongod"):
        worker = (many[kind] - few[kind]) * 10 / (many["workers"] - few["workers"])
        task = (busy[kind] - many[kind]) * 10 / max(busy["rate"] - many["rate"], 1)
        yield Figure(f"one more worker, {kind}", worker, "ms CPU a second")
        yield Figure(f"one more task in claims of {CORES}, {kind}", task, "ms CPU")


_HEAD = """\
| workers | server processes | offered, tasks/s | run, tasks/s | requests/s | servers, % of a core \
| mongod, % of a core | claim p50 / p99, ms | end p50 / p99, ms |
|---:|---:|---:|---:|---:|---:|---:|---:|---:|"""


def _row(case: dict[str, Any]) -> str:
    cells = [
        *(f"{case[name]:.0f}" for name in ("workers", "server_processes", "offered", "rate")),
        *(f"{case[name]:.0f}" for name in ("requests_rate", "server", "mongod")),
        *(f"{case['took'][what]['p50']:.0f} / {case['took'][what]['p99']:.0f}" for what in _VERBS),
    ]
    return f"| {' | '.join(cells)} |"


_VERBS = ("claim", "end")


def _paced(workers: int, task_seconds: float, server_processes: int) -> dict[str, Any]:
    offered = workers * CORES / task_seconds
    count = int(offered * _SECONDS)
    with stack("--no-worker", "--processes", str(server_processes)) as up:
        # Nobody runs out of tasks before the last one's time has come.
        for _ in range(0, count + workers * CORES, 1000):
            up.provider.post("tasks", [NOTHING] * 1000)
        order = {"mode": "drain", "batch": CORES, "tasks": count, "beat_seconds": _BEAT_SECONDS}
        with swarm(up, workers=workers, task_seconds=task_seconds, **order) as process:
            before = up.cpu_seconds()
            found = go(process)
            after = up.cpu_seconds()
        bytes_a_task = _bytes_a_task(up, found["ended"])
    seconds = found["seconds"]
    return {
        **found,
        "workers": workers,
        "server_processes": server_processes,
        "offered": offered,
        "bytes_a_task": bytes_a_task,
        "rate": found["ended"] / seconds,
        "requests_rate": found["requests"] / seconds,
        "swarm": found["cpu_seconds"] / seconds / (os.cpu_count() or 1) * 100,
        **{kind: (after[kind] - before[kind]) / seconds * 100 for kind in ("server", "mongod")},
    }


def _bytes_a_task(up: Stack, ended: int) -> float:
    """Data before compression, and indexes."""
    with MongoClient[dict[str, Any]](up.mongo_uri()) as client:
        told = client[DATABASE].command("dbStats")
        waiting = client[DATABASE]["tasks"].estimated_document_count() - ended
    used: float = told["dataSize"] + told["indexSize"]
    return used / max(1, ended + waiting / 2)  # what waits has no attempt yet
