"""A running task speaks with the token of its own attempt, and may do little with it."""

from typing import Any

import pytest

from tests.contract.asking import new_id, refused
from tests.contract.playing import Player, chunk, now
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
        ("GET", "tasks/{id}/history", None),
        ("GET", "tasks/{id}/script", None),
        ("GET", "tasks/{id}/explain", None),
        ("GET", "attempts", None),
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


@pytest.fixture
def family(server: Server) -> "Family":
    return Family(server)


class Family:
    """A running task, three parents of it that have ended, and tasks that are none of its own."""

    def __init__(self, server: Server) -> None:
        queue = f"{QUEUE}-{new_id()}"
        player = Player(server.worker, queue)
        of_queue = {"command": "x", "state": "available", "queue": queue}
        self.parents = {}
        for kind, status in (
            ("after", "success"), ("after_any", "timeout"), ("after_failure", "failure (3)"),
        ):  # fmt: skip
            task = {**of_queue, "env": {"KEY": "for that task alone"}}
            (item,) = [server.provider.post("tasks", task).json()]
            claimed = player.claim_one(item["_id"]).json()
            server.worker.post(f"tasks/{item['_id']}/result", {"of": kind}, headers={
                "Banyan-Attempt-Token": claimed["token"]})  # fmt: skip
            player.report(claimed, log=[chunk(0, kind.encode())])
            assert player.end(claimed, status).status_code == 200
            self.parents[kind] = item["_id"]
        edges = {kind: [parent] for kind, parent in self.parents.items()}
        task = {**of_queue, **edges, "env": {"OWN": "1"}}
        self.id = server.provider.post("tasks", task).json()["_id"]
        child = server.provider.post("tasks", {"name": "child", "after": [self.id]})
        sibling = server.provider.post("tasks", {"after": [self.parents["after"]]})
        stranger = server.provider.post("tasks", {"command": "y"})
        self.others = [made.json()["_id"] for made in (child, sibling, stranger)]
        self.api = Api(server.url, player.claim_one(self.id).json()["token"])


def test_it_reads_itself_and_its_parents(family: Family) -> None:
    own = family.api.get(f"tasks/{family.id}").json()
    assert own["env"] == {"OWN": "1"}
    for kind, parent in family.parents.items():
        assert own[kind] == [parent]
        assert family.api.get(f"tasks/{parent}").json()["result"] == {"of": kind}
        assert family.api.get(f"tasks/{parent}/result").json() == {"result": {"of": kind}}
        assert family.api.get(f"tasks/{parent}/log").text == kind


def test_what_a_parents_environment_holds_it_does_not_read(family: Family) -> None:
    for parent in family.parents.values():
        for asked in ({}, {"projection": '{"env":1,"env.KEY":1}'}):
            assert "for that task alone" not in family.api.get(f"tasks/{parent}", **asked).text


def test_of_others_it_reads_nothing(family: Family) -> None:
    for other in family.others:
        for path in (f"tasks/{other}", f"tasks/{other}/result", f"tasks/{other}/log"):
            refused(family.api.get(path), 404, "not_found")


def test_nor_does_it_write_to_its_parents(family: Family) -> None:
    parent = family.parents["after"]
    further = family.api.post("tasks", {"name": "further"}).json()["_id"]
    refused(family.api.patch(f"tasks/{parent}", {"name": "x"}), 403)
    refused(family.api.post(f"tasks/{parent}/retry"), 403)
    refused(family.api.post(f"tasks/{parent}/add_continuations", [further]), 404)
    assert family.api.post(f"tasks/{parent}/result", {"of": "it"}).status_code in (404, 409)
    assert family.api.get(f"tasks/{parent}").json()["result"] == {"of": "after"}


def test_with_its_end_its_token_is_worth_nothing(server: Server, speaking: Speaking) -> None:
    data = {"token": speaking.token, "exit_status": "success", "time_terminated": now()}
    end = {"state": "terminated", "update_execution_data": data}
    assert server.worker.patch(f"tasks/{speaking.id}", end).status_code == 200
    fresh = Api(server.url, speaking.token)
    assert fresh.post("tasks", {"name": "late"}).status_code == 401
