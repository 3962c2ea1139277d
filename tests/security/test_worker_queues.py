"""A worker's account may be bound to queues: others' tasks are neither seen there nor run."""

import uuid
from typing import Any

import pytest

from tests.contract.playing import RESOURCES, Player, word
from tests.harness import Api, Server

FORBIDDEN = (403, "forbidden")
NOT_FOUND = (404, "not_found")


class Bound:
    """A worker's account that is for the queue `lab`, and a task in each of two queues."""

    def __init__(self, server: Server, name: str) -> None:
        body = {"name": name, "roles": ["worker"], "queues": ["lab"]}
        made = server.admin.post("accounts", body)
        assert made.status_code == 201, made.text
        self.account = made.json()
        self.api = Api(server.url, made.json()["token"])
        self.here, self.elsewhere = (
            server.provider.post(
                "tasks", {"command": "x", "queue": queue, "state": "available"}
            ).json()["_id"]
            for queue in ("lab", "root")
        )

    def register(self, **more: Any) -> Any:
        return self.api.post("workers", {"host": "h", "resources": RESOURCES, **more})


@pytest.fixture
def bound(server: Server) -> Bound:
    return Bound(server, uuid.uuid4().hex)


def test_it_registers_for_its_own_queues_only(bound: Bound) -> None:
    for queues in (["root"], ["lab", "root"], ["default"]):
        refused = bound.register(queues=queues)
        assert word(refused) == FORBIDDEN
        assert "lab" in refused.json()["_error"]["message"]
    assert bound.register(queues=["lab"]).status_code == 201
    assert bound.register().json()["queues"] == ["lab"]


@pytest.mark.parametrize("verb", ["claim", "steal"])
def test_it_claims_from_no_other_queue(bound: Bound, verb: str) -> None:
    worker = bound.register().json()["_id"]
    body = {"worker": worker, "max": 100}
    assert word(bound.api.post(f"tasks/{verb}", {**body, "queues": ["root"]})) == FORBIDDEN
    got = bound.api.post(f"tasks/{verb}", body).json()["_items"]
    assert {item["queue"] for item in got} <= {"lab"}
    assert got or verb == "steal"


def test_a_task_of_another_queue_is_not_there_for_it(server: Server, bound: Bound) -> None:
    worker = bound.register().json()["_id"]
    named = {"state": "running", "update_execution_data": {"worker": worker}}
    assert word(bound.api.get(f"tasks/{bound.elsewhere}")) == NOT_FOUND
    assert word(bound.api.patch(f"tasks/{bound.elsewhere}", named)) == NOT_FOUND
    assert word(bound.api.post(f"tasks/{bound.elsewhere}/claim", {"worker": worker})) == NOT_FOUND
    seen = bound.api.get("tasks", max_results=1000).json()["_items"]
    assert {item["queue"] for item in seen} == {"lab"}
    assert bound.api.get(f"tasks/{bound.here}").status_code == 200
    assert bound.api.patch(f"tasks/{bound.here}", named).status_code == 200
    assert server.provider.get(f"tasks/{bound.elsewhere}").json()["state"] == "available"


def test_one_more_token_of_the_account_is_bound_too(server: Server, bound: Bound) -> None:
    issued = server.admin.post(f"accounts/{bound.account['_id']}/issue")
    bound.api = Api(server.url, issued.json()["token"])
    assert word(bound.register(queues=["root"])) == FORBIDDEN
    assert server.admin.get(f"accounts/{bound.account['_id']}").json()["queues"] == ["lab"]


def test_an_account_without_queues_serves_all(server: Server, bound: Bound) -> None:
    player = Player(server.worker, "root")
    assert player.claim_one(bound.elsewhere).status_code == 200


@pytest.mark.parametrize(
    "fields",
    [{"roles": ["provider"], "queues": ["lab"]}, {"queues": []}, {"queues": ["a b"]},
     {"queues": "lab"}],
)  # fmt: skip
def test_queues_that_make_no_sense_are_refused(server: Server, fields: dict[str, Any]) -> None:
    body = {"name": "odd", "roles": ["worker"], **fields}
    refused = server.admin.post("accounts", body)
    assert word(refused) == (422, "invalid")
    assert list(refused.json()["_issues"]) == ["queues"]
