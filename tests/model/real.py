"""A running server, over HTTP: see `expected.Expected` for the methods.

A lease is made to lapse in the database, as nobody has the time to wait for it; everything
else is a request.
"""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

from bson import ObjectId
from pymongo import MongoClient

from tests.contract.playing import Play, Player
from tests.harness import Server, eventually
from tests.model.expected import ENDED, HELD, Edge, New, View

_CHILD_SIDE = {
    "continuations": "after",
    "failure_continuations": "after_failure",
    "final_continuations": "after_any",
}
_LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)
_RESOURCES = {"cores": 256, "memory": "256 GiB"}
_FIELDS = '{"state":1,"outcome":1,"attempt_count":1,"pending_dependency_count":1}'


class Real:
    """One life on a server that others use, too."""

    def __init__(
        self, server: Server, database: str, restart: Callable[[], None] | None = None
    ) -> None:
        self._play = Play(server)
        self._provider = server.provider
        self._worker = server.worker
        self._workers: dict[str, Player] = {}
        self._ids: dict[str, str] = {}
        self._tokens: dict[int, tuple[str, str]] = {}
        self._client = MongoClient[dict[str, Any]](database)
        self._database = self._client.get_default_database()
        self._restart = restart

    def close(self) -> None:
        """Leaves nothing for others to claim."""
        for player in self._workers.values():
            self._worker.delete(f"workers/{player.id}")
        for task in self._ids.values():
            self._provider.post(f"tasks/{task}/cancel")
        self._client.close()

    def look(self) -> dict[str, View]:
        if not self._ids:
            return {}
        answer = self._provider.get(
            "tasks",
            where=f'{{"queue":"{self._play.queue}"}}',
            projection=_FIELDS,
            max_results=1000,
        )
        assert answer.status_code == 200, answer.text
        found = {item["_id"]: _view(item) for item in answer.json()["_items"]}
        return {name: found[task] for name, task in self._ids.items() if task in found}

    def upkeep(self) -> None:
        """The server is killed, and another goes on."""
        if self._restart:
            self._restart()

    # --- by a provider ---------------------------------------------------------------

    def submit(self, new: Sequence[New]) -> int:
        ids = {one.name: self._ids.get(one.name) or str(ObjectId()) for one in new}
        known = {**self._ids, **ids}
        status = self._status(self._provider.post("tasks", [self._body(one, known) for one in new]))
        if status == 201:
            self._ids = known
        return status

    def _body(self, new: New, ids: dict[str, str]) -> dict[str, Any]:
        body: dict[str, Any] = {
            "_id": ids[new.name],
            "name": new.name,
            "queue": self._play.queue,
            "state": "available" if new.available else "inactive",
            "max_attempt_count": new.max_attempt_count,
            "max_lost_count": new.max_lost_count,
        }
        if not new.group:
            body["command"] = "true"
        for kind, parent in new.after:
            body.setdefault(_CHILD_SIDE[kind], []).append(ids[parent])
        return body

    def move(self, name: str, state: str) -> int:
        return self._patch(name, {"state": state})

    def cancel(self, name: str) -> int:
        return self._status(self._provider.post(f"tasks/{self._ids[name]}/cancel"))

    def retry(self, names: Sequence[str], downstream: bool) -> int:
        body = {"targets": [self._ids[name] for name in names], "downstream": downstream}
        return self._status(self._provider.post("tasks/retry", body))

    def link(self, edge: Edge) -> int:
        return self._patch(edge.parent, {f"add_{edge.kind}": [self._ids[edge.child]]})

    def unlink(self, edge: Edge) -> int:
        return self._patch(edge.parent, {f"remove_{edge.kind}": [self._ids[edge.child]]})

    def _patch(self, name: str, body: dict[str, Any]) -> int:
        return self._status(self._provider.patch(f"tasks/{self._ids[name]}", body))

    # --- by workers ------------------------------------------------------------------

    def _player(self, worker: str) -> Player:
        if worker not in self._workers:
            self._workers[worker] = self._play.player(resources=_RESOURCES)
        return self._workers[worker]

    def claim(self, name: str, worker: str, number: int) -> int:
        answer = self._player(worker).claim_one(self._ids[name])
        if answer.status_code == 200:
            self._tokens[number] = (self._ids[name], answer.json()["token"])
        return self._status(answer)

    def end(self, number: int, state: str, exit_status: str) -> int:
        task, token = self._tokens[number]
        data = {
            "token": token,
            "exit_status": exit_status,
            "time_terminated": "2026-11-22T00:00:00Z",
        }
        return self._status(
            self._worker.patch(f"tasks/{task}", {"state": state, "update_execution_data": data})
        )

    def release(self, number: int) -> int:
        task, token = self._tokens[number]
        return self._status(self._worker.post(f"tasks/{task}/release", {"token": token}))

    def lapse(self, worker: str) -> None:
        if worker not in self._workers:
            return
        lapsed = ObjectId(self._workers.pop(worker).id)
        self._database["workers"].update_one({"_id": lapsed}, {"$set": {"lease_until": _LONG_AGO}})
        held = {"holder.worker": lapsed, "state": {"$in": HELD}}
        eventually(lambda: self._database["tasks"].count_documents(held) == 0, 20)
        eventually(self._all_settled, 20)

    def remove(self, worker: str) -> None:
        if worker in self._workers:
            answer = self._worker.delete(f"workers/{self._workers.pop(worker).id}")
            assert answer.status_code == 204, answer.text

    def _all_settled(self) -> bool:
        unsettled = {"queue": self._play.queue, "state": {"$in": ENDED}, "unsettled": True}
        return self._database["tasks"].count_documents(unsettled) == 0

    def _status(self, answer: Any) -> int:
        assert answer.status_code < 500, answer.text
        status: int = answer.status_code
        return status


def _view(item: dict[str, Any]) -> View:
    waiting = None if item["state"] == "cancelled" else item["pending_dependency_count"]
    return View(item["state"], item["outcome"], item["attempt_count"], waiting)
