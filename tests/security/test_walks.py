"""Deep and wide graphs: what walks along edges is bounded, and nobody waits for another's walk."""

import threading
import tracemalloc
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from bson import ObjectId

from banyan.config import knobs
from banyan.server import settle
from banyan.server.store import edges, walks
from banyan.server.verbs import edit as editing
from banyan.server.verbs import graph
from banyan.server.verbs import retry as retrying
from tests.contract.asking import new_id
from tests.security.watched import WATCH, send, submit
from tests.server.worlds import World

COMMANDS_MAX = 12  # of a request, besides one for each level


def chain(world: World, who: str, length: int) -> list[str]:
    """Ids of tasks that each wait for the one before."""
    ids = [new_id() for _ in range(length)]
    tasks = [
        {"_id": one, "name": "t", "after": ids[number - 1 : number]}
        for number, one in enumerate(ids)
    ]
    submit(world, who, tasks)
    return ids


def add(world: World, who: str, parent: str, *children: str) -> Any:
    return send(world, who, "POST", f"/tasks/{parent}/add_continuations", list(children))


# --- Looking ------------------------------------------------------------------------------


def test_estimates_and_graphs_of_a_long_chain_are_cut(
    world: World, monkeypatch: pytest.MonkeyPatch
):
    """The whole path was kept for each task: of 8,000 it took 20 s and 256 MB."""
    patient = SimpleNamespace(**{**vars(knobs()), "QUERY_SECONDS_MAX": 60})  # while it is traced
    monkeypatch.setattr("banyan.server.app.knobs", lambda: patient)
    last = chain(world, "alice", 8000)[-1]
    for view, most in (("estimate", walks.LEVELS_MAX), ("graph", graph.NODES_MAX)):
        WATCH.reset()
        tracemalloc.start()
        try:
            answer = send(world, "alice", "GET", f"/tasks/{last}/{view}")
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert answer.status_code == 200
        assert answer.json["truncated"]
        assert WATCH.total <= most + COMMANDS_MAX
        assert peak < 20e6


def test_an_estimate_is_whole_where_it_can_be(world: World):
    """The longest way through a diamond, and through ladders of which there are 2^40 ways."""
    ids = [new_id() for _ in range(80)]
    tasks = []
    for number, one in enumerate(ids):
        step = number // 2
        before = ids[2 * step - 2 : 2 * step] if step else []
        runtime = 1000 if number % 2 else 10
        tasks.append({"_id": one, "command": "true", "after": before,
                      "estimated_runtime_milliseconds": runtime})  # fmt: skip
    submit(world, "alice", tasks)
    answer = send(world, "alice", "GET", f"/tasks/{ids[-1]}/estimate").json
    assert answer == {
        "milliseconds": 40_000, "unknown": [], "path": ids[1::2], "truncated": False
    }  # fmt: skip


def test_an_estimate_of_too_wide_a_graph_says_that_there_is_more(
    world: World, monkeypatch: pytest.MonkeyPatch
):
    parents, child = [new_id() for _ in range(30)], new_id()
    submit(world, "alice", [{"_id": one, "command": "true"} for one in parents])
    submit(world, "alice", [{"_id": child, "command": "true", "after": parents}])
    monkeypatch.setattr(walks, "TASKS_MAX", 20)
    answer = send(world, "alice", "GET", f"/tasks/{child}/estimate").json
    assert (answer["truncated"], answer["path"]) == (True, [child])


# --- Linking ------------------------------------------------------------------------------


def test_an_edge_to_either_end_of_a_deep_graph_takes_no_walk(world: World):
    ids = chain(world, "alice", 2000)
    other = chain(world, "alice", 1)[0]
    last = chain(world, "alice", 1)[0]
    for parent, child in ((other, ids[0]), (ids[-1], last), (other, ids[1000]), (ids[1000], last)):
        WATCH.reset()
        assert add(world, "alice", parent, child).status_code == 200
        assert WATCH.total <= COMMANDS_MAX


def test_an_edge_between_two_deep_graphs_is_refused_soon(world: World):
    above, below = chain(world, "alice", 1500), chain(world, "alice", 1500)
    WATCH.reset()
    answer = add(world, "alice", above[-1], below[0])
    assert answer.status_code == 422
    assert f"{walks.LEVELS_MAX:,} levels" in answer.json["_error"]["message"]
    assert WATCH.total <= walks.LEVELS_MAX + COMMANDS_MAX
    assert add(world, "alice", above[100], below[-101]).status_code == 200


def test_a_long_cycle_is_refused_within_the_bounds(world: World):
    ids = chain(world, "alice", 400)
    WATCH.reset()
    answer = add(world, "alice", ids[-1], ids[0])
    assert "makes a cycle" in str(answer.json["_issues"])
    assert WATCH.total <= 2 * 400 + COMMANDS_MAX


