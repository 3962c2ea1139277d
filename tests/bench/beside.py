"""`scripts/bench peers`: Banyan and other queues on the same work, alternating, in one run.

Each round starts every queue anew, warms it up, gives it W1, W2 and W3, and ends it before
the next one starts. Ratios are of figures of the same round; what is told is the median.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

from banyan import __version__
from tests.bench import environment, limit
from tests.bench.figures import Figure, readable
from tests.bench.graphs import layers, run
from tests.bench.processes import own_cpu_seconds
from tests.bench.programs import milliseconds, one, submit
from tests.bench.stack import Stack, stack
from tests.bench.waiting import until_ended

ROUNDS = 3
_TIMEOUT_SECONDS = 240
_IDLE_SECONDS = 0.05
BANYAN = "Banyan"
PYTHON_QUEUES = ("huey", "dramatiq", "celery", "rq", "dask")
SLOW = ("fireworks", "slurm")
Found = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Work:
    """How much one queue is given, so that it takes some seconds; no layers: too slow for it."""

    tasks: int
    singles: int = 17
    layers: tuple[int, int] = (10, 100)


# In the order in which they take turns. Banyan stands between those that it is held against.
WORK = {
    "hyperqueue": Work(5000),
    "banyan": Work(5000),
    "huey": Work(5000),
    "dramatiq": Work(4000),
    "celery": Work(2000),
    "rq": Work(1500),
    "dask": Work(2000),
    "fireworks": Work(150, 3, (0, 0)),
    "slurm": Work(150, 3, (0, 0)),
}
_QUICK = Work(50, 2, (2, 5))


def peers(
    rounds: int = ROUNDS, quick: bool = False, names: list[str] | None = None
) -> tuple[list[Figure], str]:
    """The ratios against their targets, and the table of all queues as Markdown."""
    environment.prepare()
    wanted = [name for name in WORK if not names or name in names or name == "banyan"]
    rows: dict[str, list[Found]] = {name: [] for name in wanted}
    for number in range(rounds):
        for name in wanted:
            rows[name].append(_found(name, _QUICK if quick else WORK[name]))
            print(f"round {number + 1}: {name} {_brief(rows[name][-1])}", file=sys.stderr)
    return _ratios(rows), _table(rows)


def _found(name: str, work: Work) -> Found:
    machine = limit.measure(2000)
    measure = _banyan if name == "banyan" else _peer(name)
    return {**measure(work), "limit": machine.rate}


def _peer(name: str) -> Callable[[Work], Found]:
    def measure(work: Work) -> Found:
        sizes = [work.tasks, work.singles, *work.layers]
        command = [environment.PYTHON, "-m", f"tests.bench.peers.{name}", *map(str, sizes)]
        variables = os.environ | {"PYTHONPATH": str(environment.ROOT)}
        process = subprocess.Popen(
            command, env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        try:
            said, complaints = process.communicate(timeout=_TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            process.terminate()  # it ends what it has started
            process.communicate()
            return {"name": name, "error": f"not done in {_TIMEOUT_SECONDS} s"}
        if process.returncode or not said:
            return {"name": name, "error": complaints.decode()[-2000:]}
        found: Found = json.loads(said.splitlines()[-1])
        return found

    return measure


def _banyan(work: Work) -> Found:
    """As a peer's own file does it: see peers/base.py."""
    found: Found = {
        "name": BANYAN,
        "version": __version__,
        "durability": "MongoDB, w:majority, journal flushed before the answer; "
        "a killed worker's tasks are given out again when its lease is over",
    }
    with stack() as up:
        submit(up, 20)
        before = until_ended(up, 20)
        cpu, begin = _cpu_seconds(up), time.perf_counter()
        submit(up, work.tasks)
        until_ended(up, before + work.tasks)
        found["w1"] = work.tasks / (time.perf_counter() - begin)
        found["cpu"] = (_cpu_seconds(up) - cpu) * 1000 / work.tasks
        found["w2"] = [_single(up) for _ in range(work.singles)]
        depth, width = work.layers
        found["w3"] = depth * (width + 1) / run(up, layers(depth, width))
    return found


def _single(up: Stack) -> float:
    time.sleep(_IDLE_SECONDS)
    return milliseconds(lambda: one(up))


def _cpu_seconds(up: Stack) -> float:
    return sum(up.cpu_seconds().values()) + own_cpu_seconds()


def _brief(found: Found) -> str:
    if "w1" not in found:
        return str(found.get("error", f"not installed: {found.get('missing')}"))
    return f"{found['w1']:.0f} tasks/s, the machine {found['limit']:.0f}"


def _ratios(rows: dict[str, list[Found]]) -> list[Figure]:
    def over(what: str, *others: str) -> float | None:
        """Banyan's figure over the best of the others' in the same round."""
        found = []
        for number, own in enumerate(rows["banyan"]):
            best = [rows[o][number][what] for o in others if what in _at(rows, o, number)]
            if best:
                found.append(own[what] / max(best))
        return median(found) if found else None

    asked = [
        ("W1 over HyperQueue", over("w1", "hyperqueue"), 1.5),
        ("W1 over the best Python queue", over("w1", *PYTHON_QUEUES), 1.2),
        *((f"W1 over {name}", over("w1", name), 20.0) for name in SLOW),
        ("W3 over HyperQueue", over("w3", "hyperqueue"), 4.0),
        ("W3 over Huey", over("w3", "huey"), 1.2),
    ]
    figures = [Figure(name, ratio, "x", least) for name, ratio, least in asked if ratio]
    share = median(one["w1"] / one["limit"] for one in rows["banyan"])
    cpu = over("cpu", "hyperqueue")
    latency = median(time for one in rows["banyan"] for time in one["w2"])
    return [
        *figures,
        *([Figure("CPU a task over HyperQueue", cpu, "x")] if cpu else []),
        Figure("W1 over the machine's own limit", share, "x", least=0.5),
        Figure("W2", latency, "ms", most=15),
    ]


def _at(rows: dict[str, list[Found]], name: str, number: int) -> Found:
    return rows[name][number] if name in rows else {}


def _table(rows: dict[str, list[Found]]) -> str:
    lines = [
        "| queue | W1 tasks/s | of the limit | CPU ms a task | W2 ms | W3 tasks/s | durability |",
        "|---|---:|---:|---:|---:|---:|---|",
    ]
    for found in sorted(rows.values(), key=lambda one: -_middle(one, "w1")):
        first = found[0]
        if not any("w1" in one for one in found):
            why = "not installed" if "missing" in first else "did not run"
            lines.append(f"| {first['name']} | {why} | | | | | |")
            continue
        share = median(one["w1"] / one["limit"] for one in found if "w1" in one)
        singles = [time for one in found for time in one.get("w2", [])]
        cells = [
            f"{first['name']} {str(first['version']).removeprefix('v')}",
            readable(_middle(found, "w1")),
            readable(share),
            readable(_middle(found, "cpu")),
            readable(median(singles)) if singles else "-",
            readable(_middle(found, "w3")) if "w3" in first else "-",
            first["durability"],
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _middle(found: list[Found], what: str) -> float:
    return median([one[what] for one in found if what in one] or [0.0])
