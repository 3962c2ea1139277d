"""A list of tasks made ready to send: ids, states, edges on the child's side, parents first."""

from itertools import chain, pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from banyan.client.graph import in_requests, parents_first, prepared
from banyan.client.ids import in_pieces, new_id
from banyan.errors import BanyanError


def test_ids_are_object_ids_that_rise_and_never_meet() -> None:
    ids = [new_id() for _ in range(5000)]
    assert all(len(id) == 24 and int(id, 16) for id in ids)
    assert len(set(ids)) == len(ids)
    assert sum(one > other for one, other in pairwise(ids)) <= 1  # the counter wraps once at most


def test_pieces_hold_every_id_once() -> None:
    ids = [new_id() for _ in range(450)]
    pieces = list(in_pieces(ids))
    assert [len(piece) for piece in pieces] == [200, 200, 50]
    assert [id for piece in pieces for id in piece] == ids


def test_tasks_get_ids_and_states_and_the_callers_list_stays_as_it_was() -> None:
    mine: list[dict[str, Any]] = [{"command": "a"}, {"command": "b", "state": "inactive"}]
    ready = prepared(mine, hold=False)
    assert [task["state"] for task in ready] == ["available", "inactive"]
    assert all("_id" in task for task in ready)
    assert mine == [{"command": "a"}, {"command": "b", "state": "inactive"}]
    assert prepared(mine, hold=True)[0]["state"] == "inactive"


def test_a_dedupe_key_is_enough_of_an_identity() -> None:
    assert "_id" not in prepared([{"command": "a", "dedupe_key": "k"}], hold=False)[0]


@pytest.mark.parametrize(
    ("parents", "childs"),
    [
        ("continuations", "after"),
        ("failure_continuations", "after_failure"),
        ("final_continuations", "after_any"),
    ],
)
def test_edges_inside_the_list_move_to_the_child(parents: str, childs: str) -> None:
    child, elsewhere, other = new_id(), new_id(), new_id()
    ready = prepared(
        [{"name": "p", parents: [child, elsewhere]}, {"_id": child, childs: [other]}], hold=False
    )
    assert ready[0][parents] == [elsewhere]
    assert ready[1][childs] == [other, ready[0]["_id"]]


def test_an_id_used_twice_is_told() -> None:
    id = new_id()
    with pytest.raises(BanyanError, match=id):
        prepared([{"_id": id}, {"_id": id}], hold=False)


def test_a_cycle_is_told() -> None:
    one, two = new_id(), new_id()
    ready = prepared([{"_id": one, "after": [two]}, {"_id": two, "after": [one]}], hold=False)
    with pytest.raises(BanyanError, match="cycle"):
        parents_first(ready)


@given(st.lists(st.lists(st.integers(0, 30), max_size=4), max_size=30), st.randoms())
def test_parents_come_first_whatever_the_graph(edges: list[list[int]], chance: Any) -> None:
    """Task i may wait for smaller numbers only, so there is no cycle; then the list is shuffled."""
    ids = [new_id() for _ in edges]
    tasks = [
        {"_id": id, "after": [ids[parent] for parent in set(parents) if parent < place]}
        for place, (id, parents) in enumerate(zip(ids, edges, strict=True))
    ]
    chance.shuffle(tasks)
    order = parents_first(prepared(tasks, hold=False))
    assert sorted(order) == list(range(len(tasks)))
    when = {tasks[place]["_id"]: turn for turn, place in enumerate(order)}
    for task in tasks:
        assert all(when[parent] < when[task["_id"]] for parent in task["after"])


def test_a_deep_graph_needs_no_recursion() -> None:
    ids = [new_id() for _ in range(20_000)]
    chain = [{"_id": id, "continuations": ids[n + 1 : n + 2]} for n, id in enumerate(ids)]
    ready = prepared(reversed(chain), hold=False)
    assert parents_first(ready) == list(reversed(range(len(ids))))