@pytest.mark.parametrize("bound", ["TASKS_MAX", "NAMES_MAX", "LEVELS_MAX"])
def test_new_tasks_between_deep_graphs_are_bounded_too(
    world: World, monkeypatch: pytest.MonkeyPatch, bound: str
):
    above, below = chain(world, "alice", 50), chain(world, "alice", 50)
    between = {"name": "n", "after": [above[-1]], "continuations": [below[0]]}
    with monkeypatch.context() as patch:
        patch.setattr(walks, bound, 20)
        answer = send(world, "alice", "POST", "/tasks", between)
    assert answer.status_code == 422
    assert "cycle" in answer.json["_error"]["message"]
    assert send(world, "alice", "POST", "/tasks", between).status_code == 201


def test_nobody_waits_for_the_walk_of_another(world: World, monkeypatch: pytest.MonkeyPatch):
    """One lock for all edges let everybody wait: for 20 s, and then for nothing."""
    walking, go_on = threading.Event(), threading.Event()
    for who in ("alice", "bob"):  # what guards their edges is there
        assert add(world, who, *(chain(world, who, 1)[0] for _ in range(2))).status_code == 200
    slow = chain(world, "alice", 3)
    other = chain(world, "alice", 1)[0]
    level = walks.Walker.level

    def held(self: walks.Walker, query: Any) -> Any:
        if ObjectId(slow[0]) in query["_id"]["$in"]:
            walking.set()
            assert go_on.wait(60)
        return level(self, query)

    monkeypatch.setattr(walks.Walker, "level", held)
    answers: list[Any] = []
    thread = threading.Thread(target=lambda: answers.append(add(world, "alice", other, slow[0])))
    thread.start()
    try:
        assert walking.wait(60)
        for who in ("bob", "alice"):
            mine = chain(world, who, 1)[0], chain(world, who, 1)[0]
            WATCH.reset()
            assert add(world, who, *mine).status_code == 200
            assert not WATCH.counts["abortTransaction"]  # it met nothing in its way
        assert not answers
    finally:
        go_on.set()
        thread.join(60)
    assert answers[0].status_code == 200


A, B = "alice", "bob"
# Whose the four tasks of a ring are: two edges are there, two come at once.
RINGS = [(A, A, A, A), (A, A, B, B), (A, B, B, A), (A, B, A, B), (A, B, B, B), (B, A, A, A)]


