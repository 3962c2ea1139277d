"""A running task speaks with the token of its own attempt, and may do little with it."""

from typing import Any

import pytest

from tests.contract.playing import Player, now
from tests.harness import Api, Server

QUEUE = "task-tokens"


class Speaking:
    """A running task with one child that waits for it."""

    def __init__(self, server: Server) -> None:
        made = server.provider.post("tasks", {"command": "x", "state": "available", "queue": QUEUE})
        self.id = made.json()["_id"]
        child = server.provider.post("tasks", {"name": "child", "after": [self.id]})
        self.child = child.json()["_id"]
        claimed = Player(server.worker, QUEUE).claim_one(self.id)
        self.token: str = claimed.json()["token"]
        self.api = Api(server.url, self.token)


@pytest.fixture
def speaking(server: Server) -> Speaking:
    return Speaking(server)


@pytest.mark.parametrize(
    ("name", "value"),
    [("progress", {"done": 40, "total": 100, "message": "epoch 4"}), ("result", {"loss": 0.1})],
)
def test_it_says_how_far_it_is_and_what_it_gives_back(
    server: Server, speaking: Speaking, name: str, value: Any
) -> None:
    assert speaking.api.post(f"tasks/{speaking.id}/{name}", value).status_code == 200
    assert server.provider.get(f"tasks/{speaking.id}").json()[name] == value


def test_it_submits_tasks_of_its_owner(server: Server, speaking: Speaking) -> None:
    made = speaking.api.post("tasks", {"name": "further"})
    assert made.status_code == 201, made.text
    assert server.provider.get(f"tasks/{made.json()['_id']}").json()["owner"] == "provider"


def test_it_adds_continuations_to_its_children(server: Server, speaking: Speaking) -> None:
    further = speaking.api.post("tasks", {"name": "further"}).json()["_id"]
    answer = speaking.api.post(f"tasks/{speaking.child}/add_continuations", [further])
    assert answer.status_code == 200, answer.text
    assert server.provider.get(f"tasks/{further}").json()["after"] == [speaking.child]


def test_other_tasks_of_its_owner_do_not_exist_for_it(server: Server, speaking: Speaking) -> None:
    other = server.provider.post("tasks", {"name": "other"}).json()["_id"]
    answer = speaking.api.post(f"tasks/{other}/add_continuations", [speaking.child])
    assert answer.status_code == 404


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "tasks", None),
        ("GET", "tasks/{id}", None),
        ("PATCH", "tasks/{child}", {"name": "z"}),
        ("PATCH", "tasks/{id}", {"state": "cancelled"}),
        ("POST", "tasks/{id}/cancel", None),
        ("POST", "tasks/{id}/release", None),
        ("GET", "workers", None),
        ("POST", "accounts", {"name": "x", "roles": ["admin"]}),
    ],
)
def test_it_may_do_nothing_more(speaking: Speaking, method: str, path: str, body: Any) -> None:
    address = path.format(id=speaking.id, child=speaking.child)
    assert speaking.api.request(method, address, body).status_code == 403


def test_with_its_end_its_token_is_worth_nothing(server: Server, speaking: Speaking) -> None:
    data = {"token": speaking.token, "exit_status": "success", "time_terminated": now()}
    end = {"state": "terminated", "update_execution_data": data}
    assert server.worker.patch(f"tasks/{speaking.id}", end).status_code == 200
    fresh = Api(server.url, speaking.token)
    assert fresh.post("tasks", {"name": "late"}).status_code == 401
