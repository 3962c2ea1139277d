"""Contract §1: lists of tasks, `dedupe_key`, and the requests that must work as written."""

import json
import subprocess
from typing import Any

import pytest

from tests.contract.asking import make, new_id, read, refused
from tests.harness import Server


def test_a_list_of_tasks_is_stored_in_its_order(server: Server):
    answer = server.provider.post("tasks", [{"name": str(i)} for i in range(5)])
    assert answer.status_code == 201
    body = answer.json()
    assert body["_status"] == "OK"
    assert [item["name"] for item in body["_items"]] == list("01234")
    assert all(item["_status"] == "OK" for item in body["_items"])


def test_a_list_of_one_is_answered_with_a_list(server: Server):
    answer = server.provider.post("tasks", [{"command": "true"}])
    assert answer.status_code == 201
    assert len(answer.json()["_items"]) == 1


def test_edges_may_name_tasks_of_the_same_list(server: Server):
    parent, child = new_id(), new_id()
    bodies = [
        {"_id": parent, "command": "true", "continuations": [child]},
        {"_id": child, "command": "true"},
    ]
    assert server.provider.post("tasks", bodies).status_code == 201
    stored = read(server.provider, child)
    assert stored["after"] == [parent]
    assert stored["pending_dependency_count"] == 1


def test_a_thousand_tasks_go_in_one_list_and_more_is_413(server: Server):
    tasks = [{"command": "true", "tags": {"batch": "thousand"}}] * 1001
    refused(server.provider.post("tasks", tasks), 413, "too_large")
    where = {"where": '{"tags.batch": "thousand"}', "max_results": 1000}
    assert server.provider.get("tasks", **where).json()["_items"] == []
    answer = server.provider.post("tasks", tasks[:1000], headers={"Prefer": "return=minimal"})
    assert answer.status_code == 201
    assert len(server.provider.get("tasks", **where).json()["_items"]) == 1000


@pytest.mark.parametrize("body", [[], None, 1, "x", True])
def test_something_else_than_tasks_is_422(server: Server, body: Any):
    refused(server.provider.post("tasks", json=body), 422)


def test_invalid_items_are_named_with_their_fields_and_nothing_is_stored(server: Server):
    good = new_id()
    bodies = [{"_id": good}, {"priority": "x", "name": ""}, 5, {"queue": 1}]
    issues = refused(server.provider.post("tasks", bodies), 422, "invalid")
    assert issues.keys() == {"1", "2", "3"}
    assert issues["1"].keys() == {"priority", "name"}
    assert issues["3"].keys() == {"queue"}
    refused(server.provider.get(f"tasks/{good}"), 404)


def test_the_invalid_item_of_a_list_of_one_is_named_too(server: Server):
    issues = refused(server.provider.post("tasks", [{"priority": "x"}]), 422)
    assert issues.keys() == {"0"}
    assert issues["0"].keys() == {"priority"}
    issues = refused(server.provider.post("tasks", [{"after": [new_id()]}]), 422)
    assert issues["0"].keys() == {"after"}


def test_an_item_keeps_its_number_beside_one_that_was_there_already(server: Server):
    known = {"command": "true", "dedupe_key": new_id()}
    make(server.provider, **known)
    issues = refused(server.provider.post("tasks", [known, {"after": [new_id()]}]), 422)
    assert issues.keys() == {"1"}


def test_an_id_twice_in_a_list_is_422(server: Server):
    twice = new_id()
    issues = refused(server.provider.post("tasks", [{"_id": twice}, {"_id": twice}]), 422)
    assert issues == {"1": {"_id": issues["1"]["_id"]}}
    refused(server.provider.get(f"tasks/{twice}"), 404)


def test_an_edge_to_a_task_of_somebody_else_is_one_to_nowhere(server: Server):
    foreign = make(server.account("provider", name="somebody-else"))
    for field in ("continuations", "after"):
        issues = refused(server.provider.post("tasks", {field: [foreign["_id"]]}), 422)
        unknown = refused(server.provider.post("tasks", {field: [new_id()]}), 422)
        assert issues.keys() == unknown.keys() == {field}


