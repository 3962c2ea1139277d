"""A worker as tests play it, one request at a time: nothing is done that a test does not ask for.

Each play has a queue of its own, so that the tests of one file do not claim each other's tasks.
"""

import base64
import threading
import uuid
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import pytest

from tests.harness import Api, Server

T = TypeVar("T")
Item = dict[str, Any]

RESOURCES = {"cores": 4, "memory": "4 GiB", "custom": {}}


def now() -> str:
    """Any time will do as long as it is one."""
    return "2026-11-22T06:51:14.123Z"


def chunk(offset: int, data: bytes, stream: str = "stdout") -> Item:
    """A piece of output as a worker reports it."""
    return {"offset": offset, "stream": stream, "data": base64.b64encode(data).decode()}


def at_once(calls: Sequence[Callable[[], T]]) -> list[T]:
    """What the calls return, all of them made at the same moment."""
    barrier = threading.Barrier(len(calls))
    results: list[Any] = [None] * len(calls)

    def one(index: int) -> None:
        barrier.wait(30)
        results[index] = calls[index]()

    threads = [threading.Thread(target=one, args=(index,)) for index in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert None not in results, "a call failed or did not come back"
    return results


class Player:
    """One registered worker and what it may say."""

    def __init__(self, api: Api, queue: str, **more: Any) -> None:
        self.api = api
        body = {"host": "h", "resources": RESOURCES, "queues": [queue], **more}
        answer = api.post("workers", body)
        assert answer.status_code == 201, answer.text
        self.registered: Item = answer.json()
        self.id: str = self.registered["_id"]

    def claim_one(self, task_id: str) -> Any:
        """The answer to a claim by name."""
        data = {"update_execution_data": {"worker": self.id}}
        return self.api.patch(f"tasks/{task_id}", {"state": "running", **data})

    def claim(self, most: int = 1, wait: float | None = None, **more: Any) -> list[Item]:
        """The tasks that a claim of many got."""
        body = {"worker": self.id, "max": most, **more}
        answer = self.api.post("tasks/claim", body, wait=wait)
        assert answer.status_code == 200, answer.text
        items: list[Item] = answer.json()["_items"]
        return items

    def report(self, item: Item, state: str | None = None, **data: Any) -> Any:
        """The answer to a report about a claimed task."""
        moved = {"state": state} if state else {}
        body = {**moved, "update_execution_data": {"token": item["token"], **data}}
        return self.api.patch(f"tasks/{item['_id']}", body)

    def end(self, item: Item, exit_status: str = "success", state: str = "terminated") -> Any:
        """The answer to the end of an attempt."""
        return self.report(item, state, exit_status=exit_status, time_terminated=now())

    def beat(self, wait: float | None = None, **body: Any) -> Any:
        """The answer to a beat."""
        return self.api.post(f"workers/{self.id}/beat", body, wait=wait)

    def steal(self, most: int = 1, **more: Any) -> list[Item]:
        """What it took from others."""
        answer = self.api.post("tasks/steal", {"worker": self.id, "max": most, **more})
        assert answer.status_code == 200, answer.text
        items: list[Item] = answer.json()["_items"]
        return items


class Play:
    """A queue of its own on a server, with players and tasks."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.queue = f"q{uuid.uuid4().hex[:12]}"

    def player(self, api: Api | None = None, **more: Any) -> Player:
        """A worker that serves this queue only."""
        return Player(api or self.server.worker, self.queue, **more)

    def submit(self, count: int = 1, **fields: Any) -> list[str]:
        """The ids of new tasks, available, in the order of their age."""
        task = {"command": "true", "queue": self.queue, "state": "available", **fields}
        answer = self.server.provider.post("tasks", [task] * count)
        assert answer.status_code == 201, answer.text
        return [item["_id"] for item in answer.json()["_items"]]

    def task(self, task_id: str) -> Item:
        """A task as its owner sees it."""
        answer = self.server.provider.get(f"tasks/{task_id}")
        assert answer.status_code == 200, answer.text
        found: Item = answer.json()
        return found

    def attempts(self, task_id: str) -> list[Item]:
        """The records of all attempts of a task, the first first."""
        answer = self.server.provider.get(f"tasks/{task_id}/history")
        assert answer.status_code == 200, answer.text
        items: list[Item] = answer.json()["_items"]
        return items


@pytest.fixture
def play(server: Server) -> Play:
    """With the server that the tests of one file share."""
    return Play(server)


def held(play: Play, **fields: Any) -> tuple[Player, str, Item]:
    """A worker and the one task that it holds."""
    (task,) = play.submit(**fields)
    player = play.player()
    (item,) = player.claim(1)
    return player, task, item


def word(answer: Any) -> tuple[int, str]:
    """Status and word of a refusal."""
    return answer.status_code, answer.json()["_error"]["word"]
