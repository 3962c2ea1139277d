"""Graphs with as many edges as there can be: what they cost grows with the edges, and no faster."""

from types import SimpleNamespace
from typing import Any

import pytest
from bson import ObjectId
from pymongo import timeout

from banyan.client.graph import EDGES, in_requests
from banyan.domain import continuations
from banyan.errors import BanyanError
from banyan.server import submitters
from banyan.server.calls import Caller
from banyan.server.schemas.tasks import EDGES_IN_REQUEST_MAX
from banyan.server.store import edges, walks
from tests.contract.asking import new_id
from tests.security.watched import WATCH, send, submit
from tests.server.worlds import World

LOOKED_UP_PER_EDGE_MAX = 40


class Lookups:
    """How often an id was looked up in a dictionary or a set, and compared with another."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        hash_of, equal = ObjectId.__hash__, ObjectId.__eq__

        def counted_hash(one: ObjectId) -> int:
            self.count += 1
            return hash_of(one)

        def counted_equal(one: ObjectId, other: Any) -> bool:
            self.count += 1
            return equal(one, other)

        monkeypatch.setattr(ObjectId, "__hash__", counted_hash)
        monkeypatch.setattr(ObjectId, "__eq__", counted_equal)


def each_after_all_before(count: int) -> list[dict[str, Any]]:
    ids = [new_id() for _ in range(count)]
    return [{"_id": one, "name": "t", "after": ids[:place]} for place, one in enumerate(ids)]


def test_a_task_after_each_one_before_it_costs_what_its_edges_cost(
    world: World, monkeypatch: pytest.MonkeyPatch
):
    tasks = each_after_all_before(200)
    count = sum(len(task["after"]) for task in tasks)
    lookups = Lookups(monkeypatch)
    assert send(world, "alice", "POST", "/tasks", tasks).status_code == 201
    assert lookups.count < LOOKED_UP_PER_EDGE_MAX * count


def test_so_do_parents_that_have_ended(world: World, monkeypatch: pytest.MonkeyPatch):
    parents = [{"_id": new_id(), "name": "p", "state": "available"} for _ in range(300)]
    ids = [parent["_id"] for parent in parents]
    assert send(world, "alice", "POST", "/tasks", parents).status_code == 201
    ended = [{"_id": one, "state": "terminated"} for one in ids]
    assert send(world, "alice", "PATCH", "/tasks", ended).status_code == 200
    lookups = Lookups(monkeypatch)
    children = [{"name": "c", "after_any": ids} for _ in range(20)]
    assert send(world, "alice", "POST", "/tasks", children).status_code == 201
    assert lookups.count < LOOKED_UP_PER_EDGE_MAX * len(ids) * len(children)


def test_how_many_edges_a_request_may_name_is_bounded(world: World):
    some = [str(ObjectId()) for _ in range(1000)]
    tasks = [{"name": "t", "after": some} for _ in range(EDGES_IN_REQUEST_MAX // 1000)]
    tasks[0]["continuations"] = [new_id()]
    WATCH.reset()
    answer = send(world, "alice", "POST", "/tasks", tasks)
    assert answer.status_code == 413
    assert f"{EDGES_IN_REQUEST_MAX:,}" in answer.json["_error"]["message"]
    assert WATCH.counts["find"] == 1  # its token


def test_what_the_client_sends_stays_below_that():
    some = [new_id() for _ in range(1000)]
    tasks = [{"name": "t", "after": some, "after_any": some[:1]} for _ in range(250)]
    pieces = list(in_requests(tasks, range(len(tasks))))
    assert EDGES == EDGES_IN_REQUEST_MAX
    assert [len(piece) for piece in pieces] == [99, 99, 52]


def parents_left(world: World, count: int, gone: slice) -> tuple[list[ObjectId], list[ObjectId]]:
    """(the parents of a task, those of them that are left once some were taken off)."""
    parents = [ObjectId() for _ in range(count)]
    fields = {"after": [], "after_failure": [], "after_any": parents, "open_parents": parents}
    collection = world.store["lists"]
    child = collection.insert_one({"_id": ObjectId(), **fields}).inserted_id
    taken = parents[gone]
    with timeout(60):
        pipeline = edges.without_parents(taken, {"after_any": taken})
        collection.update_one({"_id": child}, pipeline)
        found = collection.find_one({"_id": child}) or {}
    assert found["open_parents"] == found["after_any"]
    return parents, found["after_any"]


def test_taking_off_thousands_of_very_many_parents_costs_what_they_are(world: World):
    """Each was compared with each in the database, and the request ran into its end."""
    parents, left = parents_left(world, 200_000, slice(0, 200_000, 2))
    assert left == parents[1::2]


def test_a_list_of_changes_may_name_no_more_edges(world: World):
    some = [str(ObjectId()) for _ in range(1000)]
    changes = [{"_id": new_id(), "remove_continuations": some} for _ in range(100)]
    changes[0]["add_final_continuations"] = [new_id()]
    WATCH.reset()
    answer = send(world, "alice", "PATCH", "/tasks", changes)
    assert answer.status_code == 413
    assert not any("tasks" in list(one.values()) for one in WATCH.commands)


@pytest.mark.parametrize("body", [{"priority": 5}, {"add_continuations": [new_id()]}])
def test_tasks_with_very_long_lists_are_not_read_together(
    world: World, monkeypatch: pytest.MonkeyPatch, body: dict[str, Any]
):
    """A thousand of them named millions, which one small request had in memory."""
    parents = [new_id() for _ in range(3)]
    children = [{"name": "c", "after": parents} for _ in range(10)]
    submit(world, "alice", [{"_id": one, "name": "p"} for one in parents])
    submit(world, "alice", children)
    monkeypatch.setattr(walks, "READ_TOGETHER_MAX", 25)
    if "priority" in body:
        changes = [{"_id": one, **body} for one in parents]
        answer = send(world, "alice", "PATCH", "/tasks", changes)
    else:
        other = chain_of_one(world)
        collection = [{"targets": parents, "values": [other]}]
        answer = send(world, "alice", "POST", "/tasks/add_continuations", collection)
    assert answer.status_code == 413
    assert "fewer" in answer.json["_error"]["message"]
    for one in parents:
        assert send(world, "alice", "PATCH", f"/tasks/{one}", {"priority": 5}).status_code == 200


def chain_of_one(world: World) -> str:
    one = new_id()
    submit(world, "alice", [{"_id": one, "name": "o"}])
    return one


def test_parents_of_new_tasks_are_read_without_their_lists(world: World):
    parent = chain_of_one(world)
    submit(world, "alice", [{"name": "c", "after": [parent]} for _ in range(20)])
    WATCH.reset()
    submit(world, "alice", [{"name": "c", "after": [parent]}])
    read = [one for one in WATCH.commands if "find" in one and one["find"] == "tasks"]
    assert read
    assert all(any(one["projection"].values()) for one in read), "of the others all is read"
    assert not any("continuations" in one["projection"] for one in read)


def test_what_stays_is_looked_at_once_for_each_edge_at_a_retry(
    world: World, monkeypatch: pytest.MonkeyPatch
):
    """A task below many that stay was looked at, with all its edges, for each of them."""
    first, blocked = chain_of_one(world), chain_of_one(world)
    between = [new_id() for _ in range(50)]
    bottom = [{"name": "b", "after_any": between, "after": [first]}]
    submit(
        world, "alice", [{"_id": one, "name": "m", "after": [first, blocked]} for one in between]
    )
    submit(world, "alice", bottom)
    for one in (first, blocked):
        assert send(world, "alice", "POST", f"/tasks/{one}/cancel").status_code == 200
    asked = 0
    satisfied = continuations.satisfied

    def counted(*arguments: Any) -> bool:
        nonlocal asked
        asked += 1
        return satisfied(*arguments)

    monkeypatch.setattr(continuations, "satisfied", counted)
    answer = send(world, "alice", "POST", f"/tasks/{first}/retry", {"downstream": True})
    assert answer.status_code == 200
    assert asked <= 2 * (2 * len(between) + len(between) + 1)
    found = world.store["tasks"].find_one({"name": "b"}) or {}
    assert found["state"] != "cancelled"
    assert world.store["tasks"].count_documents({"name": "m", "state": "cancelled"}) == 50


def test_the_secrets_of_a_task_that_submits_are_gathered_once(monkeypatch: pytest.MonkeyPatch):
    """It may have thousands of them, and submit a thousand tasks."""
    own = {"queue": "q", "labels": {}, "priority": 0, "env": {"A": {"secret": "a"}}}
    monkeypatch.setattr(submitters, "_own", lambda call: own)
    gathered = []
    secrets = submitters._secrets

    def counted(env: dict[str, Any]) -> set[str]:
        gathered.append(env)
        return secrets(env)

    monkeypatch.setattr(submitters, "_secrets", counted)
    caller = Caller("alice", frozenset({"task"}), ObjectId(), ObjectId())
    call: Any = SimpleNamespace(caller=caller, body=[])
    assert len(submitters.bounded(call, [{"env": {"B": {"secret": "a"}}}] * 50)) == 50
    assert gathered.count(own["env"]) == 1
    with pytest.raises(BanyanError):
        submitters.bounded(call, [{"env": {"B": {"secret": "b"}}}])
