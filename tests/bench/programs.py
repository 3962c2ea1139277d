"""W1 and W2: real programs on a real worker."""

import time
from collections.abc import Callable
from statistics import median

from tests.bench import limit
from tests.bench.figures import Figure
from tests.bench.stack import Stack, stack
from tests.bench.waiting import until_ended

TRUE = {"command": ["/bin/true"], "state": "available"}
LIST = 1000  # tasks in one request


def submit(up: Stack, count: int) -> None:
    """So many /bin/true, in lists."""
    for start in range(0, count, LIST):
        up.provider.post("tasks", [TRUE] * min(LIST, count - start))


class Cpu:
    """What the kinds of processes use from now on."""

    def __init__(self, up: Stack) -> None:
        self._up = up
        self._before = up.cpu_seconds()

    def milliseconds(self, count: int) -> dict[str, float]:
        """Of each kind, for one of so many tasks."""
        after = self._up.cpu_seconds()
        return {kind: (after[kind] - self._before[kind]) * 1000 / count for kind in after}


def w1(count: int, rounds: int = 3) -> list[Figure]:
    """`count` x /bin/true: from the first submission to the last end recorded durably."""
    rates, shares, used, bare = [], [], [], []
    with stack() as up:
        ended = _warm_up(up)
        for _ in range(rounds):
            machine = limit.measure()
            cpu, begin = Cpu(up), time.perf_counter()
            submit(up, count)
            ended = until_ended(up, ended + count)
            rates.append(count / (time.perf_counter() - begin))
            used.append(cpu.milliseconds(count))
            shares.append(rates[-1] / machine.rate)
            bare.append(machine.cpu_milliseconds)
    each = {kind: median(one[kind] for one in used) for kind in used[0]}
    above = median(sum(one.values()) - floor for one, floor in zip(used, bare, strict=True))
    return [
        Figure("W1", median(rates), "tasks/s"),
        Figure(f"W1, share of {machine.how}", median(shares), "", least=0.5),
        Figure("W1, bare spawn", median(bare), "ms CPU a task"),
        *(Figure(f"W1, {kind}", used, "ms CPU a task") for kind, used in each.items()),
        Figure("W1, all on top of the bare spawn", above, "ms CPU a task", most=0.4),
    ]


def _warm_up(up: Stack) -> int:
    submit(up, 20)
    return until_ended(up, 20)


def w2(count: int) -> list[Figure]:
    """One /bin/true on an idle stack: from submission to the submitter's knowing its end."""
    with stack() as up:
        _warm_up(up)
        times = [milliseconds(lambda: one(up)) for _ in range(count)]
    return [Figure("W2, median", median(times), "ms", most=15)]


def one(up: Stack) -> None:
    """Submit one task and wait until it has ended."""
    task = up.provider.post("tasks", TRUE)
    etag = task["_etag"]
    while True:
        path = f"tasks/{task['_id']}"
        more = {"prefer": "wait=10", "If_None_Match": f'"{etag}"'}
        reply = up.provider.ask("GET", path, **more)
        if reply.status == 200:
            etag = reply.body["_etag"]
            if reply.body["state"] == "terminated":
                return


def milliseconds(work: Callable[[], object]) -> float:
    """How long it takes."""
    begin = time.perf_counter()
    work()
    return (time.perf_counter() - begin) * 1000
