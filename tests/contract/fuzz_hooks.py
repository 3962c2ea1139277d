"""What schemathesis is told about Banyan: real identifiers and tokens in place of made-up ones.

Loaded by schemathesis itself (SCHEMATHESIS_HOOKS); started by `fuzzing.py`. Made-up
identifiers would only ever be answered with 404, and nothing behind that would be tried.
"""

import json
import os
import random
import re
import uuid
from pathlib import Path
from typing import Any

import schemathesis

from tests.harness import Api

_FRESH_EVERY = 25  # requests: what was there has been cancelled, removed or ended by then
_OBJECT_ID = re.compile(r"[0-9a-fA-F]{24}")
_OWN_TOKENS = ("token", "tokens")


class Pool:
    """Tasks in every state, workers, attempts, tokens and accounts that are there."""

    def __init__(self) -> None:
        url = os.environ["BANYAN_FUZZ_URL"]
        tokens = json.loads(Path(os.environ["BANYAN_FUZZ_CREDENTIALS"]).read_text())
        self.chance = random.Random(int(os.environ["BANYAN_FUZZ_SEED"]))
        self.provider, self.worker, self.admin = (
            Api(url, tokens[role]) for role in ("provider", "worker", "admin")
        )
        self.calls = 0
        self.ids: dict[str, list[str]] = {}
        self.tokens: list[str] = []

    def tick(self) -> None:
        """Make new ones now and then."""
        if self.calls % _FRESH_EVERY == 0:
            self._refresh()
        self.calls += 1

    def _refresh(self) -> None:
        queue = f"q{self.calls}"
        body = {"host": "h", "resources": {"cores": 8, "memory": "8 GiB"}, "queues": [queue]}
        workers = [self.worker.post("workers", body).json()["_id"] for _ in range(2)]
        new = [
            {"command": "true", "name": "new"},
            {"name": "group"},
            *[{"command": "true", "queue": queue, "state": "available"} for _ in range(4)],
        ]
        tasks = [one["_id"] for one in self.provider.post("tasks", new).json()["_items"]]
        claim = {"worker": workers[0], "max": 3}
        claimed = self.worker.post("tasks/claim", claim).json()["_items"]
        end = {"token": claimed[0]["token"], "exit_status": "success"} | {
            "time_terminated": "2026-11-22T06:51:14.123Z"
        }
        ended = {"state": "terminated", "update_execution_data": end}
        self.worker.patch(f"tasks/{claimed[0]['_id']}", ended)
        name = f"account-{uuid.uuid4().hex}"
        account = self.admin.post("accounts", {"name": name, "roles": ["provider"]}).json()
        self.tokens = [one["token"] for one in claimed]
        self.ids = {
            "tasks": tasks,
            "workers": workers,
            "attempts": [one["attempt_id"] for one in claimed],
            "accounts": [account["_id"]],
        }

    def one(self, resource: str) -> str:
        """An identifier of the resource."""
        return self.chance.choice(self.ids[resource])


_pools: list[Pool] = []


def _pool() -> Pool:
    if not _pools:
        _pools.append(Pool())
    return _pools[0]


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: Any) -> None:
    """Put what is there into the places of what was made up."""
    pool = _pool()
    pool.tick()
    resource = case.operation.path.split("/")[1]
    given = case.path_parameters.get("id") if case.path_parameters else None
    if isinstance(given, str) and _OBJECT_ID.fullmatch(given) and pool.chance.random() < 0.9:
        case.path_parameters["id"] = pool.one(resource)
    if isinstance(case.body, dict | list) and pool.chance.random() < 0.9:
        case.body = _with_real_ones(pool, case.body, "tasks")
    if case.headers and "Banyan-Attempt-Token" in case.headers and pool.chance.random() < 0.7:
        case.headers["Banyan-Attempt-Token"] = pool.chance.choice(pool.tokens)


def _with_real_ones(pool: Pool, value: Any, name: str) -> Any:
    if isinstance(value, dict):
        return {key: _with_real_ones(pool, one, key) for key, one in value.items()}
    if isinstance(value, list):
        found = [_with_real_ones(pool, one, name) for one in value]
        repeated = len({json.dumps(one) for one in found}) < len(found)
        return value if repeated else found
    if isinstance(value, str) and name in _OWN_TOKENS:
        return pool.chance.choice(pool.tokens)
    if isinstance(value, str) and _OBJECT_ID.fullmatch(value):
        return pool.one({"worker": "workers", "attempts": "attempts"}.get(name, "tasks"))
    return value
