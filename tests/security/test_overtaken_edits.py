"""Edits of one task come one after the other, and what is worked out from it is that of the last.

A task that is found under the shape of others is given to whoever may have those, with its
environment; and the shape's meaning, once forgotten, is learnt from it.
"""

from collections.abc import Callable
from typing import Any

import pytest
from bson import ObjectId

from banyan.domain import continuations, lifecycle
from banyan.server.shapes import SHAPES, of_task
from banyan.server.store import edges, settlements, tasks
from banyan.server.store.mongo import now
from banyan.server.verbs import link, release
from tests.contract.playing import Play, Player, word
from tests.contract.playing import play as play
from tests.server.explained import Bench

LABELS = {"labels": {"site": "b"}}
EDITS: list[dict[str, Any]] = [
    {"queue": "elsewhere"},
    {"requested_resources": {"cores": 1000}},
    LABELS,
]


@pytest.fixture
def bench(fresh_database: str) -> Bench:
    return Bench(fresh_database)


def made(bench: Bench, **fields: Any) -> str:
    return str(bench.ask("provider", "POST", "/tasks", {"command": "x", **fields})["_id"])


def stored(bench: Bench, task: str) -> dict[str, Any]:
    return bench.store["tasks"].find_one({"_id": ObjectId(task)}) or {}


def edit(bench: Bench, task: str, fields: dict[str, Any]) -> None:
    bench.ask("provider", "PATCH", f"/tasks/{task}", fields)


def test_several_of_one_list_are_made_one_after_the_other(bench: Bench) -> None:
    task = made(bench)
    bench.ask("provider", "PATCH", "/tasks", [{"_id": task, **fields} for fields in EDITS])
    found = stored(bench, task)
    assert found["shape"] == of_task(found)
    assert (found["queue"], found["labels"]) == ("elsewhere", LABELS["labels"])
    assert found["requested_resources"] != stored(bench, made(bench))["requested_resources"]


def test_what_has_lost_its_command_is_not_made_available(bench: Bench) -> None:
    task = made(bench)
    items = [{"_id": task, "command": None}, {"_id": task, "state": "available"}]
    bench.ask("provider", "PATCH", "/tasks", items)
    assert stored(bench, task)["state"] == "terminated", "a group has nothing to wait for"


def test_a_list_edits_no_task_without_end(bench: Bench) -> None:
    task = made(bench)
    items = [{"_id": task, "priority": number} for number in range(100)]
    headers = {"Authorization": f"Bearer {bench.tokens['provider']}"}
    answer = bench.client.patch("/tasks", json=items, headers=headers)
    assert answer.status_code == 207
    last = answer.json["_items"][-1]
    assert (last["_error"]["word"], list(last["_issues"])) == ("invalid", ["_id"])


@pytest.mark.parametrize("state", ["inactive", "available"])
def test_who_was_overtaken_decides_anew(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, state: str
) -> None:
    task, apply = made(bench, state=state), tasks.apply
    also = {"state": "available"} if state == "available" else {}

    def overtaken(*arguments: Any) -> Any:
        monkeypatch.setattr(tasks, "apply", apply)
        edit(bench, task, {"queue": "elsewhere", **also})
        return apply(*arguments)

    monkeypatch.setattr(tasks, "apply", overtaken)
    edit(bench, task, {**LABELS, **also})
    found = stored(bench, task)
    assert (found["queue"], found["labels"]) == ("elsewhere", LABELS["labels"])
    assert found["shape"] == of_task(found)


CHANGES: list[Callable[[dict[str, Any]], Any]] = [
    lambda task: lifecycle.move(task, lifecycle.State.INACTIVE, now()),
    lambda task: lifecycle.edit_where_it_waits(task, {"queue": "elsewhere"}, now()),
]


@pytest.mark.parametrize("change", CHANGES)
def test_a_claim_that_has_read_it_before_loses(bench: Bench, change: Any) -> None:
    """Also where the task waits again by then."""
    task = stored(bench, made(bench, state="available"))
    worker = {"attempt": ObjectId(), "worker": ObjectId(), "account": "w", "granted": {}}
    claim = lifecycle.claim(task, worker, {})
    held = lifecycle.as_edit(task, change(task))
    again = {**task, **held.set, "state": "available"}
    assert isinstance(claim, lifecycle.Change)
    assert any(again.get(name) != value for name, value in claim.expected.items())


@pytest.mark.parametrize(
    ("before", "after", "state", "waits"),
    [
        ({"command": "x"}, {"command": None}, "terminated", False),
        ({"command": None}, {"command": ["x"]}, "available", False),
        ({"command": "x"}, {"not_before": "2999-01-01T00:00:00Z"}, "available", True),
        ({"command": "x", "not_before": "2999-01-01T00:00:00Z"}, {"not_before": None}, "available",
         False),
    ],
)  # fmt: skip
def test_what_its_last_parent_releases_is_as_its_owner_has_left_it(
    bench: Bench, before: dict[str, Any], after: dict[str, Any], state: str, waits: bool
) -> None:
    """The edit comes between the look at the child and the write that moves it on."""
    parent = made(bench)
    child = stored(bench, made(bench, after=[parent], **before))
    edit(bench, str(child["_id"]), after)
    release = continuations.Release(child["_id"], (ObjectId(parent),))
    updates = settlements.of_children({child["_id"]: child}, [release], now())
    settlements.write(bench.store, updates)
    moved = stored(bench, str(child["_id"]))
    assert (moved["state"], moved["pending_dependency_count"]) == (state, 0)
    assert bool(moved.get("wake_at")) == waits
    assert moved["unsettled"] == (state == "terminated")


