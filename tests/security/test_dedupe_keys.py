"""The dedupe_keys of running tasks: apart from their owner's, and from each other's."""

from typing import Any

import pytest
from bson import ObjectId
from pymongo.errors import DuplicateKeyError

from banyan.server.store.indexes import prepare_database
from banyan.server.store.mongo import Store
from tests.contract.playing import Player, at_once
from tests.harness import Api, Server


def running(server: Server, **fields: Any) -> tuple[str, Api]:
    """A task that runs, and what its worker may do with its token."""
    queue = f"q{ObjectId()}"
    task = {"command": "x", "state": "available", "queue": queue, **fields}
    id = server.provider.post("tasks", task).json()["_id"]
    answer = Player(server.worker, queue).claim_one(id)
    assert answer.status_code == 200, answer.text
    return id, Api(server.url, answer.json()["token"])


def test_a_rogue_worker_takes_no_key_of_the_owner(server: Server) -> None:
    _, rogue = running(server)
    key = f"nightly-{ObjectId()}"
    assert rogue.post("tasks", {"command": "false", "dedupe_key": key}).status_code == 201
    mine = {"command": "backup", "dedupe_key": key}
    stored = server.provider.post("tasks", mine)
    assert stored.status_code == 201, stored.text
    again = server.provider.post("tasks", mine)
    assert (again.status_code, again.json()["_id"]) == (200, stored.json()["_id"])


def test_a_rogue_worker_learns_nothing_of_the_owners_task(server: Server) -> None:
    key = f"nightly-{ObjectId()}"
    holder, rogue = running(server)
    queue = server.provider.get(f"tasks/{holder}").json()["queue"]
    theirs = {"command": "backup", "dedupe_key": key, "queue": queue}
    owners = server.provider.post("tasks", theirs).json()["_id"]
    for command in ("backup", "other"):
        guessed = {"command": command, "dedupe_key": key}
        answer = rogue.post("tasks", guessed)
        assert owners not in answer.text
        assert answer.status_code == (201 if command == "backup" else 409)


def test_two_tasks_have_keys_of_their_own_and_each_repeats_itself(server: Server) -> None:
    (_, one), (_, other) = running(server), running(server)
    body = {"command": "x", "dedupe_key": f"k{ObjectId()}"}
    first, second = one.post("tasks", body), other.post("tasks", body)
    assert (first.status_code, second.status_code) == (201, 201)
    again = one.post("tasks", body)
    assert (again.status_code, again.json()["_id"]) == (200, first.json()["_id"])


def test_of_what_it_has_submitted_it_is_told_no_more_when_it_repeats_itself(server: Server) -> None:
    """It may have run since, elsewhere, and its worker has the token, too."""
    _, rogue = running(server)
    body = {"command": "x", "dedupe_key": f"k{ObjectId()}"}
    made = rogue.post("tasks", body).json()["_id"]
    note = "nobody else's business"
    server.provider.patch(f"tasks/{made}", {"name": note, "tags": {"note": note}})
    for again in (body, [body, {"command": "y"}]):
        answer = rogue.post("tasks", again)
        assert made in answer.text
        assert note not in answer.text
    assert note in server.provider.get(f"tasks/{made}").text


def test_the_index_of_earlier_versions_is_replaced(fresh_database: str) -> None:
    """By several servers at one moment, and nothing that is stored is in the way."""
    prepare_database(fresh_database)
    store = Store(fresh_database)
    collection = store["tasks"]
    collection.drop_index("dedupe_by_submitter")
    collection.create_index(
        [("owner", 1), ("dedupe_key", 1)],
        name="dedupe",
        unique=True,
        partialFilterExpression={"dedupe_key": {"$type": "string"}},
    )
    submitter = ObjectId()
    collection.insert_one({"owner": "me", "dedupe_key": "mine"})  # as before there were such tasks
    collection.insert_one({"owner": "me", "dedupe_key": "its", "submitted_by": submitter})
    collection.insert_one({"owner": "me", "dedupe_key": None})
    at_once([lambda: prepare_database(fresh_database) or True] * 3)
    assert "dedupe" not in collection.index_information()
    collection.insert_one({"owner": "me", "dedupe_key": "mine", "submitted_by": submitter})
    for again in ({"submitted_by": None}, {}, {"submitted_by": submitter}):
        with pytest.raises(DuplicateKeyError):
            collection.insert_one({"owner": "me", "dedupe_key": "mine", **again})
    store.close()
