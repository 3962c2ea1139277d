"""The id of a task that was forgotten is taken by another account: that one is no relative."""

from typing import Any

import pytest
from bson import ObjectId

from tests.contract.asking import new_id
from tests.security.watched import send, submit
from tests.server.worlds import World


def ask(world: World, who: str, task: str, verb: str, body: Any = None) -> Any:
    return send(world, who, "POST", f"/tasks/{task}/{verb}", body or {})


def taken(world: World, kind: str, end: str) -> tuple[str, str]:
    """(a task of alice's that was forgotten, and is bob's now; one of alice's after it)."""
    above, below = new_id(), new_id()
    submit(world, "alice", [{"_id": above, "name": "A"}])
    submit(world, "alice", [{"_id": below, "name": "B", kind: [above]}])
    if end == "cancel":
        assert ask(world, "alice", above, "cancel").status_code == 200
    else:
        edit = {"state": "available"}
        assert send(world, "alice", "PATCH", f"/tasks/{above}", edit).status_code == 200
    assert ask(world, "alice", above, "forget").status_code == 200
    submit(world, "bob", [{"_id": above, "command": "true"}])
    return above, below


def task_of(world: World, task: str) -> Any:
    return world.store["tasks"].find_one({"_id": ObjectId(task)})


@pytest.mark.parametrize("end", ["finish", "cancel"])
def test_it_keeps_nobody_from_forgetting(world: World, end: str):
    _, below = taken(world, "after", end)
    answer = ask(world, "alice", below, "forget")
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("end", ["finish", "cancel"])
def test_nothing_that_is_retried_waits_for_it(world: World, end: str):
    above, below = taken(world, "after", end)
    assert ask(world, "alice", below, "retry").status_code == 200
    assert task_of(world, below)["open_parents"] == []
    assert task_of(world, above)["continuations"] == []
    assert task_of(world, below)["state"] != "inactive"


def test_who_has_taken_it_restores_nothing_that_was_cancelled_below_it(world: World):
    above, below = taken(world, "after", "cancel")
    assert ask(world, "bob", above, "cancel").status_code == 200
    answer = ask(world, "bob", above, "retry", {"downstream": True})
    assert answer.status_code == 200, answer.text
    assert task_of(world, below)["state"] == "cancelled"


def test_a_parent_of_somebody_else_counts_where_it_names_its_child(world: World):
    """An operator may make such edges."""
    above, below = new_id(), new_id()
    submit(world, "bob", [{"_id": above, "name": "A"}])
    submit(world, "alice", [{"_id": below, "name": "B"}])
    added = send(world, "operator", "POST", f"/tasks/{above}/add_final_continuations", [below])
    assert added.status_code == 200, added.text
    ended = {"$set": {"state": "cancelled", "ended_as": "cancelled", "unsettled": False}}
    world.store["tasks"].update_one({"_id": ObjectId(below)}, ended)
    assert ask(world, "alice", below, "forget").status_code == 422
    assert ask(world, "alice", below, "retry").status_code == 200
    assert task_of(world, below)["open_parents"] == [ObjectId(above)]
