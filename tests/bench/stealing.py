"""Stealing: eight workers, one of which has got all of the tasks, against the ideal time.

The tasks sleep, each on a core of its own as far as its worker is concerned, so that not the
machine's own cores are what is shared out. The ideal: all that was left to do when the last
worker was there, spread evenly over the eight.
"""

import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from subprocess import DEVNULL, Popen
from typing import Any

from tests.bench.figures import Figure
from tests.bench.stack import Stack, stack
from tests.bench.waiting import until_ended

WORKERS = 8
TASK_SECONDS = 0.25  # 32 of them a second: what two cores can do beside eight agents
_ONE_CORE = {"cores": 1, "memory": "1 MiB"}


def stealing(count: int) -> list[Figure]:
    """`count` tasks with the first of eight workers, which starts none; and with one that does."""
    return [*_hoarded(count), *_joined(count)]


def _hoarded(count: int) -> Iterator[Figure]:
    """One has claimed all before the others came, and starts nothing: all must be stolen."""
    with stack("--no-worker") as up, tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        _submit(up, count, place)
        _hoard(up, count)
        with ExitStack() as crew:
            for number in range(WORKERS):
                crew.enter_context(_worker(up, place / str(number)))
            yield from _result("all with a worker that starts none", up, count, place)


def _joined(count: int) -> Iterator[Figure]:
    """One is alone with all of them; seven join it."""
    with stack("--no-worker") as up, tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        with ExitStack() as crew:
            crew.enter_context(_worker(up, place / "0"))
            _submit(up, count, place)
            _until(lambda: len(_begun(place)) > 20)
            for number in range(1, WORKERS):
                crew.enter_context(_worker(up, place / str(number)))
            yield from _result("seven join the one", up, count, place)


def _submit(up: Stack, count: int, place: Path) -> None:
    command = f'echo "$BANYAN_TASK_ID $BANYAN_WORKER_ID" >>{place}/begun; exec sleep {TASK_SECONDS}'
    task = {"command": command, "state": "available", "requested_resources": _ONE_CORE}
    for start in range(0, count, 1000):
        up.provider.post("tasks", [task] * min(1000, count - start))


def _hoard(up: Stack, count: int) -> None:
    resources = {"cores": count, "memory": "64 GiB"}
    hoarder = up.worker.post("workers", {"host": "hoarder", "resources": resources})["_id"]
    left = count
    while left:
        body = {"worker": hoarder, "max": min(left, 1000), "fits": resources}
        left -= len(up.worker.post("tasks/claim", body)["_items"])


@contextmanager
def _worker(up: Stack, state: Path) -> Iterator[None]:
    state.mkdir()
    (state / "token").write_text(up.tokens["worker"])
    options = ["--token-file", f"{state}/token", "--state-directory", str(state), "--cores", "1"]
    command = [sys.executable, "-m", "banyan", "worker", "--url", up.url, *options]
    process = Popen(command, stdout=DEVNULL, stderr=DEVNULL)
    try:
        yield
    finally:
        process.terminate()
        process.wait(60)


def _result(what: str, up: Stack, count: int, place: Path) -> Iterator[Figure]:
    _until(lambda: len(list(place.glob("*/worker.json"))) == WORKERS)
    begun, start = len(_begun(place)), time.monotonic()
    until_ended(up, count)
    seconds = time.monotonic() - start
    ideal = (count - begun) * TASK_SECONDS / WORKERS
    starts = [line.split() for line in _begun(place)]
    shares = Counter(worker for _, worker in starts)
    least = min(shares.values()) if len(shares) == WORKERS else 0
    left = f"{what}, {count - begun} left when all are there"
    yield Figure(left, seconds / ideal, "of the ideal time", most=1.3)
    yield Figure(f"{what}, the least that one has run", least, "tasks")
    yield Figure(f"{what}, starts too many", len(starts) - count, "", most=0)


def _begun(place: Path) -> list[str]:
    path = place / "begun"
    return path.read_text().splitlines() if path.exists() else []


def _until(probe: Any) -> None:
    while not probe():
        time.sleep(0.02)
