"""Every pair of verbs on one task, forced to meet: the one has read, then the other is done.

The first request is stopped right before it writes; the second is made and answered; then the
first goes on with what it has decided on. Either it counts as if it had come after the second,
or it is told that it has lost, and nothing of it was done. The other order is the same pair with
the parts exchanged. What each is to come to is the model's word (`tests.model.expected`).
"""

import itertools
from collections.abc import Callable, Iterator
from copy import deepcopy
from datetime import UTC, datetime
from typing import Any

import eve
import pytest
from bson import ObjectId
from pymongo import monitoring

from banyan.server.app import create_app
from banyan.server.store import accounts
from banyan.server.store.indexes import prepare_database
from banyan.server.store.mongo import Store
from banyan.server.upkeep import duties
from tests.harness import eventually
from tests.model.expected import Edge, Expected, New, View

WRITES = ("update", "insert", "delete", "findAndModify", "bulkWrite")
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)
RESOURCES = {"cores": 64, "memory": "64 GiB"}


class Gate(monitoring.CommandListener):
    """Lets something happen before the next write to the tasks."""

    def __init__(self) -> None:
        self.before: Callable[[], None] | None = None

    def started(self, event: monitoring.CommandStartedEvent) -> None:
        if event.command_name in WRITES and event.command[event.command_name] == "tasks":
            happen, self.before = self.before, None
            if happen:
                happen()

    def succeeded(self, event: monitoring.CommandSucceededEvent) -> None:
        """Nothing follows."""

    def failed(self, event: monitoring.CommandFailedEvent) -> None:
        """Nothing follows."""


class Stage:
    """One application over a real database, and what the tests send to it."""

    def __init__(self, app: eve.Eve, store: Store, gate: Gate) -> None:
        self.app, self.store, self.gate = app, store, gate
        self.tokens = {}
        for role in ("provider", "worker"):
            account = accounts.insert(store, role, [role])
            self.tokens[role] = accounts.issue(store, account)

    def ask(self, role: str, method: str, path: str, body: Any = None) -> Any:
        headers = {"Authorization": f"Bearer {self.tokens[role]}"}
        return self.app.test_client().open(path, method=method, headers=headers, json=body)


class Meeting:
    """One task `t` with a parent `p` and a child `c`, a worker that may hold it, and one more."""

    def __init__(self, stage: Stage, max_lost_count: int = 3) -> None:
        self.stage = stage
        self.expected = Expected()
        self.ids = {name: str(ObjectId()) for name in "ptcx"}
        self.queue = f"q{ObjectId()}"
        self.token = ""
        waiting = New("c", after=(("continuations", "t"),))
        self.expected.submit([New("t", available=True, max_attempt_count=2), waiting, New("x")])
        bodies = [
            {
                "_id": self.ids["t"],
                "state": "available",
                "max_attempt_count": 2,
                "max_lost_count": max_lost_count,
            },
            {"_id": self.ids["c"], "after": [self.ids["t"]]},
            {"_id": self.ids["x"]},
        ]
        made = self.stage.ask(
            "provider", "POST", "/tasks",
            [{"command": "true", "queue": self.queue, **body} for body in bodies],
        )  # fmt: skip
        assert made.status_code == 201, made.text
        self.workers = [self._worker() for _ in range(2)]

    def _worker(self) -> str:
        body = {"host": "h", "resources": RESOURCES, "queues": [self.queue]}
        return str(self.stage.ask("worker", "POST", "/workers", body).json["_id"])

    def look(self) -> dict[str, View]:
        found = {}
        for name in self.expected.tasks:
            item = self.stage.ask("provider", "GET", f"/tasks/{self.ids[name]}").json
            waiting = None if item["state"] == "cancelled" else item["pending_dependency_count"]
            found[name] = View(item["state"], item["outcome"], item["attempt_count"], waiting)
        return found

    def comes_to(self, model: Expected) -> None:
        """Waits until all is as the model has it: what follows from an end may take a moment."""
        eventually(lambda: self.look() == model.look(), every_seconds=0.01)

    # --- the verbs: what is sent, and what the model does ---------------------------------

    def provider(self, method: str, path: str, body: Any = None) -> int:
        return int(
            self.stage.ask("provider", method, f"/tasks/{self.ids['t']}{path}", body).status_code
        )

    def worker(self, method: str, path: str, body: Any = None) -> int:
        return int(self.stage.ask("worker", method, path, body).status_code)

    def claim(self) -> int:
        data = {"update_execution_data": {"worker": self.workers[0]}}
        answer = self.stage.ask(
            "worker", "PATCH", f"/tasks/{self.ids['t']}", {"state": "running", **data}
        )
        self.token = answer.json.get("token", self.token)
        return int(answer.status_code)

    def end(self, exit_status: str) -> int:
        data = {
            "token": self.token,
            "exit_status": exit_status,
            "time_terminated": "2026-11-22T00:00:00Z",
        }
        body = {"state": "terminated", "update_execution_data": data}
        return self.worker("PATCH", f"/tasks/{self.ids['t']}", body)

    def release(self) -> int:
        return self.worker("POST", f"/tasks/{self.ids['t']}/release", {"token": self.token})

    def lapse(self) -> None:
        worker = {"_id": ObjectId(self.workers[0])}
        self.stage.store["workers"].update_one(worker, {"$set": {"lease_until": LONG_AGO}})
        duties.leases(self.stage.app.extensions["banyan"].context)

    def remove(self) -> int:
        return self.worker("DELETE", f"/workers/{self.workers[0]}")

    def start(self) -> int:
        data = {"token": self.token, "time_started": "2026-11-22T00:00:00Z"}
        return self.worker("PATCH", f"/tasks/{self.ids['t']}", {"update_execution_data": data})

    def steal(self) -> list[str]:
        """What the other worker gets."""
        answer = self.stage.ask("worker", "POST", "/tasks/steal", {"worker": self.workers[1]})
        assert answer.status_code == 200, answer.text
        return [item["_id"] for item in answer.json["_items"]]

    def link(self, verb: str) -> int:
        return self.provider("PATCH", f"/{verb}_final_continuations", [self.ids["x"]])


