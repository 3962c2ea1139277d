"""Queries that people shape: so long, and no longer, does the database work on one of them."""

import json
from typing import Any

import pytest
from bson import ObjectId
from pymongo.errors import NetworkTimeout, ServerSelectionTimeoutError

from banyan.config import knobs
from banyan.server import queries
from banyan.server.store import statistics
from tests.contract.asking import new_id
from tests.security.watched import WATCH, send, submit
from tests.server.worlds import World

READING = {"find", "aggregate", "distinct", "count"}


def ask(world: World, who: str, path: str, **arguments: Any) -> Any:
    headers = {"Authorization": f"Bearer {world.tokens[who]}"}
    texts = {
        name: value if isinstance(value, str) else json.dumps(value)
        for name, value in arguments.items()
    }
    return world.client.get(path, headers=headers, query_string=texts)


def reads() -> list[Any]:
    """What was read but for the token."""
    found = [one for one in WATCH.commands if READING & one.keys()]
    return [one for one in found if one.get("find") != "tokens"]


def item_of(world: World, resource: str) -> Any:
    if resource == "tasks":
        return send(world, "alice", "POST", "/tasks", {"command": "true"}).json["_id"]
    if resource == "workers":
        body = {"host": "h", "resources": {"cores": 1, "memory": "1 GiB"}}
        return send(world, "worker", "POST", "/workers", body).json["_id"]
    return new_id()


def readings(world: World) -> list[tuple[str, str]]:
    """Every (resource, address) that is read, of the whole table."""
    found = []
    for rule in world.client.application.url_map.iter_rules():
        resource = rule.rule.split("/")[1]
        if "GET" in (rule.methods or ()) and resource in world.client.application.config["DOMAIN"]:
            found.append((resource, rule.rule))
    return found


def test_every_read_is_limited_in_time(world: World):
    world.tokens["admin"] = world._token("admin", "admin")
    ids = {name: item_of(world, name) for name in ("tasks", "workers", "attempts", "accounts")}
    limited = 0
    for resource, rule in readings(world):
        path = rule.partition("<")[0] + (
            ids[resource] + rule.partition(">")[2] if "<" in rule else ""
        )
        who = "admin" if resource == "accounts" else "operator"
        WATCH.reset()
        answer = ask(world, who, path)
        assert answer.status_code in (200, 404), (path, answer.text)
        for command in reads():
            most = knobs().QUERY_SECONDS_MAX * 1000
            assert 0 < command.get("maxTimeMS", 0) <= most, (path, command)
            limited += 1
    assert limited > 20


def test_counts_in_other_threads_are_limited_too(world: World):
    for queue in ("one", "two", "three"):
        submit(world, "alice", [{"command": "true", "queue": queue}])
    WATCH.reset()
    assert ask(world, "alice", "/tasks/statistics", by="queue").json["count"] == 3
    counts = [one for one in reads() if "aggregate" in one]
    assert len(counts) == 3
    assert all(one["maxTimeMS"] for one in counts)


def test_the_limit_ends_with_its_request(world: World):
    assert ask(world, "alice", "/tasks").status_code == 200
    WATCH.reset()
    task = send(world, "alice", "POST", "/tasks", {"command": "true"}).json["_id"]
    assert send(world, "alice", "POST", f"/tasks/{task}/cancel").status_code == 200
    assert not [one for one in WATCH.commands if "maxTimeMS" in one]


HEAVY = {"$or": [{f"tags.t{number}": "x"} for number in range(250)]}


@pytest.fixture
def busy(world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """Two thousand tasks with sixty tags each, and little time to look at them."""
    tags = {f"t{number}": "y" * 50 for number in range(64)}
    submit(world, "alice", [{"command": "true", "tags": tags} for _ in range(2000)])
    ask(world, "alice", "/tasks", max_results="1")
    monkeypatch.setattr(knobs(), "QUERY_SECONDS_MAX", 0.02)
    return world


@pytest.mark.parametrize("path", ["/tasks", "/tasks/statistics"])
def test_who_asks_for_too_much_is_told_to_narrow_it(busy: World, path: str):
    answer = ask(busy, "alice", path, where=HEAVY)
    assert answer.status_code == 400
    assert answer.json["_error"]["word"] == "bad_request"
    assert "narrow it" in answer.json["_error"]["message"]


def test_who_asks_for_certain_tasks_is_told_to_come_again(busy: World):
    """A program that waits for its tasks goes on when the database is quicker again."""
    answer = ask(busy, "alice", "/tasks", where={"_id": {"$gte": "0" * 24}, **HEAVY})
    assert answer.status_code == 503
    assert answer.headers["Retry-After"]


CONDITIONS: dict[str, Any] = {
    "or": {"$or": [{"name": str(number)} for number in range(300)]},
    "nested": {"$or": [{"$and": [{"name": "x"}] * 20}] * 20},
    "nor": {"$nor": [{"name": {"$ne": "x"}}] * 300},
    "all": {"name": {"$all": ["x"] * 300}},
    "several": {"$and": [{"name": "x", "priority": {"$gt": 1, "$lt": 5}}] * 100},
}


@pytest.mark.parametrize("kind", list(CONDITIONS))
@pytest.mark.parametrize("path", ["/tasks", "/tasks/statistics", "/attempts"])
def test_conditions_are_bounded_in_all(world: World, kind: str, path: str):
    where = CONDITIONS[kind]
    if path == "/attempts":
        where = json.loads(
            json.dumps(where).replace('"name"', '"queue"').replace("priority", "signal")
        )
    WATCH.reset()
    answer = ask(world, "alice", path, where=where)
    assert answer.status_code == 400
    assert str(queries.CONDITIONS_MAX) in answer.json["_error"]["message"]
    assert not reads()


def test_so_many_are_fine_and_a_list_of_values_is_one(world: World):
    ids = [str(ObjectId()) for _ in range(1000)]
    for where in (
        {"$or": [{"name": str(number)} for number in range(queries.CONDITIONS_MAX)]},
        {"_id": {"$in": ids}, "name": {"$nin": ids[:500]}},
    ):
        assert ask(world, "alice", "/tasks", where=where).status_code == 200


def test_a_database_that_is_away_is_not_taken_for_a_slow_query(
    busy: World, monkeypatch: pytest.MonkeyPatch
):
    def nobody_there() -> None:
        raise ServerSelectionTimeoutError("no primary")

    monkeypatch.setattr(busy.store, "ping", nobody_there)
    monkeypatch.setattr("banyan.server.queries.parse_sort", Raising(NetworkTimeout("timed out")))
    answer = ask(busy, "alice", "/tasks", where=HEAVY)
    assert (answer.status_code, answer.json["_error"]["word"]) == (503, "unavailable")


class Raising:
    def __init__(self, error: Exception) -> None:
        self.error = error

    def __call__(self, *arguments: Any) -> Any:
        raise self.error


def test_groups_are_bounded(world: World, monkeypatch: pytest.MonkeyPatch):
    """Of a name for each task the answer would hold all of them."""
    submit(world, "alice", [{"command": "true", "name": f"n{number}"} for number in range(20)])
    monkeypatch.setattr(statistics, "GROUPS_MAX", 19)
    answer = ask(world, "alice", "/tasks/statistics", by="name")
    assert answer.status_code == 400
    assert "narrow" in answer.json["_error"]["message"]
    where = {"name": {"$ne": "n1"}}
    assert (
        len(ask(world, "alice", "/tasks/statistics", by="name", where=where).json["by_name"]) == 19
    )
