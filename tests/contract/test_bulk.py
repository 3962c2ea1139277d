"""Contract §5: bulk PATCH, each item for itself."""

from typing import Any

import pytest

from tests.contract.asking import make, new_id, read, refused
from tests.contract.playing import Play, at_once
from tests.harness import Server


def test_every_item_gets_its_own_updates(server: Server):
    one, two, child = (make(server.provider) for _ in range(3))
    body = [
        {"_id": one["_id"], "name": "one", "priority": "high"},
        {"_id": two["_id"], "state": "available"},
        {"_id": child["_id"], "add_continuations": [one["_id"]]},
    ]
    answer = server.provider.patch("tasks", body)
    assert answer.status_code == 200, answer.text
    assert answer.json()["_status"] == "OK"
    items = answer.json()["_items"]
    assert [(item["_id"], item["_status"]) for item in items] == [
        (task["_id"], "OK") for task in (one, two, child)
    ]
    assert (read(server.provider, one)["name"], read(server.provider, one)["priority"]) == (
        "one",
        10,
    )
    assert read(server.provider, two)["state"] == "available"
    assert read(server.provider, child)["continuations"] == [one["_id"]]


def test_where_some_fail_the_others_are_applied_and_the_answer_is_207(server: Server):
    fine, busy, stranger = make(server.provider), make(server.provider, state="available"), new_id()
    foreign = make(server.account("provider", name=new_id()))["_id"]
    body = [
        {"_id": fine["_id"], "name": "new"},
        {"_id": fine["_id"], "priority": "x"},
        {"_id": busy["_id"], "cwd": "/srv"},
        {"_id": stranger, "name": "x"},
        {"_id": foreign, "name": "x"},
        {"_id": fine["_id"], "state": "terminated"},
        {"_id": fine["_id"], "add_continuations": [stranger]},
        {"_id": fine["_id"], "owner": "me"},
        {"name": "nobody"},
        {"_id": 5},
        7,
    ]
    answer = server.provider.patch("tasks", body)
    assert answer.status_code == 207, answer.text
    assert answer.json()["_status"] == "ERR"
    items = answer.json()["_items"]
    assert len(items) == len(body)
    assert [item["_status"] for item in items] == ["OK"] + ["ERR"] * 10
    assert [item["_error"]["code"] for item in items[1:]] == [
        422, 422, 404, 404, 422, 422, 422, 422, 422, 422,
    ]  # fmt: skip
    assert [item.get("_id") for item in items[1:8]] == [one["_id"] for one in body[1:8]]
    assert items[1]["_issues"].keys() == {"priority"}
    assert items[2]["_issues"].keys() == {"cwd"}
    assert items[2]["state"] == "available"
    assert items[6]["_issues"].keys() == {"add_continuations"}
    assert items[7]["_issues"].keys() == {"owner"}
    assert read(server.provider, fine)["name"] == "new"
    assert read(server.provider, busy)["_etag"] == busy["_etag"]


def test_nothing_to_change_is_applied(server: Server):
    task = make(server.provider, name="x")
    answer = server.provider.patch("tasks", [{"_id": task["_id"], "name": "x"}])
    assert answer.status_code == 200, answer.text
    assert answer.json()["_items"][0]["_etag"] == task["_etag"]


@pytest.mark.parametrize("body", [None, {}, [], "x", 5, {"_id": "f" * 24}])
def test_it_takes_a_list(server: Server, body: Any):
    refused(server.provider.patch("tasks", body), 422, "invalid")


def test_a_thousand_items_go_in_one_request_and_more_is_413(server: Server):
    prefer = {"Prefer": "return=minimal"}
    made = server.provider.post("tasks", [{"command": "true"}] * 1000, headers=prefer).json()
    body = [{"_id": item["_id"], "tags": {"all": "yes"}} for item in made["_items"]]
    refused(server.provider.patch("tasks", [*body, body[0]]), 413, "too_large")
    assert read(server.provider, body[0]["_id"])["tags"] == {}
    answer = server.provider.patch("tasks", body, headers=prefer)
    assert answer.status_code == 200, answer.text[:500]
    assert all(item["_status"] == "OK" for item in answer.json()["_items"])
    assert read(server.provider, body[999]["_id"])["tags"] == {"all": "yes"}


def test_minimal_answers_carry_id_version_state_and_status_only(server: Server):
    task = make(server.provider)
    body = [{"_id": task["_id"], "name": "x"}]
    answer = server.provider.patch("tasks", body, headers={"Prefer": "return=minimal"})
    assert [item.keys() for item in answer.json()["_items"]] == [
        {"_id", "_etag", "state", "_status"}
    ]


def test_each_item_is_one_compare_and_set(server: Server):
    play = Play(server)
    tasks = play.submit(20)
    player = play.player()
    cancel = [{"_id": task_id, "state": "cancelled"} for task_id in tasks]
    back = [{"_id": task_id, "state": "inactive"} for task_id in tasks]

    def claims() -> Any:
        return [player.claim_one(task_id) for task_id in tasks]

    at_once([lambda: server.provider.patch("tasks", cancel), claims,
             lambda: server.provider.patch("tasks", back)])  # fmt: skip
    for task_id in tasks:
        task = play.task(task_id)
        assert task["attempt_count"] == len(play.attempts(task_id))
        assert task["state"] in ("cancelled", "pending_cancellation", "inactive", "running")
        assert (task["attempt_count"] == 1) == (
            task["state"] in ("pending_cancellation", "running")
        )


def test_a_worker_and_a_provider_are_each_held_to_their_own(server: Server):
    play = Play(server)
    [task_id] = play.submit()
    answer = server.worker.patch("tasks", [{"_id": task_id, "name": "mine"}])
    assert answer.status_code == 207
    assert answer.json()["_items"][0]["_error"]["word"] == "forbidden"
    data = {"update_execution_data": {"worker": play.player().id}}
    answer = server.provider.patch("tasks", [{"_id": task_id, "state": "running", **data}])
    assert answer.status_code == 207
    assert play.task(task_id)["state"] == "available"