EDGE = Edge("final_continuations", "t", "x")
Verb = tuple[Callable[[Meeting], int | None], Callable[[Expected], int | None]]
VERBS: dict[str, Verb] = {
    "claim": (Meeting.claim, lambda model: model.claim("t", "w", 1)),
    "succeed": (lambda m: m.end("success"), lambda model: model.end(1, "terminated", "success")),
    "fail": (
        lambda m: m.end("failure (1)"),
        lambda model: model.end(1, "terminated", "failure (1)"),
    ),
    "cancel": (lambda m: m.provider("POST", "/cancel"), lambda model: model.cancel("t")),
    "cancel by edit": (
        lambda m: m.provider("PATCH", "", {"state": "cancelled"}),
        lambda model: model.move("t", "cancelled"),
    ),
    "retry": (lambda m: m.provider("POST", "/retry"), lambda model: model.retry(["t"], False)),
    "retry downstream": (
        lambda m: m.provider("POST", "/retry", {"downstream": True}),
        lambda model: model.retry(["t"], True),
    ),
    "hold": (
        lambda m: m.provider("PATCH", "", {"state": "inactive"}),
        lambda model: model.move("t", "inactive"),
    ),
    "let go": (
        lambda m: m.provider("PATCH", "", {"state": "available"}),
        lambda model: model.move("t", "available"),
    ),
    "release": (Meeting.release, lambda model: model.release(1)),
    "lapse": (Meeting.lapse, lambda model: model.lapse("w")),
    "remove the worker": (Meeting.remove, lambda model: model.remove("w") or 204),
    "add an edge": (lambda m: m.link("add"), lambda model: model.link(EDGE)),
    "remove an edge": (lambda m: m.link("remove"), lambda model: model.unlink(EDGE)),
}
# What brings the task into each state.
PATHS: dict[str, list[str]] = {
    "available": [],
    "inactive": ["hold"],
    "inactive, with an edge": ["hold", "add an edge"],
    "running": ["claim"],
    "pending_cancellation": ["claim", "cancel"],
    "cancelled": ["cancel"],
    "terminated": ["claim", "succeed"],
}
# Moves by a provider's edit are guarded by what was read; everything else looks again.
MAY_LOSE = {"claim", "cancel by edit", "hold", "let go", "add an edge", "remove an edge"}
_SERIALISED = {"add an edge", "remove an edge", "retry", "retry downstream"}


def acts(state: str, verb: str) -> bool:
    """Whether it changes anything there, by the model."""
    model = Expected()
    model.submit([New("t", available=True, max_attempt_count=2), New("x")])
    for step in PATHS[state]:
        VERBS[step][1](model)
    if verb in ("succeed", "fail", "release") and 1 not in model.claims:
        return False
    before = deepcopy((model.tasks, model.edges))
    VERBS[verb][1](model)
    return (model.tasks, model.edges) != before


