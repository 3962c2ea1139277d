"""Simulated workers over real HTTP: `python -m tests.bench.swarm` with its order on stdin.

They register, claim, end and beat as a worker does, and run nothing. It prints one line
`ready` when all have registered, waits for a line on stdin, and prints what it found as
JSON. A process of its own, so that what it costs can be told from what it measures.
"""

import asyncio
import json
import os
import random
import sys
import time
from collections.abc import Awaitable
from typing import Any
from urllib.parse import urlsplit

import orjson
import uvloop

from tests.bench.figures import percentile
from tests.bench.wire import Wire

# As a worker holds them: parts of the lease, and at the most so many seconds.
BEAT_PART, BEAT_SECONDS_MAX = 1 / 4, 15.0
CLAIM_PART, CLAIM_SECONDS_MAX = 5 / 6, 50.0


class Swarm:
    """What all simulated workers share: the order, and what they find.

    order: {"url", "token", "workers", "batch", "mode": drain|idle, "seconds", "tasks",
    "task_seconds", "beat_seconds"}; drain ends after so many tasks, idle after so many seconds.
    """

    def __init__(self, order: dict[str, Any]) -> None:
        self.order = order
        parts = urlsplit(order["url"])
        self.address = parts.hostname or "", parts.port or 80
        self.took: dict[str, list[float]] = {}
        self.errors: list[str] = []
        self.ended = 0
        self.over = asyncio.Event()

    def wire(self) -> Wire:
        """A connection of its own."""
        return Wire(*self.address, self.order["token"])

    async def timed(self, name: str, asked: Awaitable[tuple[int, Any]]) -> Any:
        """The answer's body; how long it took is noted, and whether it was an error."""
        begin = time.perf_counter()
        status, body = await asked
        self.took.setdefault(name, []).append(time.perf_counter() - begin)
        if status >= 400 or status == 207:
            self.errors.append(f"{name}: {status} {str(body)[:300]}")
        return body

    def end(self, count: int) -> None:
        """So many tasks have ended."""
        self.ended += count
        if self.ended >= self.order["tasks"]:
            self.over.set()


class Worker:
    """One simulated worker: two connections, one for its beats and one for the rest."""

    def __init__(self, swarm: Swarm) -> None:
        self._swarm = swarm
        self._work, self._beats = swarm.wire(), swarm.wire()
        self._id = ""
        self._lease_seconds = 60.0
        self._cores = swarm.order["batch"]

    async def register(self) -> None:
        """POST /workers."""
        resources = {"cores": self._cores, "memory": f"{self._cores} GiB"}
        body = {"host": "simulated", "resources": resources}
        answer = await self._swarm.timed("register", self._work.ask("POST", "/workers", body))
        self._id, self._lease_seconds = answer["_id"], answer["lease_seconds"]

    def _claim(self) -> dict[str, Any]:
        fits = {"cores": self._cores, "memory": self._cores << 30, "gpus": [], "custom": {}}
        named = {"worker": self._id, "claim_id": os.urandom(16).hex()}
        return {**named, "max": self._cores, "fits": fits, "start": True, "ahead": 0}

    async def drain(self) -> None:
        """Claims, lets the time of a task pass, and ends, until all is done."""
        task_seconds = self._swarm.order["task_seconds"]
        # Those that start at one moment would ask at one moment ever after.
        await asyncio.sleep(random.uniform(0, task_seconds))
        while not self._swarm.over.is_set():
            asked = self._work.ask("POST", "/tasks/claim", self._claim())
            items = (await self._swarm.timed("claim", asked))["_items"]
            if items:
                await asyncio.sleep(random.uniform(0.5, 1.5) * task_seconds)
                reports = [end_of(item) for item in items]
                await self._swarm.timed("end", self._work.ask("PATCH", "/tasks", reports))
                self._swarm.end(len(items))
            else:
                await asyncio.sleep(0.05)  # the last tasks are in the hands of others

    async def beat(self) -> None:
        """Beats that are not held, so that their time is the server's."""
        every = self._swarm.order["beat_seconds"]
        await asyncio.sleep(random.uniform(0, every))
        while not self._swarm.over.is_set():
            body = {"used": {"cores": 0.5, "memory_bytes": 1 << 30}}
            await self._swarm.timed("beat", self._beats.ask("POST", self._path("beat"), body))
            await asyncio.sleep(every)

    def _path(self, verb: str) -> str:
        return f"/workers/{self._id}/{verb}"

    async def idle_claims(self) -> None:
        """A held claim, again and again; thousands of workers are at different places in it."""
        hold = min(CLAIM_SECONDS_MAX, self._lease_seconds * CLAIM_PART)
        seconds = random.uniform(0, hold)
        while True:
            asked = self._work.ask("POST", "/tasks/claim", self._claim() | {"steal": True}, seconds)
            await self._swarm.timed("claim", asked)
            seconds = hold

    async def idle_beats(self) -> None:
        """Held beats."""
        hold = min(BEAT_SECONDS_MAX, self._lease_seconds * BEAT_PART)
        seconds = random.uniform(0, hold)
        while True:
            body = {"used": {"cores": 0.0, "memory_bytes": 60 << 20}}
            asked = self._beats.ask("POST", self._path("beat"), body, seconds)
            await self._swarm.timed("beat", asked)
            seconds = hold


