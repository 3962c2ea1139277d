"""Lists that are multiplied by each other: what a request costs grows with what was sent."""

import json
import tracemalloc
from itertools import pairwise
from typing import Any

import pytest

from banyan.server import virtual
from banyan.server.verbs import edit
from tests.contract.asking import new_id
from tests.security.watched import WATCH, send, submit
from tests.server.worlds import World

COMMANDS_MAX = 14


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The edits that were made out of a request."""
    calls: list[Any] = []
    original = edit.read_edit

    def counted(*arguments: Any) -> Any:
        calls.append(arguments)
        return original(*arguments)

    monkeypatch.setattr(edit, "read_edit", counted)
    return calls


def entry(targets: int, values: int) -> dict[str, Any]:
    return {"targets": [new_id() for _ in range(targets)],
            "values": [new_id() for _ in range(values)]}  # fmt: skip


SIZES = [(1, 1024, 1024), (128, 1, 1024), (128, 1024, 1), (98, 1, 1024)]


@pytest.mark.parametrize(("entries", "targets", "values"), SIZES)
def test_the_product_of_targets_and_values_is_bounded(
    world: World, read: list[Any], entries: int, targets: int, values: int
):
    body = [entry(targets, values)] * entries
    WATCH.reset()
    tracemalloc.start()
    try:
        answer = send(world, "alice", "POST", "/tasks/add_continuations", body)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert answer.status_code == 413
    assert str(virtual.PAIRS_MAX) in answer.json["_error"]["message"]
    assert (len(read), WATCH.counts["find"]) == (0, 1)  # its token
    assert peak < max(20e6, 25 * len(json.dumps(body)))


def test_targets_are_looked_up_before_anything_is_made_of_their_values(
    world: World, read: list[Any]
):
    body = [entry(97, 1024)]
    WATCH.reset()
    answer = send(world, "alice", "POST", "/tasks/add_continuations", body)
    assert answer.status_code == 422
    assert answer.json["_error"]["message"].startswith("97 of the targets")
    assert answer.json["_issues"].keys() == {"0"}
    assert not read
    assert WATCH.total <= COMMANDS_MAX


@pytest.mark.parametrize("form", ["add", "remove"])
def test_many_targets_cost_no_more_commands_than_one(world: World, read: list[Any], form: str):
    parents, children = ([new_id() for _ in range(count)] for count in (200, 100))
    edges = {"continuations": children} if form == "remove" else {}
    submit(world, "alice", [{"_id": one, "name": "c"} for one in children])
    submit(world, "alice", [{"_id": one, "name": "p", **edges} for one in parents])
    body = [{"targets": parents, "values": children}]
    WATCH.reset()
    answer = send(world, "alice", "POST", f"/tasks/{form}_continuations", body)
    assert answer.status_code == 200, answer.text
    assert len(read) == 1
    assert WATCH.total <= COMMANDS_MAX
    expected = parents if form == "add" else []
    for child in children[::33]:
        task = send(world, "alice", "GET", f"/tasks/{child}").json
        assert sorted(task["after"]) == sorted(expected)
        assert task["pending_dependency_count"] == len(expected)


def test_entries_with_the_same_target_are_added_up(world: World):
    parent, *children = ids = [new_id() for _ in range(5)]
    submit(world, "alice", [{"_id": one, "name": "t"} for one in ids])
    body = [
        {"targets": [parent], "values": children[:3]},
        {"targets": [parent], "values": children[1:]},
    ]
    assert send(world, "alice", "POST", "/tasks/add_continuations", body).status_code == 200
    task = send(world, "alice", "GET", f"/tasks/{parent}").json
    assert task["continuations"] == children


def test_of_many_edges_the_first_that_closes_a_cycle_is_named(world: World):
    ids = [new_id() for _ in range(30)]
    submit(world, "alice", [{"_id": one, "name": "t"} for one in ids])
    chain = [{"targets": [a], "values": [b]} for a, b in pairwise(ids)]
    closing = {"targets": [ids[20]], "values": [ids[3]]}
    body = [*chain[:25], closing, *chain[25:]]
    answer = send(world, "alice", "POST", "/tasks/add_continuations", body)
    assert answer.status_code == 422
    told = f"the edge to {ids[3]} makes a cycle"
    assert answer.json["_issues"] == {"25": {"add_continuations": [told]}}
