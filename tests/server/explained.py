"""An application asked in this process, and how the database would do what it is asked for."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from pymongo import MongoClient, monitoring

from banyan.server import shapes
from banyan.server.app import create_app
from banyan.server.calls import Context
from banyan.server.store import accounts
from banyan.server.store.indexes import prepare_database
from banyan.server.store.mongo import Store

KINDS = 5  # of request among the tasks
END = {"exit_status": "success", "time_terminated": "2026-11-22T06:51:14Z"}
# What `explain` does not take, or what would make it part of a transaction.
_ENVELOPE = {"lsid", "$db", "$clusterTime", "$readPreference", "txnNumber", "autocommit",
             "startTransaction", "readConcern", "writeConcern", "ordered"}  # fmt: skip

Item = dict[str, Any]


class Caught(monitoring.CommandListener):
    """The commands that were sent, in their order."""

    def __init__(self) -> None:
        self.commands: list[Item] = []

    def started(self, event: monitoring.CommandStartedEvent) -> None:
        if event.command:  # those by which a new connection signs in are not told
            self.commands.append(dict(event.command))

    def succeeded(self, event: monitoring.CommandSucceededEvent) -> None:
        pass

    def failed(self, event: monitoring.CommandFailedEvent) -> None:
        pass


class Bench:
    """An application with thousands of tasks, and what it asks of its database."""

    def __init__(self, uri: str) -> None:
        prepare_database(uri)
        self.caught = Caught()
        app = create_app(uri)
        self.context: Context = app.extensions["banyan"].context
        self.store: Store = self.context.store
        self.store.close()
        self.store.__dict__.pop("database", None)  # it belongs to the client that is replaced
        listening = MongoClient[Item](uri, tz_aware=True, event_listeners=[self.caught])
        self.store.__dict__["client"] = listening
        self.client = app.test_client()
        self.tokens = {role: self._token(role) for role in ("provider", "worker", "operator")}

    def _token(self, role: str) -> str:
        return accounts.issue(self.store, accounts.insert(self.store, role, [role]))

    def ask(self, role: str, method: str, path: str, body: Any = None, **arguments: str) -> Any:
        headers = {"Authorization": f"Bearer {self.tokens[role]}"}
        more = {} if body is None else {"json": body}
        answer = self.client.open(
            path, method=method, headers=headers, query_string=arguments, **more
        )
        assert answer.status_code in (200, 201), answer.text
        return answer.json

    def submit(self, count: int, **fields: Any) -> list[str]:
        tasks = [
            {
                "command": "true",
                "state": "available",
                "requested_resources": {"cores": 1 + number % KINDS},
                **fields,
            }
            for number in range(count)
        ]
        return [item["_id"] for item in self.ask("provider", "POST", "/tasks", tasks)["_items"]]

    def worker(self) -> str:
        resources = {"cores": 10_000, "memory": "10 TiB"}
        body = {"host": "h", "resources": resources}
        return str(self.ask("worker", "POST", "/workers", body)["_id"])

    def claim(self, worker: str, count: int, **more: Any) -> list[Item]:
        body = {"worker": worker, "max": count, **more}
        items: list[Item] = self.ask("worker", "POST", "/tasks/claim", body)["_items"]
        assert len(items) == count
        return items

    def end(self, items: list[Item]) -> None:
        reports = [
            {
                "_id": item["_id"],
                "state": "terminated",
                "update_execution_data": {"token": item["token"], **END},
            }
            for item in items
        ]
        self.ask("worker", "PATCH", "/tasks", reports)

    def during(self, work: Callable[[], Any]) -> list[Item]:
        """The commands that the work sends."""
        self.caught.commands.clear()
        work()
        return list(self.caught.commands)

    def plans(self, command: Item) -> list[Item]:
        """How the database would do a command: one winning plan for each of its parts."""
        answers = self._explained(command, "queryPlanner")
        return [plan for answer in answers for plan in _winning(answer)]

    def examined(self, command: Item, what: str = "Docs") -> int:
        """How many documents, or entries of indexes ("Keys"), are looked at for a command."""
        answers = self._explained(command, "executionStats")
        return sum(sum(_numbers(answer, f"total{what}Examined")) for answer in answers)

    def _explained(self, command: Item, verbosity: str) -> list[Item]:
        name = next(iter(command))
        bare = {key: value for key, value in command.items() if key not in _ENVELOPE}
        bare = {name: bare.pop(name), **bare}
        parts = [bare]
        for several in ("updates", "deletes"):
            if several in bare:
                parts = [{**bare, several: [one]} for one in bare[several]]
        with MongoClient[Item](self.store.uri) as client:
            database = client[self.store.database_name]
            return [database.command({"explain": part, "verbosity": verbosity}) for part in parts]


def _numbers(node: Any, name: str) -> Iterator[int]:
    """The outermost of all values of this name."""
    if isinstance(node, dict):
        if name in node:
            yield node[name]
            return
        for value in node.values():
            yield from _numbers(value, name)
    elif isinstance(node, list):
        for value in node:
            yield from _numbers(value, name)


def _winning(node: Any) -> Iterator[Item]:
    if isinstance(node, dict):
        if "winningPlan" in node:
            yield node["winningPlan"]
            return
        for value in node.values():
            yield from _winning(value)
    elif isinstance(node, list):
        for value in node:
            yield from _winning(value)


def stages(plan: Any) -> set[str]:
    """The names of all stages of a plan."""
    if isinstance(plan, dict):
        own = {plan["stage"]} if isinstance(plan.get("stage"), str) else set()
        return own.union(*(stages(value) for value in plan.values()))
    if isinstance(plan, list):
        return set().union(*(stages(value) for value in plan))
    return set()


@pytest.fixture
def bench(fresh_database: str) -> Iterator[Bench]:
    """A new one, on a database of its own; the conftest of a folder takes it in."""
    made = Bench(fresh_database)
    yield made
    made.store.close()


@pytest.fixture
def nothing_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a claim soon after another asks for less."""
    monkeypatch.setattr(shapes, "WAITING_SECONDS", 0)