def end_of(item: dict[str, Any]) -> dict[str, Any]:
    """The report of a claimed task's end."""
    ended = time.time()
    data = {
        "token": item["token"],
        "exit_status": "success",
        "time_terminated": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(ended))
        + f".{int(ended % 1 * 1000):03}Z",
        "cpu_seconds": 0.001,
        "peak_memory_bytes": 1 << 20,
    }
    return {"_id": item["_id"], "state": "terminated", "update_execution_data": data}


async def work(order: dict[str, Any]) -> dict[str, Any]:
    """Do what the order says; what was found."""
    swarm = Swarm(order)
    workers = [Worker(swarm) for _ in range(order["workers"])]
    for start in range(0, len(workers), 50):
        await asyncio.gather(*(worker.register() for worker in workers[start : start + 50]))
    loop = asyncio.get_running_loop()
    going: list[asyncio.Task[None]] = []
    if order["mode"] == "idle":  # they hold their requests before anything is measured
        going = [
            loop.create_task(one) for w in workers for one in (w.idle_claims(), w.idle_beats())
        ]
        await asyncio.sleep(order["settle_seconds"])
    _say("ready")
    await loop.run_in_executor(None, sys.stdin.readline)
    swarm.took.clear()
    begin, cpu = time.perf_counter(), time.process_time()
    if order["mode"] == "idle":
        await asyncio.sleep(order["seconds"])
    else:
        going = [loop.create_task(worker.beat()) for worker in workers]
        await asyncio.gather(*(worker.drain() for worker in workers))
    seconds = time.perf_counter() - begin
    for one in going:
        one.cancel()
    return {
        "seconds": seconds,
        "cpu_seconds": time.process_time() - cpu,
        "ended": swarm.ended,
        "took": {name: _summary(seconds) for name, seconds in swarm.took.items()},
        "requests": sum(map(len, swarm.took.values())),
        "errors": swarm.errors[:10],
        "error_count": len(swarm.errors),
    }


def _summary(seconds: list[float]) -> dict[str, float]:
    """Milliseconds that half of them, and all but one in a hundred, did not exceed."""
    return {f"p{percent}": percentile(seconds, percent) * 1000 for percent in (50, 99)}


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> None:
    """Reads the order, works, prints."""
    order = json.loads(sys.stdin.readline())
    found = uvloop.run(work(order))
    _say(orjson.dumps(found).decode())
    os._exit(0)  # a thread may still wait for standard input


if __name__ == "__main__":
    main()
