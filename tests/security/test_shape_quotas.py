"""How many different requests one owner may have among its open tasks, whichever way they come."""

from collections.abc import Callable
from typing import Any

import pytest

from banyan.config import knobs
from banyan.errors import BanyanError
from banyan.server import quotas, shapes
from banyan.server.calls import Context, Silent
from banyan.server.shapes import SHAPES
from banyan.server.upkeep.duties import recount
from tests.contract.playing import word
from tests.harness import Server, eventually
from tests.security.test_many_shapes import forget, names, of_sizes, submit
from tests.server.explained import Bench

EXCEEDED = (403, "quota_exceeded")

pytestmark = pytest.mark.usefixtures("nothing_remembered")


@pytest.fixture
def server(serve: Callable[..., Server]) -> Server:
    return serve(OWNER_OPEN_SHAPES_MAX=3)


def test_an_owner_has_so_many_open_and_no_more(server: Server):
    alice, bob = (server.account("provider", name=name) for name in ("alice", "bob"))
    sizes = of_sizes(5)
    stored = alice.post("tasks", sizes[:3]).json()["_items"]
    refused = alice.post("tasks", sizes[2:4])
    assert word(refused) == EXCEEDED
    assert refused.json()["limit"] == "open_shapes"
    assert "OWNER_OPEN_SHAPES_MAX" in refused.json()["_error"]["message"]
    assert alice.post("tasks", sizes[:3] * 10).status_code == 201, "no new ones"
    assert bob.post("tasks", sizes[:3]).status_code == 201
    for one in alice.get("tasks", max_results=100).json()["_items"]:
        if one["requested_resources"] == stored[0]["requested_resources"]:
            assert alice.post(f"tasks/{one['_id']}/cancel").status_code == 200
    eventually(lambda: alice.post("tasks", sizes[3]).status_code == 201)


def test_nor_by_changing_what_tasks_ask_for(server: Server):
    ids = [one["_id"] for one in server.provider.post("tasks", [{}] * 4).json()["_items"]]
    changes = [
        {"_id": task, "requested_resources": {"memory": 1_000_000 + number}}
        for number, task in enumerate(ids)
    ]
    assert word(server.provider.patch("tasks", changes)) == EXCEEDED
    assert server.provider.patch("tasks", changes[:2]).status_code == 200


def test_nor_by_a_change_that_names_an_edge_too(server: Server):
    ids = [one["_id"] for one in server.provider.post("tasks", [{}] * 5).json()["_items"]]
    edge = {"remove_continuations": ["0" * 24]}
    changes = [
        {"_id": task, "requested_resources": {"memory": 1_000_000 + number}, **edge}
        for number, task in enumerate(ids)
    ]
    answer = server.provider.patch("tasks", changes)
    told = [one.get("_error", {}).get("word") for one in answer.json()["_items"]]
    assert told == [None, None, "quota_exceeded", "quota_exceeded", "quota_exceeded"]


def test_nor_by_retrying_what_has_ended(server: Server):
    """Else who lets tasks end, again and again, could then have all of them tried at once."""
    sizes = of_sizes(9)
    ids: list[str] = []
    for start in (0, 3, 6):
        made = eventually(lambda start=start: stored(server, sizes[start : start + 3]))
        ids += [one["_id"] for one in made]
        assert server.provider.post("tasks/cancel", {"targets": ids}).status_code == 200
    assert word(server.provider.post("tasks/retry", {"targets": ids})) == EXCEEDED
    assert {one["state"] for one in server.provider.get("tasks").json()["_items"]} == {"cancelled"}
    few = {"targets": ids[:3]}
    eventually(lambda: server.provider.post("tasks/retry", few).status_code == 200)


def stored(server: Server, tasks: list[Any]) -> list[Any]:
    """The new tasks, once there is room for them."""
    answer = server.provider.post("tasks", tasks)
    return answer.json()["_items"] if answer.status_code == 201 else []


@pytest.fixture
def three(monkeypatch: pytest.MonkeyPatch) -> None:
    """At most three open ones, in this process, which counts again whenever it would refuse."""
    monkeypatch.setattr(knobs(), "OWNER_OPEN_SHAPES_MAX", 3)
    monkeypatch.setattr(quotas, "PAUSE_SECONDS", 0)
    monkeypatch.setattr(quotas, "_PAUSE_FOR", 0)
    forget()


def test_those_that_have_ended_let_in_no_more(bench: Bench, three: None):
    """Else who lets tasks end, again and again, could then submit all at once."""
    for some in ("abc", "def", "ghi"):
        SHAPES.admit(bench.store, "mallory", some)  # and none of them waits any more
    with pytest.raises(BanyanError, match="OWNER_OPEN_SHAPES_MAX"):
        SHAPES.admit(bench.store, "mallory", "abcdefghi")
    with pytest.raises(BanyanError, match="OWNER_OPEN_SHAPES_MAX"):
        SHAPES.admit(bench.store, "mallory", "abcd")
    SHAPES.admit(bench.store, "mallory", "abc")


def test_who_repeats_some_is_not_looked_up(bench: Bench, three: None):
    for some in ("a", "b", "c"):
        SHAPES.admit(bench.store, "me", some)
    assert bench.during(lambda: SHAPES.admit(bench.store, "me", "abc")) == []


def test_what_was_let_in_is_remembered_of_some_owners(
    bench: Bench, three: None, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(shapes, "OWNERS_MAX", 5)
    for number in range(20):
        SHAPES.admit(bench.store, f"owner{number}", "a")
    assert len(SHAPES._admitted) == 5
    monkeypatch.setattr(shapes, "REMEMBERED_MAX", 6)
    for number in range(20):
        SHAPES.admit(bench.store, f"owner{number}", "abc")
    assert [owner for _, owner in SHAPES._admitted] == ["owner18", "owner19"]


def test_a_submission_of_new_sizes_asks_for_nothing_more(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
):
    bench.submit(1)
    sent = bench.during(lambda: submit(bench, of_sizes(1)))
    assert names(sent) == ["insert"]


def test_of_who_has_few_nobody_counts_them(bench: Bench):
    """It would read all tasks of that owner."""
    submit(bench, of_sizes(40))
    sent = bench.during(lambda: recount(Context(bench.store, Silent())))
    assert not [one for one in sent if "aggregate" in one]
    submit(bench, of_sizes(200))
    sent = bench.during(lambda: recount(Context(bench.store, Silent())))
    assert not [one for one in sent if "aggregate" in one], "the submission has counted"