def test_an_edit_of_a_task_that_was_retried_meanwhile_is_decided_anew(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A retry changes what it asks for, and so its shape."""
    task, apply = made(bench, state="available"), tasks.apply

    def overtaken(*arguments: Any) -> Any:
        monkeypatch.setattr(tasks, "apply", apply)
        bench.ask("provider", "POST", f"/tasks/{task}/cancel")
        bench.ask("provider", "POST", f"/tasks/{task}/retry", {"requested_resources": {"cores": 9}})
        return apply(*arguments)

    monkeypatch.setattr(tasks, "apply", overtaken)
    edit(bench, task, {**LABELS, "state": "available"})
    found = stored(bench, task)
    assert (found["requested_resources"]["cpu_cores"]["count"], found["labels"]) == (
        9,
        LABELS["labels"],
    )
    assert found["shape"] == of_task(found)


def test_a_task_under_the_wrong_shape_speaks_for_no_other(bench: Bench) -> None:
    wrong, right = made(bench, state="available"), made(bench, state="available")
    shape = stored(bench, right)["shape"]
    bench.store["tasks"].update_one({"_id": ObjectId(wrong)}, {"$set": {"queue": "elsewhere"}})
    bench.store["tasks"].update_one({"_id": ObjectId(wrong)}, {"$set": {"priority": 9}})
    SHAPES._known.clear()
    assert "elsewhere" not in str(SHAPES.look_up(bench.store, [shape]))


def test_who_has_held_a_task_sees_nothing_of_what_becomes_of_it(play: Play) -> None:
    [task] = play.submit(max_attempt_count=3)
    before = play.player()
    item = before.claim_one(task).json()
    assert before.end(item, "failure (1)").status_code == 200
    owner = play.server.provider
    assert owner.patch(f"tasks/{task}", {"state": "inactive"}).status_code == 200
    assert word(before.api.get(f"tasks/{task}")) == (404, "not_found")
    moved = {"queue": "elsewhere", "state": "available"}
    assert owner.patch(f"tasks/{task}", moved).status_code == 200
    assert_nothing_is_told(before, item)
    assert owner.post(f"tasks/{task}/cancel").status_code == 200
    assert word(before.api.get(f"tasks/{task}")) == (404, "not_found")
    assert_nothing_is_told(before, item)


def test_who_has_held_a_task_hears_no_more_of_it_than_it_has_to(play: Play) -> None:
    """It has not been changed, and waits; the end was not heard of, and is said once more."""
    [task] = play.submit(max_attempt_count=3)
    before = play.player()
    item = before.claim_one(task).json()
    assert before.end(item, "failure (1)").status_code == 200
    again = before.end(item, "failure (1)")
    assert again.status_code == 200, "it was told so before"
    assert again.json().keys() == {"_id", "_etag", "state", "_status"}


def assert_nothing_is_told(before: Player, item: dict[str, Any]) -> None:
    """Neither by an end nor by a release that is said once more."""
    token = {"token": item["token"]}
    release = before.api.post(f"tasks/{item['_id']}/release", token)
    for again in (before.end(item, "failure (1)"), release):
        assert again.status_code == 409, "it is nobody's by now"
        assert again.json().keys() == {"_status", "_error", "state"}


@pytest.mark.parametrize("change", [{"priority": 7, "state": "available"}, {}])
def test_who_releases_a_task_sees_no_later_edit(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any]
) -> None:
    """The owner's edit comes between the release and the look at what it has become."""
    task, give_back = made(bench, state="available"), release.give_back
    [claimed] = bench.claim(bench.worker(), 1)

    def overtaken(*arguments: Any) -> int:
        count = give_back(*arguments)
        if change:
            edit(bench, task, change)
        return count

    monkeypatch.setattr(release, "give_back", overtaken)
    told = bench.ask("worker", "POST", f"/tasks/{task}/release", {"token": claimed["token"]})
    assert told["state"] == "available"
    assert ("command" in told) == (not change)


def test_a_parent_whose_id_somebody_else_has_by_then_is_not_tied_to(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is forgotten, and its id submitted by another, between the look and the transaction."""
    parent, link_parents = made(bench), edges.link_parents
    bench.ask("provider", "POST", f"/tasks/{parent}/cancel")

    def overtaken(*arguments: Any) -> Any:
        monkeypatch.setattr(edges, "link_parents", link_parents)
        bench.store["tasks"].update_one({"_id": ObjectId(parent)}, {"$set": {"owner": "another"}})
        return link_parents(*arguments)

    monkeypatch.setattr(edges, "link_parents", overtaken)
    headers = {"Authorization": f"Bearer {bench.tokens['provider']}"}
    task = {"command": "x", "after_any": [parent]}
    answer = bench.client.post("/tasks", json=task, headers=headers)
    assert (answer.status_code, list(answer.json["_issues"])) == (422, ["after_any"])
    assert stored(bench, parent)["final_continuations"] == []


def test_a_parent_that_is_forgotten_meanwhile_is_not_found(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    task, write_together = made(bench), link.write_together

    def overtaken(*arguments: Any) -> None:
        write_together(*arguments)
        bench.store["tasks"].delete_one({"_id": ObjectId(task)})

    monkeypatch.setattr(link, "write_together", overtaken)
    headers = {"Authorization": f"Bearer {bench.tokens['provider']}"}
    body = {"remove_continuations": ["0" * 24]}
    answer = bench.client.patch(f"/tasks/{task}", json=body, headers=headers)
    assert (answer.status_code, answer.json["_error"]["word"]) == (404, "not_found")