@pytest.mark.parametrize("owners", RINGS)
@pytest.mark.parametrize("by", ["both by edges", "both by many edges", "one by a new task"])
def test_two_halves_of_a_cycle_never_meet_whosever_the_tasks_are(
    world: World, monkeypatch: pytest.MonkeyPatch, owners: tuple[str, ...], by: str
):
    """Both have looked before either writes; an operator may join tasks of several owners."""
    one, two, three, four = ring = [chain(world, who, 1)[0] for who in owners]
    for parent, child in ((two, three), (four, one)):
        assert add(world, "operator", parent, child).status_code == 200
    both = threading.Barrier(2)
    seen = threading.local()
    guard = edges.guard

    def after_both_have_looked(*arguments: Any) -> None:
        if not getattr(seen, "waited", False):
            seen.waited = True
            both.wait(60)
        guard(*arguments)

    monkeypatch.setattr(edges, "guard", after_both_have_looked)
    between = {"name": "n", "after": [three], "continuations": [four]}
    # With so many children the walk goes up from the parents alone.
    more = {who: [chain(world, who, 1)[0] for _ in range(120)] for who in {owners[1], owners[3]}}
    others = [more[owners[place]] if by == "both by many edges" else [] for place in (1, 3)]
    calls: list[Callable[[], Any]] = [lambda: add(world, "operator", one, two, *others[0])]
    if by != "one by a new task":
        calls.append(lambda: add(world, "operator", three, four, *others[1]))
    else:
        calls.append(lambda: send(world, "operator", "POST", "/tasks", between))
    answers: list[Any] = []
    threads = [threading.Thread(target=lambda own=call: answers.append(own())) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    refused = [answer for answer in answers if answer.status_code not in (200, 201)]
    assert [answer.status_code for answer in refused] == [422], [a.text for a in answers]
    assert "cycle" in refused[0].text
    found = world.store["tasks"].find({"_id": {"$in": [ObjectId(one) for one in ring]}})
    assert sum(len(task["after"]) for task in found) == 3


# --- Settling -----------------------------------------------------------------------------


@pytest.mark.parametrize(("parents", "children"), [(1, 10), (3, 5), (8, 1), (1, 3)])
@pytest.mark.parametrize("end", ["cancel", "finish"])
def test_children_are_settled_in_pieces(
    world: World, monkeypatch: pytest.MonkeyPatch, parents: int, children: int, end: str
):
    """However many a parent has, so many are read at once."""
    above = [chain(world, "alice", 1)[0] for _ in range(parents)]
    below = [
        {"_id": new_id(), "name": "t", "command": "true", "state": "available", "after": [one]}
        for one in above
        for _ in range(children)
    ]
    submit(world, "alice", below)
    monkeypatch.setattr(settle, "CHILDREN_AT_ONCE", 3)
    read: list[int] = []
    waiting_for = settle.settlements.waiting_for

    def counted(*arguments: Any) -> Any:
        found = waiting_for(*arguments)
        read.append(len(found.by_id))
        return found

    monkeypatch.setattr(settle.settlements, "waiting_for", counted)
    if end == "cancel":
        answer = send(world, "alice", "POST", "/tasks/cancel", {"targets": above})
    else:
        edits = [{"_id": one, "state": "available"} for one in above]
        answer = send(world, "alice", "PATCH", "/tasks", edits)
    assert answer.status_code == 200
    assert max(read) <= 3
    tasks = world.store["tasks"]
    state = "cancelled" if end == "cancel" else "available"
    assert tasks.count_documents({"command": "true", "state": state}) == parents * children
    assert tasks.find_one({"unsettled": True}) is None


# --- Retrying -----------------------------------------------------------------------------


def cancelled_chain(world: World, length: int) -> list[str]:
    ids = chain(world, "alice", length)
    assert send(world, "alice", "POST", f"/tasks/{ids[0]}/cancel").status_code == 200
    return ids


@pytest.mark.parametrize("bound", ["TASKS_MAX", "NAMES_MAX", "LEVELS_MAX"])
def test_a_retry_of_too_much_downstream_is_refused(
    world: World, monkeypatch: pytest.MonkeyPatch, bound: str
):
    ids = cancelled_chain(world, 30)
    body = {"downstream": True}
    with monkeypatch.context() as patch:
        patch.setattr(walks, bound, 20)
        answer = send(world, "alice", "POST", f"/tasks/{ids[0]}/retry", body)
        assert answer.status_code == 422
        assert "retry fewer" in answer.json["_error"]["message"]
        assert send(world, "alice", "POST", f"/tasks/{ids[0]}/retry").status_code == 200
    assert world.store["tasks"].count_documents({"state": "cancelled"}) == 29


def test_a_retry_of_tasks_with_very_many_neighbours_is_refused(
    world: World, monkeypatch: pytest.MonkeyPatch
):
    parents, ended = ([new_id() for _ in range(count)] for count in (10, 3))
    submit(world, "alice", [{"_id": one, "name": "p"} for one in parents])
    submit(world, "alice", [{"_id": one, "name": "c", "after": parents} for one in ended])
    body = {"targets": ended}
    assert send(world, "alice", "POST", "/tasks/cancel", body).status_code == 200
    monkeypatch.setattr(walks, "NAMES_MAX", 20)
    answer = send(world, "alice", "POST", "/tasks/retry", body)
    assert answer.status_code == 422
    assert "retry fewer" in answer.json["_error"]["message"]
    assert send(world, "alice", "POST", f"/tasks/{ended[0]}/retry").status_code == 200


def test_what_others_keep_from_running_is_left_out_in_one_pass(
    world: World, monkeypatch: pytest.MonkeyPatch
):
    """Each was looked at again for each that was left out: for 10,000 tasks 10^8 times."""
    looks = 0
    broken = retrying._Retrying._broken

    def counted(*arguments: Any) -> bool:
        nonlocal looks
        looks += 1
        return broken(*arguments)

    monkeypatch.setattr(retrying._Retrying, "_broken", counted)
    first, blocked = (chain(world, "alice", 1)[0] for _ in range(2))
    tasks = [new_id() for _ in range(300)]
    made = [
        {"_id": one, "name": "t", "after": tasks[number - 1 : number] or [first, blocked]}
        for number, one in enumerate(tasks)
    ]
    submit(world, "alice", made)
    for one in (first, blocked):
        assert send(world, "alice", "POST", f"/tasks/{one}/cancel").status_code == 200
    answer = send(world, "alice", "POST", f"/tasks/{first}/retry", {"downstream": True})
    assert answer.status_code == 200
    assert world.store["tasks"].count_documents({"state": "cancelled"}) == 301
    assert looks <= 2 * len(tasks)


def test_a_list_of_edits_with_edges_ends_in_time(world: World, monkeypatch: pytest.MonkeyPatch):
    """Each of a thousand items may walk as far as one may."""
    ids = [chain(world, "alice", 1)[0] for _ in range(4)]
    edits = [{"_id": one, "add_continuations": [ids[-1]]} for one in ids[:-1]]
    monkeypatch.setattr(editing, "_LINKING_SECONDS_MAX", -1.0)
    answer = send(world, "alice", "PATCH", "/tasks", [*edits, {"_id": ids[-1], "priority": 5}])
    assert answer.status_code == 207
    *refused, done = answer.json["_items"]
    assert {one["_error"]["word"] for one in refused} == {"unavailable"}
    assert done["priority"] == 5
