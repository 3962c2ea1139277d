"""What people do while all else goes wrong: they cancel, retry, change edges, remove workers.

Each goes on for some seconds, on tasks that are picked by chance among the last ones submitted.
"""

import contextlib
import threading
import time
from collections.abc import Callable
from random import Random
from typing import Any

import requests

from tests.chaos.faults.fault import Fault, Heal, Strike
from tests.chaos.stage import KNOBS, Stage
from tests.harness import eventually

_LAST = 60
_BETWEEN_SECONDS = 0.1

Deed = Callable[[Stage, Random, list[str]], Any]


def storm(deed: Deed) -> Strike:
    """Do it again and again, in a thread, until it heals."""

    def strike(stage: Stage, chance: Random) -> Heal:
        over = threading.Event()

        def go_on() -> None:
            while not over.wait(_BETWEEN_SECONDS):
                with contextlib.suppress(requests.RequestException, KeyError, IndexError):
                    deed(stage, chance, _recent(stage))

        threading.Thread(target=go_on, daemon=True).start()
        return over.set

    return strike


def _recent(stage: Stage) -> list[str]:
    more = {"sort": "-_created", "max_results": _LAST, "projection": '{"state":1}'}
    items = stage.provider.get("tasks", **more).json()["_items"]
    return [item["_id"] for item in items]


def cancel(stage: Stage, chance: Random, tasks: list[str]) -> None:
    """Whatever it is doing."""
    stage.provider.post(f"tasks/{chance.choice(tasks)}/cancel")


def cancel_many(stage: Stage, chance: Random, tasks: list[str]) -> None:
    """Ten at one time."""
    stage.provider.post("tasks/cancel", {"targets": chance.sample(tasks, 10)})


def retry(stage: Stage, chance: Random, tasks: list[str]) -> None:
    """One that has ended, or has not; at times with all that was cancelled because of it."""
    body = {"downstream": chance.random() < 0.5}
    stage.provider.post(f"tasks/{chance.choice(tasks)}/retry", body)


def link(stage: Stage, chance: Random, tasks: list[str]) -> None:
    """An edge between any two, of any kind; most are refused, as one of them has begun."""
    one, other = chance.sample(tasks, 2)
    kind = chance.choice(["continuations", "failure_continuations", "final_continuations"])
    verb = chance.choice(["add", "remove"])
    stage.provider.post(f"tasks/{one}/{verb}_{kind}", [other])


def hold(stage: Stage, chance: Random, tasks: list[str]) -> None:
    """Take it out of the queue, and put it back."""
    task = chance.choice(tasks)
    stage.provider.patch(f"tasks/{task}", {"state": "inactive"})
    stage.provider.patch(f"tasks/{task}", {"state": "available"})


def give_priority(stage: Stage, chance: Random, tasks: list[str]) -> None:
    """A change of a field that has nothing to do with its state."""
    stage.provider.patch(f"tasks/{chance.choice(tasks)}", {"priority": chance.randint(-5, 5)})


def remove_worker(stage: Stage, chance: Random) -> None:
    """An operator removes a worker that is at work; it is told, and ends; another is started."""
    active = '{"mode":"active"}'
    found = _heard(lambda: stage.provider.get("workers", where=active)).get("_items", [])
    if found:
        worker = chance.choice(found)
        stage.admitted.append((worker["host"], time.time(), time.time() + KNOBS["LEASE_SECONDS"]))
        _heard(lambda: stage.operator.delete(f"workers/{worker['_id']}"))


def _heard(ask: Callable[[], requests.Response]) -> Any:
    """The answer, asked for again where another fault stands in the way: a server is soon back."""

    def probe() -> list[requests.Response]:
        with contextlib.suppress(requests.ConnectionError):
            return [answer for answer in [ask()] if answer.status_code < 500]
        return []

    (answer,) = eventually(probe, 10.0, every_seconds=0.5)
    return answer.json() if answer.content else {}


FAULTS = [
    Fault("cancel-storm", "F23", "tasks are cancelled, whatever they do", storm(cancel), (3, 8)),
    Fault("cancel-many", "F23", "tasks are cancelled ten at a time", storm(cancel_many), (1, 2)),
    Fault("retry-storm", "F23", "tasks are retried, ended or not", storm(retry), (3, 8)),
    Fault("link-storm", "F24", "edges are added and removed", storm(link), (3, 8)),
    Fault(
        "hold-storm", "F24", "tasks are taken out of the queue and put back", storm(hold), (3, 8)
    ),
    Fault("priority-storm", "F24", "priorities change", storm(give_priority), (3, 8)),
    Fault("remove-worker", "F25", "a worker is removed while it works", remove_worker),
]
