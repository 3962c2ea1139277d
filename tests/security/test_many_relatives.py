"""Tasks with very many relatives: what ends or goes reads those that matter, a bounded number."""

from typing import Any

import pytest
from bson import ObjectId

from banyan.server import settle
from banyan.server.store import settlements, walks
from banyan.server.upkeep import retention
from tests.contract.asking import new_id
from tests.security.watched import WATCH, send, submit
from tests.server.worlds import World


class Reads:
    """How many ids came with the children each time, and how many children."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ids: list[int] = []
        waiting_for = settlements.waiting_for

        def counted(*arguments: Any) -> Any:
            found = waiting_for(*arguments)
            lists = ("open_parents", "after", "after_failure", "after_any")
            self.ids.append(sum(len(one[name]) for one in found.by_id.values() for name in lists))
            return found

        monkeypatch.setattr(settle.settlements, "waiting_for", counted)


def after_all(world: World, parents: int, children: int) -> list[str]:
    """Ids of groups that each of the children waits for."""
    above = [new_id() for _ in range(parents)]
    submit(world, "alice", [{"_id": one, "name": "p"} for one in above])
    below = {"name": "c", "command": "true", "state": "available", "after": above}
    submit(world, "alice", [below] * children)
    return above


def test_one_end_reads_nothing_of_the_other_parents(world: World, monkeypatch: pytest.MonkeyPatch):
    """A million ids came with ten thousand children, where one parent of each had ended."""
    above = after_all(world, 40, 30)
    reads = Reads(monkeypatch)
    assert (
        send(world, "alice", "PATCH", f"/tasks/{above[0]}", {"state": "available"}).status_code
        == 200
    )
    assert max(reads.ids) == 2 * 30
    assert world.store["tasks"].count_documents({"pending_dependency_count": 39}) == 30


@pytest.mark.parametrize("end", ["cancel", "finish"])
def test_what_is_read_together_is_bounded_by_the_edges(
    world: World, monkeypatch: pytest.MonkeyPatch, end: str
):
    above = after_all(world, 20, 30)
    monkeypatch.setattr(settlements, "IDS_AT_ONCE", 200)
    reads = Reads(monkeypatch)
    if end == "cancel":
        answer = send(world, "alice", "POST", "/tasks/cancel", {"targets": above})
    else:
        edits = [{"_id": one, "state": "available"} for one in above]
        answer = send(world, "alice", "PATCH", "/tasks", edits)
    assert answer.status_code == 200
    assert 0 < max(reads.ids) <= 200
    tasks = world.store["tasks"]
    state = "cancelled" if end == "cancel" else "available"
    assert tasks.count_documents({"name": "c", "state": state}) == 30
    assert tasks.find_one({"unsettled": True}) is None
    if end == "cancel":
        assert tasks.find_one({"name": "p", "continuations": {"$ne": []}}) is None


def test_parents_that_have_not_ended_hold_up_no_other(
    world: World, monkeypatch: pytest.MonkeyPatch
):
    """Their children, however many, are read once; whose end is to be told comes next."""
    open_one, ended = after_all(world, 1, 30)[0], after_all(world, 1, 3)[0]
    monkeypatch.setattr(settlements, "IDS_AT_ONCE", 20)
    mark = {"state": "terminated", "ended_as": "success", "unsettled": True}
    world.store["tasks"].update_one({"_id": ObjectId(ended)}, {"$set": mark})
    asked = [ObjectId(open_one), ObjectId(ended)]
    assert len(settle.settle_ended(world.store, asked, 60)) == 3


# --- Going --------------------------------------------------------------------------------


LISTS = {"continuations", "after", "open_parents"}


def lists_read() -> int:
    """How many commands since the reset asked tasks for their lists, or for all they have."""
    asked = [one.get("projection") or {} for one in WATCH.commands if one.get("find") == "tasks"]
    return sum(bool(LISTS & set(p) if any(p.values()) else LISTS - set(p)) for p in asked)


def test_who_forgets_what_has_not_ended_reads_no_lists(world: World):
    """Eight such requests of 27 KB had all neighbours in memory, and took a gigabyte."""
    above = after_all(world, 20, 30)
    WATCH.reset()
    answer = send(world, "alice", "POST", "/tasks/forget", {"targets": above})
    assert answer.status_code == 422
    assert lists_read() == 0


def finished(world: World, ids: list[str]) -> None:
    edits = [{"_id": one, "state": "available"} for one in ids]
    assert send(world, "alice", "PATCH", "/tasks", edits).status_code == 200


def test_neighbours_of_what_is_forgotten_are_asked_for_once(world: World):
    above = after_all(world, 20, 30)
    finished(world, above)
    children = {"name": "c"}
    world.store["tasks"].update_many(children, {"$set": {"state": "terminated"}})
    WATCH.reset()
    answer = send(world, "alice", "POST", "/tasks/forget", {"targets": above})
    assert answer.status_code == 200
    asked = sum(
        len(one["filter"]["_id"]["$in"])
        for one in WATCH.commands
        if one.get("find") == "tasks" and "$nin" in str(one["filter"])
    )
    assert asked == 30


def test_who_forgets_what_has_too_many_neighbours_names_fewer(
    world: World, monkeypatch: pytest.MonkeyPatch
):
    above = after_all(world, 4, 30)
    finished(world, above)
    monkeypatch.setattr(walks, "READ_TOGETHER_MAX", 100)
    WATCH.reset()
    answer = send(world, "alice", "POST", "/tasks/forget", {"targets": above})
    assert answer.status_code == 413
    assert "name fewer" in answer.json["_error"]["message"]
    assert lists_read() == 0


def test_retention_goes_by_the_neighbours():
    tasks = [
        {"_id": ObjectId(), "neighbour_count": count} for count in (10, 60_000, 30_000, 20_000)
    ]
    pieces = list(retention._pieces(tasks))
    assert [len(piece) for piece in pieces] == [1, 1, 2]
    assert [one for piece in pieces for one in piece] == [task["_id"] for task in tasks]