def pairs() -> list[Any]:
    """(state, first, second), where both have something to do."""
    return [
        pytest.param(state, first, second, id=f"{state}: {first} meets {second}")
        for state in PATHS
        for first, second in itertools.permutations([v for v in VERBS if acts(state, v)], 2)
        # Those that change edges wait for each other: there is nothing between them.
        if not {first, second} <= _SERIALISED
    ]


@pytest.fixture(scope="module")
def stage(module_database: str) -> Iterator[Stage]:
    prepare_database(module_database)
    gate = Gate()
    before = list(monitoring._LISTENERS.command_listeners)
    monitoring.register(gate)
    try:
        app = create_app(module_database)
        store = app.extensions["banyan"].context.store
        store.ping()  # from now on its client has the gate
    finally:
        monitoring._LISTENERS.command_listeners[:] = before
    yield Stage(app, store, gate)
    store.close()


@pytest.mark.parametrize(("state", "first", "second"), pairs())
def test_two_that_meet(stage: Stage, state: str, first: str, second: str) -> None:
    meeting = Meeting(stage)
    model = meeting.expected
    for step in PATHS[state]:
        send, expect = VERBS[step]
        assert send(meeting) == expect(model), step
    meeting.comes_to(model)
    came: list[Any] = []

    def meanwhile() -> None:
        came.append(VERBS[second][0](meeting))

    stage.gate.before = meanwhile
    got = VERBS[first][0](meeting)
    assert came, f"{first} has written nothing"
    assert came == [VERBS[second][1](model)], f"{second} was in nobody's way"
    without_first = deepcopy(model)
    if got == VERBS[first][1](model):
        meeting.comes_to(model)
    else:
        assert first in MAY_LOSE
        assert got == 409, f"{first} has lost, and was told {got}"
        meeting.comes_to(without_first)


def test_upkeep_in_the_middle_of_a_removal_takes_no_task_for_lost(stage: Stage) -> None:
    meeting = Meeting(stage, max_lost_count=0)
    assert VERBS["claim"][0](meeting) == 200
    context = stage.app.extensions["banyan"].context
    came: list[Any] = []
    stage.gate.before = lambda: came.append(duties.leases(context))
    assert VERBS["remove the worker"][0](meeting) == 204
    assert came
    eventually(lambda: meeting.look()["t"] == View("available", None, 1, 0))


# --- Stealing: a claim that has not started, and whoever else is about it -----------------

LEAVES_NOTHING = ["succeed", "fail", "cancel", "cancel by edit", "release", "lapse"]
LEAVES_NOTHING += ["remove the worker"]


def claimed(stage: Stage) -> Meeting:
    meeting = Meeting(stage)
    send, expect = VERBS["claim"]
    assert send(meeting) == expect(meeting.expected) == 200
    return meeting


@pytest.mark.parametrize("second", LEAVES_NOTHING)
def test_a_thief_that_comes_too_late_gets_nothing(stage: Stage, second: str) -> None:
    meeting = claimed(stage)
    send, expect = VERBS[second]
    came: list[Any] = []
    stage.gate.before = lambda: came.append(send(meeting))
    assert meeting.steal() == []
    assert came == [expect(meeting.expected)]
    meeting.comes_to(meeting.expected)


@pytest.mark.parametrize(
    ("first", "told", "state"),
    [
        ("succeed", 409, "running"),
        ("fail", 409, "running"),
        ("release", 409, "running"),
        ("cancel", 200, "pending_cancellation"),  # never loses
        ("cancel by edit", 200, "pending_cancellation"),
        ("lapse", None, "running"),
        ("remove the worker", 204, "running"),
    ],
)
def test_whoever_was_robbed_meanwhile_changes_nothing(
    stage: Stage, first: str, told: int | None, state: str
) -> None:
    meeting = claimed(stage)
    stolen: list[Any] = []
    stage.gate.before = lambda: stolen.append(meeting.steal())
    assert VERBS[first][0](meeting) == told
    assert stolen == [[meeting.ids["t"]]]
    eventually(lambda: meeting.look()["t"] == View(state, None, 2, 0))
    task = stage.ask("worker", "GET", f"/tasks/{meeting.ids['t']}").json
    assert task["state"] == state
    assert meeting.end("success") == 409  # with the token of the robbed


def test_a_start_and_a_theft_exclude_each_other(stage: Stage) -> None:
    started = claimed(stage)
    told: list[Any] = []
    stage.gate.before = lambda: told.append(started.start())
    assert (started.steal(), told) == ([], [200])
    robbed = claimed(stage)
    stage.gate.before = lambda: told.append(robbed.steal())
    assert (robbed.start(), told[1:]) == (409, [[robbed.ids["t"]]])