@pytest.mark.parametrize("kind", ["after", "after_failure", "after_any"])
@pytest.mark.parametrize("count", [1024, 1025, 3000])
def test_more_parents_than_a_task_may_have_are_gathered_by_groups(kind: str, count: int) -> None:
    parents = [new_id() for _ in range(count)]
    tasks = [{"name": "sum", kind: parents, "tags": {"a": "b"}, "retain": 5}, {kind: parents}]
    child, twin, *groups = prepared(tasks, hold=True)
    if count == 1024:
        assert (child[kind], groups) == (parents, [])
        return
    assert [one for group in groups for one in group[kind]] == parents
    assert all(len(group[kind]) <= 1024 for group in groups)
    waits_for = "after_any" if kind == "after_any" else "after"
    assert child[waits_for] == twin[waits_for] == [group["_id"] for group in groups]
    assert kind == waits_for or kind not in child
    for group in groups:
        assert "command" not in group
        assert (group["state"], group["tags"], group["retain"]) == ("available", {"a": "b"}, 5)
        assert group["_id"] < child["_id"]
    assert set(parents_first([child, twin, *groups])[-2:]) == {0, 1}


def test_a_task_with_a_key_has_the_same_groups_each_time() -> None:
    parents = [new_id() for _ in range(2 * 1024 + 1)]
    keyed = {"command": "x", "dedupe_key": "night", "after": parents}
    plain = {"command": "x", "after": parents}
    again = prepared([keyed], hold=False)
    assert prepared([plain, keyed], hold=False)[1] == again[0]
    assert prepared([keyed], hold=False) == again
    assert {one["_id"][:8] for one in again[1:]} <= {one[:8] for one in parents}
    other = prepared([{**keyed, "dedupe_key": "day"}], hold=False)
    assert not {one["_id"] for one in other[1:]} & {one["_id"] for one in again[1:]}


def test_parents_of_all_kinds_are_gathered_and_the_array_has_no_groups_in_it() -> None:
    kinds = ("after", "after_failure", "after_any")
    task = {kind: [new_id() for _ in range(1024 + (kind != "after"))] for kind in kinds}
    child, *groups = prepared([{**task, "tags": {"array": new_id()}}], hold=False)
    assert sorted(child.keys() & set(kinds)) == ["after", "after_any"]
    assert all(len(one.get(kind, ())) <= 1024 for one in [child, *groups] for kind in kinds)
    assert all("tags" not in group for group in groups)


@pytest.mark.parametrize("id", ["mine", "", 5, None, ["a"]])
def test_an_id_of_any_shape_may_have_many_parents(id: Any) -> None:
    child, group, _ = prepared([{"_id": id, "after": [new_id()] * 1025}], hold=False)
    assert child["_id"] == id
    assert len(group["_id"]) == 24


@pytest.mark.parametrize("kind", ["after", "after_failure", "continuations"])
@pytest.mark.parametrize("wrong", [5, None, "abc", {"a": 1}, [[1]], [None, 2]])
def test_edges_of_any_shape_are_left_to_the_server(kind: str, wrong: Any) -> None:
    good = {"_id": new_id(), "tags": 7, "after_any": [new_id() for _ in range(1025)]}
    bad = {"_id": new_id(), kind: wrong, "after_any": good["after_any"], "tags": ["t"]}
    parent = {"_id": new_id(), "continuations": [good["_id"], bad["_id"]]}
    ready = prepared([good, bad, parent], hold=False)
    if wrong or kind != "after":
        assert ready[1][kind] == wrong
    order = parents_first(ready)
    assert order.index(0) > order.index(2)
    assert sorted(chain(*in_requests(ready, order))) == list(range(len(ready)))


def test_edges_of_a_parent_without_an_id_stay_with_it() -> None:
    child = new_id()
    tasks = [{"dedupe_key": "k", "continuations": [child]}, {"_id": child}]
    assert prepared(tasks, hold=False)[0]["continuations"] == [child]
