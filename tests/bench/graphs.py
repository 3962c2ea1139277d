"""W3: graphs of real programs: layers with joins between, a chain, a fan-out with its fan-in.

Every join is a task of its own, as it is with the peers, apart from the groups that spread
10,000 edges: a list of edges takes 1,024.
"""

import time
from itertools import count
from typing import Any

from tests.bench.figures import Figure, median
from tests.bench.http import RefusedError
from tests.bench.programs import LIST, TRUE, Cpu, submit
from tests.bench.stack import Stack, stack
from tests.bench.waiting import ended, until_ended

Task = dict[str, Any]
_TRIES = 10
_numbers = count(int(time.time()) << 64)


def _task(after: list[str], **fields: Any) -> Task:
    return {**TRUE, "_id": f"{next(_numbers):024x}", "after": after, **fields}


def _group(after: list[str]) -> Task:
    task = _task(after)
    del task["command"]
    return task


def _ids(tasks: list[Task]) -> list[str]:
    return [task["_id"] for task in tasks]


def layers(depth: int, width: int) -> list[Task]:
    """Layers, each followed by one task that joins it and opens the next."""
    tasks: list[Task] = []
    gate: list[str] = []
    for _ in range(depth):
        layer = [_task(gate) for _ in range(width)]
        join = _task(_ids(layer))
        tasks += [*layer, join]
        gate = [join["_id"]]
    return tasks


def chain(length: int) -> list[Task]:
    """Each task waits for the one before."""
    tasks = [_task([])]
    while len(tasks) < length:
        tasks.append(_task([tasks[-1]["_id"]]))
    return tasks


def fan(width: int) -> list[Task]:
    """One task, then many, then one that waits for all of them."""
    tasks = [root := _task([])]
    gates = []
    for _ in range(0, width, LIST):
        opening = _group([root["_id"]])
        part = [_task([opening["_id"]]) for _ in range(min(LIST, width))]
        gates.append(closing := _group(_ids(part)))
        tasks += [opening, *part, closing]
    return [*tasks, _task(_ids(gates))]


def run(up: Stack, tasks: list[Task]) -> float:
    """Seconds from the first submission to the last end."""
    before, begin = ended(up), time.perf_counter()
    for start in range(0, len(tasks), LIST):
        _post(up, tasks[start : start + LIST])
    until_ended(up, before + len(tasks))
    return time.perf_counter() - begin


def _post(up: Stack, tasks: list[Task]) -> None:
    """Parents of an earlier list end meanwhile: told to try again, it does, as a user would."""
    for tries_left in reversed(range(_TRIES)):
        try:
            up.provider.post("tasks", tasks)
        except RefusedError as error:
            if error.word != "conflict" or not tries_left:
                raise
        else:
            return


def w3(width: int, rounds: int = 3) -> list[Figure]:
    """10 x `width` with joins, a chain of `width`, a fan of 10 x `width` against no edges."""
    figures = []
    with stack() as up:
        run(up, layers(2, 10))
        for wide in (width // 10, width):
            total = 10 * (wide + 1)
            cpu = Cpu(up)
            rate = median(total / run(up, layers(10, wide)) for _ in range(rounds))
            used = sum(cpu.milliseconds(total * rounds).values())
            name = f"W3, 10 x {wide} with joins"
            figures.append(Figure(name, rate, "tasks/s"))
            figures.append(Figure(f"{name}, all", used, "ms CPU a task"))
        took = median(run(up, chain(width)) for _ in range(rounds))
        figures.append(Figure(f"W3, chain of {width}", took, "s", most=15 * width / 1000))
        ratios = [run(up, fan(10 * width)) / _without_edges(up, 10 * width) for _ in range(rounds)]
        name = f"W3, fan-out and fan-in of {10 * width}, over the same without edges"
        figures.append(Figure(name, median(ratios), "x", most=1.3))
    return figures


def _without_edges(up: Stack, width: int) -> float:
    before, begin = ended(up), time.perf_counter()
    submit(up, width)
    until_ended(up, before + width)
    return time.perf_counter() - begin
