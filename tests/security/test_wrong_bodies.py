"""Bodies in which much is wrong: saying so costs no more than storing them would.

Cerberus, which says what is wrong, takes up to a millisecond for each part that it looks at. So
what it is shown is counted here, of one whole request.
"""

from collections.abc import Callable
from typing import Any

import pytest

from banyan.domain.resources import OWN_GPUS_MAX
from banyan.server import quick, sparing, validation
from banyan.server.verbs import submit
from tests.contract.asking import new_id, refused
from tests.contract.playing import at_once
from tests.harness import Server
from tests.server.worlds import World

Shown = list[Any]
# Of one request: ten documents, each with as much as one may be told of.
PARTS_MAX = 400
ANSWER_BYTES_MAX = 300_000


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> Shown:
    """The documents that Cerberus has looked at."""
    documents: Shown = []
    ask = validation._ask

    def counted(validator: Any, document: Any, update: bool) -> Any:
        documents.append(document)
        return ask(validator, document, update)

    monkeypatch.setattr(validation, "_ask", counted)
    return documents


def parts(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + sum(map(parts, value.values()))
    return 1 + sum(map(parts, value)) if isinstance(value, list) else 1


def send(world: World, who: str, method: str, path: str, body: Any) -> Any:
    headers = {"Authorization": f"Bearer {world.tokens[who]}"}
    return world.client.open(path, method=method, json=body, headers=headers)


def wrong_task() -> dict[str, Any]:
    """64 tags and 256 values of the environment, none of them valid."""
    return {
        "command": "true",
        "tags": {f"tag{number}": number for number in range(64)},
        "env": {f"NAME{number}": number for number in range(256)},
    }


WRONG: dict[str, Callable[[], Any]] = {
    "tags and env": wrong_task,
    "labels": lambda: {"labels": {f"label {number}": 1 for number in range(64)}},
    "one unknown field": lambda: {"x": 1},
    "unknown fields": lambda: {f"x{number}": 1 for number in range(3000)},
    "resources": lambda: {"requested_resources": {f"x{number}": 1 for number in range(1000)}},
    "gpus": lambda: {"requested_resources": {"gpus": [{"a": 1, "b": 2}] * 200}},
    "custom": lambda: {"requested_resources": {"custom": {f"c{n}": -1 for n in range(64)}}},
    "edges": lambda: {"after": ["x"] * 250, "after_any": [new_id()] * 250},
    "command": lambda: {"command": [1] * 3000},
    "read-only": lambda: {"progress": {f"x{number}": 1 for number in range(1000)}},
    "a number": lambda: 7,  # type: ignore[dict-item]
}


def check_cost(answer: Any, shown: Shown) -> None:
    assert len(shown) <= validation.DOCUMENTS_TOLD_MAX
    assert parts(shown) <= PARTS_MAX
    assert len(answer.data) < ANSWER_BYTES_MAX


@pytest.mark.parametrize("kind", list(WRONG))
def test_a_list_of_wrong_tasks_is_refused_by_its_first_ones(world: World, shown: Shown, kind: str):
    count = 200
    answer = send(world, "alice", "POST", "/tasks", [WRONG[kind]() for _ in range(count)])
    check_cost(answer, shown)
    assert answer.status_code == 422
    told = answer.json["_issues"]
    assert list(told) == [str(number) for number in range(len(told))]
    assert 1 <= len(told) <= validation.DOCUMENTS_TOLD_MAX
    assert f"{count - len(told)} more items are wrong, too" in answer.json["_error"]["message"]


def test_the_first_ten_wrong_items_are_named_by_item_and_field(world: World, shown: Shown):
    bodies = [{"command": "true", **({"priority": "x"} if n % 2 else {})} for n in range(100)]
    answer = send(world, "alice", "POST", "/tasks", bodies)
    assert list(answer.json["_issues"]) == [str(number) for number in range(1, 20, 2)]
    assert all(list(one) == ["priority"] for one in answer.json["_issues"].values())
    assert "; 40 more items are wrong, too" in answer.json["_error"]["message"]
    assert len(shown) == 10
    assert world.store["tasks"].find_one() is None


@pytest.mark.parametrize("kind", list(WRONG))
def test_wrong_changes_of_many_tasks_cost_no_more(world: World, shown: Shown, kind: str):
    good = send(world, "alice", "POST", "/tasks", {"command": "true"}).json
    wrong = WRONG[kind]()
    fields = wrong if isinstance(wrong, dict) else {"name": wrong}
    bodies = [{"_id": new_id(), **fields} for _ in range(200)]
    right = {"_id": good["_id"], "priority": 5, "tags": {"a": "b"}, "retain": "1 day"}
    answer = send(world, "alice", "PATCH", "/tasks", [*bodies, right])
    check_cost(answer, shown)
    assert answer.status_code == 207
    *refusals, last = answer.json["_items"]
    assert {one["_error"]["word"] for one in refusals} == {"invalid"}
    assert all(one["_issues"] for one in refusals)
    assert (last["_status"], last["priority"]) == ("OK", 5)  # each item for itself


def test_wrong_values_of_the_collection_form_cost_no_more(world: World, shown: Shown):
    entries = [{"targets": [new_id()], "values": ["x"] * 500} for _ in range(128)]
    answer = send(world, "alice", "POST", "/tasks/add_continuations", entries)
    assert answer.status_code == 422
    check_cost(answer, shown)


UNKNOWN = [f"x{number}" for number in range(16)]
WORKERS: dict[str, tuple[str, Any]] = {
    "gpus": ("/workers", {"host": "h", "resources": {"cores": 1, "memory": 1,
                                                     "gpus": [dict.fromkeys(UNKNOWN, 1)] * 64}}),
    "queues": ("/workers", {"host": "h", "resources": {"cores": 1, "memory": 1},
                            "queues": [5] * 64}),
    "labels": ("/workers", {"host": "h", "resources": {"cores": 1, "memory": 1},
                            "labels": {f"l{number}": 1 for number in range(64)}}),
    "beat": ("/workers/{id}/beat", {"attempts": ["x"] * 99_999}),
    "used": ("/workers/{id}/beat", {"used": {f"x{number}": 1 for number in range(50_000)}}),
    "claims": ("/workers/{id}/beat", {"claims": [{"a": 1}] * 100}),
    "fits": ("/tasks/claim", {"worker": "{id}", "fits": {f"x{n}": n for n in range(50_000)}}),
    "custom": ("/tasks/claim", {"worker": "{id}", "fits": {"custom": {f"x{n}": -1
                                                                      for n in range(64)}}}),
}  # fmt: skip


@pytest.mark.parametrize("kind", list(WORKERS))
def test_wrong_bodies_of_workers_cost_no_more(world: World, shown: Shown, kind: str):
    path, body = WORKERS[kind]
    worker = {"host": "h", "resources": {"cores": 1, "memory": "1 GiB"}}
    made = send(world, "worker", "POST", "/workers", worker).json["_id"]
    body = {name: made if value == "{id}" else value for name, value in body.items()}
    answer = send(world, "worker", "POST", path.format(id=made), body)
    assert answer.status_code == 422, answer.text[:500]
    assert answer.json["_issues"]
    check_cost(answer, shown)


def test_a_worker_with_many_gpus_needs_no_thorough_look(world: World, shown: Shown):
    gpus = [{"memory": "8 GiB", "compute_capability": "7.5", "uuid": "u"}] * OWN_GPUS_MAX
    worker = {"host": "h", "resources": {"cores": 1, "memory": 1, "gpus": gpus}}
    assert send(world, "worker", "POST", "/workers", worker).status_code == 201
    assert shown == []


REPORTS: dict[str, Any] = {
    "log": {"log": [{"offset": -1, "x": 1}] * 300},
    "unknown in samples": {"memory_usage": [{f"x{n}": 1 for n in range(1000)}] * 30},
    "messages": {"messages": [{"text": 5}] * 1000},
    "several": {"reason": 5, "time_started": "x", "exit_status": "?", "cpu_seconds": -1},
}


@pytest.mark.parametrize("kind", list(REPORTS))
def test_wrong_reports_of_many_attempts_cost_no_more(world: World, shown: Shown, kind: str):
    data = {"token": "t", **REPORTS[kind]}
    bodies = [{"_id": new_id(), "update_execution_data": data} for _ in range(30)]
    answer = send(world, "worker", "PATCH", "/tasks", bodies)
    assert {one["_error"]["word"] for one in answer.json["_items"]} == {"invalid"}
    check_cost(answer, shown)


def test_of_each_object_a_few_wrong_values_are_named(world: World, shown: Shown):
    answer = send(world, "alice", "POST", "/tasks", wrong_task())
    issues = answer.json["_issues"]
    assert issues.keys() == {"tags", "env"}
    assert [len(issues[name]) for name in ("tags", "env")] == [8, 8]
    check_cost(answer, shown)


def test_a_field_of_which_too_much_is_wrong_is_only_said_to_be(world: World, shown: Shown):
    lists = {
        name: ["x"] * 100
        for name in (
            "after",
            "after_any",
            "after_failure",
            "continuations",
            "failure_continuations",
            "final_continuations",
        )
    }
    words = {name: {f"n{n}": 1 for n in range(64)} for name in ("tags", "labels", "env")}
    answer = send(world, "alice", "POST", "/tasks", {**lists, **words, "priority": "x"})
    assert answer.json["_issues"].keys() == {*lists, *words, "priority"}
    told = [name for name, one in answer.json["_issues"].items() if "is told first" in str(one)]
    assert told
    assert parts(shown) <= sparing.PARTS_MAX + len(lists) + len(words) + 2


VALUES: list[Any] = [
    None, "", 0, 1, -1, 1.0, 1.5, True, "x", "a b", "x" * 300, [], {}, ["a"], [""], {"a": "b"},
    {"a": 1}, {"A": {"secret": "x"}}, {"secret": "x"}, "1 GiB", "10 minutes", 10**9 + 1, 2**53 + 1,
    new_id(), [new_id()], [new_id()] * 2, ["x" * 24], "2026-01-01T00:00:00Z", "high", "forever",
    {"cores": 1, "memory": "1 GiB"}, {"gpus": [{"memory": "1 GiB"}]}, "available", "running",
    {"done": 1}, 1e300,
]  # fmt: skip


@pytest.mark.parametrize("name", list(submit._CREATE_SCHEMA))
def test_what_the_quick_check_doubts_is_wrong(name: str):
    """So that it may be believed where Cerberus is asked no more."""
    schema = submit._CREATE_SCHEMA
    for value in VALUES:
        checked, issues = validation._ask(validation._validator(schema), {name: value}, False)
        try:
            quickly = validation._quick_check(schema)({name: value})
        except quick.Unsure:
            assert issues, value
        else:
            assert (issues, checked) == ({}, quickly), value


def test_others_are_served_while_wrong_bodies_come(server: Server):
    """Eight at once, each of a thousand wrong tasks, held all others up for 20 s and more."""
    bob = server.account("provider", name="bob")
    bad = [wrong_task() for _ in range(1000)]
    calls: list[Callable[[], Any]] = [lambda: server.provider.post("tasks", bad)] * 4
    *refusals, listed = at_once([*calls, lambda: bob.get("tasks?max_results=1")])
    assert listed.status_code == 200
    assert listed.elapsed.total_seconds() < 15
    for one in refusals:
        assert len(refused(one, 422, "invalid")) <= validation.DOCUMENTS_TOLD_MAX
