"""An application, and attempts that are in its database as claims and ends leave them."""

import json
import random
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from bson import ObjectId

from banyan.domain.tallies import floor
from banyan.server.app import create_app
from banyan.server.calls import Context
from banyan.server.store import accounts, tallies
from banyan.server.store.indexes import prepare_database
from banyan.server.store.mongo import Store

Item = dict[str, Any]
NOW = datetime.now(UTC).replace(microsecond=0)
BEGIN = floor(NOW - timedelta(hours=3), 60)
END = floor(NOW - timedelta(minutes=50), 60)
WINDOW = {"from": BEGIN.isoformat(), "to": END.isoformat()}
WORDS = ("success", "success", "success", "failure (3)", "failure (SIGKILL)", "timeout", "lost")
LATER = NOW + timedelta(days=1)  # so that attempts claimed just now are tallied as well


def seconds_in_use(
    attempts: Sequence[Item], begin: datetime, end: datetime, resource: str
) -> float:
    """What attempts had in use, times for how long, between two times; worked out plainly."""
    used = 0.0
    for one in attempts:
        if one["time_started"]:
            until = max(one["time_terminated"] or end, one["time_started"])
            overlap = min(until, end) - max(one["time_started"], begin)
            used += one["granted_resources"][resource] * max(0.0, overlap.total_seconds())
    return used


class World:
    """A server's application, accounts, and attempts that are also known here."""

    def __init__(self, uri: str) -> None:
        prepare_database(uri)
        app = create_app(uri)
        self.uri = uri
        self.context: Context = app.extensions["banyan"].context
        self.store: Store = self.context.store
        self.client = app.test_client()
        self.tokens = {name: self._token(name) for name in ("alice", "bob")}
        self.tokens |= {role: self._token(role, role) for role in ("operator", "worker")}
        self.tasks: list[Item] = []
        self.attempts: list[Item] = []

    def _token(self, name: str, role: str = "provider") -> str:
        return accounts.issue(self.store, accounts.insert(self.store, name, [role]))

    def ask(self, who: str, path: str = "/tasks/statistics", **arguments: Any) -> Any:
        answer = self.client.get(
            path,
            headers={"Authorization": f"Bearer {self.tokens[who]}"},
            query_string={
                name: json.dumps(value) if isinstance(value, dict) else value
                for name, value in arguments.items()
            },
        )
        assert answer.status_code == 200, answer.text
        return answer.json

    def refused(self, who: str, path: str, **arguments: Any) -> tuple[int, str]:
        headers = {"Authorization": f"Bearer {self.tokens[who]}"}
        answer = self.client.get(path, headers=headers, query_string=arguments)
        return answer.status_code, answer.json["_error"]["word"]

    def fill(self, chance: random.Random, count: int) -> None:
        made = [self._one(chance, number) for number in range(count)]
        self.tasks += [task for task, _ in made]
        self.attempts += [attempt for _, attempt in made if attempt]
        self.store["tasks"].insert_many([task for task, _ in made])
        self.store["attempts"].insert_many([attempt for _, attempt in made if attempt])

    def _one(self, chance: random.Random, number: int) -> tuple[Item, Item | None]:
        state = chance.choice(("terminated",) * 6 + ("available", "inactive", "running"))
        task: Item = {
            "_id": ObjectId(),
            "owner": chance.choice(("alice", "alice", "bob")),
            "queue": chance.choice(("default", "gpu")),
            "name": chance.choice(("x", None)),
            "tags": {"sweep": str(number % 3)} if number % 2 else {},
            "state": state,
            "outcome": None,
            "_updated": NOW,
        }
        if state not in ("terminated", "running"):
            return task, None
        available = NOW - timedelta(milliseconds=chance.randrange(1, 16_000_000))
        started = available + timedelta(milliseconds=int(chance.expovariate(1 / 300_000)))
        ended = started + timedelta(milliseconds=int(10 ** chance.uniform(-1, 6.7)))
        word = chance.choice(WORDS)
        attempt: Item = {
            "_id": id_of(available),
            "task": task["_id"],
            "owner": task["owner"],
            "queue": task["queue"],
            "granted_resources": {
                "cores": chance.choice((1, 2, 0.5)),
                "memory_bytes": chance.choice((2**27, 2**37)),
                "gpu_count": chance.choice((0, 0, 3)),
            },
            "time_available": available,
            "time_started": None if chance.random() < 0.05 else started,
            "time_terminated": ended if state == "terminated" else None,
            "exit_status": word if state == "terminated" else None,
            "cpu_seconds": chance.choice((0.25, 17.5)),
            "_updated": NOW,
        }
        if state == "terminated":
            task["outcome"] = word.split()[0]
        else:
            task["holder"] = {"attempt": attempt["_id"], "worker": ObjectId()}
        return task, attempt

    def tally(self, until: datetime = LATER) -> None:
        while tallies.advance(self.store, until):
            pass


def id_of(time: datetime) -> ObjectId:
    return ObjectId(int(time.timestamp()).to_bytes(4, "big") + ObjectId().binary[4:])


@pytest.fixture
def world(fresh_database: str) -> Iterator[World]:
    """A new one, on a database of its own; the conftest of a folder takes it in."""
    made = World(fresh_database)
    yield made
    made.store.close()
