"""W4 and W6: what a claim costs beside many tasks, and what reading and submitting cost.

A million tasks come straight into the database, exactly as the server stores them: copies
of documents that it has stored itself, with an id, an age and a version of their own.
"""

import time
from collections.abc import Iterator
from itertools import islice
from typing import Any

from bson import ObjectId
from pymongo import MongoClient
from pymongo.collection import Collection

from tests.bench.figures import Figure, median
from tests.bench.programs import TRUE, milliseconds
from tests.bench.stack import Stack, stack
from tests.bench.swarm import end_of

CLAIM = 16
_TIMES = 40
DATABASE = "banyan"  # as settings.py has it
_PIECE = 5000
_SETTLE_SECONDS_MAX = 10.0
_SETTLED_A_SECOND = 50_000
Document = dict[str, Any]


def w4(most: int) -> list[Figure]:
    """A claim of 16 with a hundredth, a tenth and all of `most` tasks waiting, and ended ones."""
    few, some = most // 100, most // 10
    with stack("--no-worker") as up:
        claims = Claims(up)
        tasks = Tasks(up, claims.end_one())
        tasks.make_waiting(few)
        took = {f"{few} waiting": claims.took()}
        tasks.make_waiting(few)
        tasks.add("terminated", most)
        took[f"{few} waiting, {most} ended beside"] = beside = claims.took()
        figures = _reading(up, most)
        for waiting in (some, most):
            tasks.make_waiting(waiting)
            took[f"{waiting} waiting, {most} ended beside"] = claims.took()
    name = f"W4, claim of {CLAIM}"
    told = [Figure(f"{name}, {what}", one, "ms") for what, one in took.items()]
    alone, full = next(iter(took.values())), list(took.values())[-1]
    told.append(Figure(f"{name}, {most} waiting over {few}", full / beside, "x", most=1.25))
    told.append(Figure(f"{name}, {most} ended over none", beside / alone, "x", most=1.25))
    return told + figures


def _reading(up: Stack, count: int) -> list[Figure]:
    """W6 at so many tasks: a page of 100 with a projection, and statistics."""
    asked = {"max_results": "100", "projection": '{"state":1,"name":1,"priority":1}'}
    where = '{"state":"terminated"}'
    page = [milliseconds(lambda: up.provider.get("tasks", **asked)) for _ in range(_TIMES)]
    found = [
        milliseconds(lambda: up.provider.get("tasks", where=where, **asked)) for _ in range(_TIMES)
    ]
    counted = [milliseconds(lambda: up.provider.get("tasks/statistics")) for _ in range(5)]
    return [
        Figure(f"W6, page of 100 at {count}", median(page), "ms", most=40),
        Figure(f"W6, page of 100 in a state at {count}", median(found), "ms", most=40),
        Figure(f"W6, statistics at {count}", median(counted), "ms", most=300),
    ]


def w6(count: int) -> list[Figure]:
    """Submission of `count` tasks in lists of 1,000, by one client; reading is W4's company."""
    with stack("--no-worker") as up:
        up.provider.post("tasks", [TRUE] * 100)
        before, begin = up.cpu_seconds(), time.perf_counter()
        for _ in range(0, count, 1000):
            up.provider.post("tasks", [TRUE] * 1000)
        seconds = time.perf_counter() - begin
        after = up.cpu_seconds()
    used = {kind: (after[kind] - before[kind]) * 1000 / count for kind in ("server", "mongod")}
    return [
        Figure("W6, bulk submission", count / seconds, "tasks/s", least=15_000),
        *(Figure(f"W6, bulk submission, {kind}", u, "ms CPU a task") for kind, u in used.items()),
    ]


class Claims:
    """A worker that claims 16 tasks and ends them, one request after the other."""

    def __init__(self, up: Stack) -> None:
        resources = {"cores": CLAIM, "memory": f"{CLAIM} GiB"}
        self._up = up
        self._fits = resources
        body = {"host": "bench", "resources": resources}
        self._worker = up.worker.post("workers", body)["_id"]

    def end_one(self) -> str:
        """Submits a task and ends it; its id."""
        task: str = self._up.provider.post("tasks", TRUE)["_id"]
        self._round()
        return task

    def took(self) -> float:
        """Milliseconds of a claim: the median."""
        return median(self._round(CLAIM) for _ in range(_TIMES))

    def _round(self, least: int = 1) -> float:
        body = {"worker": self._worker, "max": CLAIM, "start": True, "fits": self._fits}
        begin = time.perf_counter()
        items = self._up.worker.post("tasks/claim", body)["_items"]
        took = (time.perf_counter() - begin) * 1000
        if len(items) < least:
            raise RuntimeError(f"a claim of {CLAIM} got {len(items)}")
        self._up.worker.patch("tasks", [end_of(item) for item in items])
        return took


class Tasks:
    """The tasks of a stack, and many more of their kind."""

    def __init__(self, up: Stack, ended_one: str) -> None:
        """ended_one: the id of a task that the server has seen to its end, to be copied."""
        self._up = up
        self._ended_one = ObjectId(ended_one)
        client: MongoClient[Document] = MongoClient(up.mongo_uri(), tz_aware=True)
        self._tasks: Collection[Document] = client[DATABASE]["tasks"]

    def make_waiting(self, count: int) -> None:
        """Add what lacks of so many waiting tasks."""
        self.add("available", count - self._tasks.count_documents({"state": "available"}))

    def add(self, state: str, count: int) -> None:
        """Add so many: ended ones, or waiting ones."""
        if state == "terminated":
            example = self._tasks.find_one({"_id": self._ended_one})
        else:
            (told,) = self._up.provider.post("tasks", [TRUE])["_items"]
            example = self._tasks.find_one({"_id": ObjectId(told["_id"])})
        assert example is not None
        copies = _copies(example, count)
        while piece := list(islice(copies, _PIECE)):
            self._tasks.insert_many(piece, ordered=False)
        # What the database still has to do for these must not be charged to the next claim.
        time.sleep(min(_SETTLE_SECONDS_MAX, count / _SETTLED_A_SECOND))


def _copies(example: Document, count: int) -> Iterator[Document]:
    for number in range(count):
        own = {"_id": ObjectId(), "seq": example["seq"] + 1 + number, "_etag": str(ObjectId())}
        if "attempt_id" in example:
            own["attempt_id"] = ObjectId()
        yield {**example, **own}