# --- dedupe_key --------------------------------------------------------------------------


def test_the_same_dedupe_key_and_body_is_the_same_task_with_200(server: Server):
    body = {"command": "true", "dedupe_key": new_id(), "timeout_milliseconds": "1 minute"}
    first = server.provider.post("tasks", body)
    second = server.provider.post("tasks", {**body, "timeout_milliseconds": 60_000})
    assert (first.status_code, second.status_code) == (201, 200)
    assert first.json()["_id"] == second.json()["_id"]


def test_the_same_dedupe_key_with_another_body_is_409(server: Server):
    body = {"command": "true", "dedupe_key": new_id()}
    make(server.provider, **body)
    answer = server.provider.post("tasks", {**body, "command": "false"})
    refused(answer, 409, "dedupe_mismatch")


def test_the_dedupe_key_still_finds_a_task_that_was_changed_since(server: Server):
    body = {"command": "true", "dedupe_key": new_id()}
    task = make(server.provider, **body)
    server.provider.patch(f"tasks/{task['_id']}", {"name": "renamed"})
    answer = server.provider.post("tasks", body)
    assert (answer.status_code, answer.json()["_id"]) == (200, task["_id"])


def test_dedupe_keys_of_two_owners_have_nothing_to_do_with_each_other(server: Server):
    body = {"command": "true", "dedupe_key": new_id()}
    task = make(server.provider, **body)
    assert make(server.account("provider", name="other"), **body)["_id"] != task["_id"]


def test_a_list_repeated_by_its_dedupe_keys_stores_nothing_new(server: Server):
    bodies = [{"command": "true", "dedupe_key": new_id()} for _ in range(3)]
    first = server.provider.post("tasks", bodies).json()["_items"]
    answer = server.provider.post("tasks", bodies)
    assert answer.status_code == 200
    assert [item["_id"] for item in answer.json()["_items"]] == [item["_id"] for item in first]
    more = server.provider.post("tasks", [*bodies, {"command": "true"}])
    assert more.status_code == 201
    assert [item["_id"] for item in more.json()["_items"][:3]] == [item["_id"] for item in first]


# --- As written in the contract ----------------------------------------------------------


def curl(server: Server, command: str) -> str:
    """The answer to one of the contract's requests, a token added."""
    token = f"curl -sS -H 'Authorization: Bearer {server.tokens['provider']}'"
    done = subprocess.run(
        ["/bin/sh", "-c", command.replace("curl", token, 1)],
        env={"PATH": "/usr/local/bin:/usr/bin:/bin", "BANYAN_URL": server.url},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout


def test_the_requests_of_the_contract_work_as_written(server: Server):
    made = json.loads(
        curl(
            server,
            'curl -X POST  -H \'Content-Type: application/json\' -d \'{"command": "test", '
            '"requested_resources": {"memory": "1 GiB"}}\' $BANYAN_URL/tasks',
        )
    )
    assert made["requested_resources"]["cpu_memory_bytes"] == 2**30
    changed = json.loads(
        curl(
            server,
            "curl -X PATCH -H 'Content-Type: application/json' -d '{\"requested_resources\": "
            '{"cores": 1, "memory": "1 GiB"}}\' $BANYAN_URL/tasks/' + made["_id"],
        )
    )
    assert changed["_status"] == "OK", changed
    parent = json.loads(
        curl(
            server,
            'curl -X POST  -H \'Content-Type: application/json\' -d \'{"name": "parent", '
            f'"continuations": ["{made["_id"]}"]}}\' $BANYAN_URL/tasks',
        )
    )
    assert parent["continuations"] == [made["_id"]], parent
    found = json.loads(
        curl(
            server,
            r'curl -g "$BANYAN_URL/tasks?where={\"requested_resources.cpu_memory_bytes\":'
            r'{\"\$lte\":1073741824}}&projection={\"state\":1}"',
        )
    )
    assert found["_items"], found
    assert all(item.keys() >= {"_id", "state"} for item in found["_items"])
    assert all("command" not in item for item in found["_items"])
