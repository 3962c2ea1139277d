"""Graphs with as many edges as there can be: what they cost grows with the edges, and no faster."""

from collections.abc import Iterator
from typing import Any

import pytest
from bson import ObjectId

from banyan.client.graph import EDGES, in_requests
from banyan.server.schemas.tasks import EDGES_IN_REQUEST_MAX
from tests.contract.asking import new_id
from tests.security.watched import WATCH, send
from tests.server.worlds import World

LOOKED_UP_PER_EDGE_MAX = 40


@pytest.fixture
def world(fresh_database: str) -> Iterator[World]:
    made = World(fresh_database)
    yield made
    made.store.close()


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
    edges = sum(len(task["after"]) for task in tasks)
    lookups = Lookups(monkeypatch)
    assert send(world, "alice", "POST", "/tasks", tasks).status_code == 201
    assert lookups.count < LOOKED_UP_PER_EDGE_MAX * edges


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
    assert str(EDGES_IN_REQUEST_MAX) in answer.json["_error"]["message"]
    assert WATCH.counts["find"] == 1  # its token


def test_what_the_client_sends_stays_below_that():
    some = [new_id() for _ in range(1000)]
    tasks = [{"name": "t", "after": some, "after_any": some[:1]} for _ in range(250)]
    pieces = list(in_requests(tasks, range(len(tasks))))
    assert EDGES == EDGES_IN_REQUEST_MAX
    assert [len(piece) for piece in pieces] == [99, 99, 52]
