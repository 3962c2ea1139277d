"""Adding and removing edges over HTTP: three forms, three kinds, both ends, and no cycle."""

import itertools
from collections.abc import Callable
from typing import Any

import pytest

from tests.contract.asking import make, new_id, read, refused
from tests.contract.playing import Item, Play
from tests.harness import Api, Server

KINDS = {
    "continuations": "after",
    "failure_continuations": "after_failure",
    "final_continuations": "after_any",
}
FORMS: dict[str, Callable[[Api, str, str, list[str]], Any]] = {
    "POST item": lambda api, name, parent, ids: api.post(f"tasks/{parent}/{name}", ids),
    "PATCH item": lambda api, name, parent, ids: api.patch(f"tasks/{parent}/{name}", ids),
    "field": lambda api, name, parent, ids: api.patch(f"tasks/{parent}", {name: ids}),
    "collection": lambda api, name, parent, ids: api.post(
        f"tasks/{name}", [{"targets": [parent], "values": ids}]
    ),
}
FORMS_AND_KINDS = list(itertools.product(FORMS, KINDS))
NOT_INACTIVE = ["available", "running", "terminated", "cancelled"]


@pytest.fixture
def api(server: Server) -> Api:
    return server.provider


def group(api: Api, **fields: Any) -> str:
    """An inactive group."""
    answer = api.post("tasks", {"name": "g", **fields})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["_id"])


def in_state(server: Server, state: str) -> str:
    """A task in this state that has no edges."""
    play = Play(server)
    (task,) = play.submit()
    if state == "cancelled":
        server.provider.post(f"tasks/{task}/cancel")
    if state in ("running", "terminated"):
        player = play.player()
        claimed = player.claim_one(task).json()
        if state == "terminated":
            player.end(claimed)
    assert read(server.provider, task)["state"] == state
    return task


def versions(api: Api, *tasks: str) -> list[Item]:
    """Everything that a write could have changed."""
    return [
        {name: value for name, value in read(api, one).items() if name != "_links"} for one in tasks
    ]


# --- Adding and removing ----------------------------------------------------------------


@pytest.mark.parametrize(("form", "kind"), FORMS_AND_KINDS)
def test_an_edge_is_added_and_removed_on_both_ends(api: Api, form: str, kind: str):
    parent, other, child = group(api), group(api), make(api)["_id"]
    for one in (parent, other):
        answer = FORMS[form](api, f"add_{kind}", one, [child])
        assert (answer.status_code, answer.json()["_status"]) == (200, "OK"), answer.text
    assert read(api, parent)[kind] == [child]
    assert sorted(read(api, child)[KINDS[kind]]) == sorted([parent, other])
    assert read(api, child)["pending_dependency_count"] == 2
    answer = FORMS[form](api, f"remove_{kind}", parent, [child])
    assert (answer.status_code, answer.json()["_status"]) == (200, "OK"), answer.text
    assert read(api, parent)[kind] == []
    assert read(api, child)[KINDS[kind]] == [other]
    assert read(api, child)["pending_dependency_count"] == 1


@pytest.mark.parametrize(("form", "kind"), FORMS_AND_KINDS)
def test_adding_what_is_there_and_removing_what_is_not_changes_nothing(
    api: Api, form: str, kind: str
):
    child, stranger = make(api)["_id"], make(api)["_id"]
    parent = group(api, **{kind: [child]})
    before = versions(api, parent, child, stranger)
    assert FORMS[form](api, f"add_{kind}", parent, [child]).status_code == 200
    assert FORMS[form](api, f"remove_{kind}", parent, [stranger]).status_code == 200
    assert FORMS[form](api, f"remove_{kind}", parent, [new_id()]).status_code == 200
    assert FORMS[form](api, f"add_{kind}", parent, []).status_code == 200
    assert versions(api, parent, child, stranger) == before


@pytest.mark.parametrize("state", NOT_INACTIVE)
def test_removing_what_is_not_there_is_no_change_whatever_the_states(server: Server, state: str):
    api, parent, child = server.provider, in_state(server, state), in_state(server, state)
    before = versions(api, parent, child)
    assert api.post(f"tasks/{parent}/remove_continuations", [child]).status_code == 200
    assert versions(api, parent, child) == before


@pytest.mark.parametrize("form", FORMS)
def test_removing_the_last_edge_makes_no_child_available(api: Api, form: str):
    child = make(api, state="inactive")["_id"]
    parent = group(api, continuations=[child])
    assert FORMS[form](api, "remove_continuations", parent, [child]).status_code == 200
    assert read(api, child)["pending_dependency_count"] == 0
    assert read(api, child)["state"] == "inactive"
    answer = api.patch(f"tasks/{child}", {"state": "available"})
    assert (answer.status_code, answer.json()["state"]) == (200, "available")


def test_a_child_waits_while_another_edge_from_the_same_parent_is_left(api: Api):
    child = make(api)["_id"]
    parent = group(api, continuations=[child], final_continuations=[child])
    api.post(f"tasks/{parent}/remove_continuations", [child])
    assert read(api, child)["pending_dependency_count"] == 1
    api.post(f"tasks/{parent}/remove_final_continuations", [child])
    assert read(api, child)["pending_dependency_count"] == 0


@pytest.mark.parametrize("kind", KINDS)
def test_in_one_patch_additions_come_first(api: Api, kind: str):
    stays, goes = make(api)["_id"], make(api)["_id"]
    parent = group(api)
    edits = {f"remove_{kind}": [goes], f"add_{kind}": [stays, goes], "name": "renamed"}
    assert api.patch(f"tasks/{parent}", edits).status_code == 200
    assert (read(api, parent)[kind], read(api, parent)["name"]) == ([stays], "renamed")
    assert read(api, goes)["pending_dependency_count"] == 0
    assert (read(api, goes)[KINDS[kind]], read(api, goes)["state"]) == ([], "inactive")


def test_an_edge_moves_from_one_kind_to_another_in_one_patch(api: Api):
    child = make(api)["_id"]
    parent = group(api, continuations=[child])
    edits = {"remove_continuations": [child], "add_final_continuations": [child]}
    assert api.patch(f"tasks/{parent}", edits).status_code == 200
    assert (read(api, child)["after"], read(api, child)["after_any"]) == ([], [parent])
    assert read(api, child)["pending_dependency_count"] == 1


def test_edges_and_the_new_state_go_together(api: Api):
    child = make(api)["_id"]
    parent = group(api)
    edits = {"add_continuations": [child], "state": "available"}
    answer = api.patch(f"tasks/{parent}", edits)
    assert (answer.status_code, answer.json()["state"]) == (200, "terminated")
    assert read(api, child)["state"] == "available"


# --- Refusals ---------------------------------------------------------------------------


@pytest.mark.parametrize(("form", "state"), list(itertools.product(FORMS, NOT_INACTIVE)))
def test_adding_needs_two_inactive_ends(server: Server, form: str, state: str):
    api, other, busy = server.provider, group(server.provider), in_state(server, state)
    before = versions(api, other, busy)
    for parent, child in [(busy, other), (other, busy)]:
        answer = FORMS[form](api, "add_continuations", parent, [child])
        issues = refused(answer, 422, "invalid")
        told = str(issues)
        assert busy in told
        assert state in told
        assert f"the {'parent' if parent == busy else 'child'} {busy}" in told
    assert versions(api, other, busy) == before


@pytest.mark.parametrize("state", NOT_INACTIVE)
@pytest.mark.parametrize("kind", KINDS)
def test_a_new_parent_needs_inactive_children(server: Server, kind: str, state: str):
    api, child, good = server.provider, in_state(server, state), make(server.provider)["_id"]
    before = versions(api, child, good)
    answer = api.post("tasks", {"name": "g", kind: [good, child]})
    issues = refused(answer, 422, "invalid")
    assert child in str(issues[kind])
    assert state in str(issues[kind])
    assert versions(api, child, good) == before


@pytest.mark.parametrize(("form", "kind"), FORMS_AND_KINDS)
def test_self_loops_unknown_ids_and_duplicates_are_refused(api: Api, form: str, kind: str):
    task, child = group(api), make(api)["_id"]
    for wrong in ([task], [new_id()], [child, child], ["x"], [None], "x", {"a": 1}, None):
        refused(FORMS[form](api, f"add_{kind}", task, wrong), 422, "invalid")
    assert read(api, task)[kind] == []


@pytest.mark.parametrize("kind", [*KINDS, *KINDS.values()])
def test_so_they_are_at_creation(api: Api, kind: str):
    own, child = new_id(), make(api)["_id"]
    for wrong in ([own], [new_id()], [child, child], ["x"], None):
        issues = refused(api.post("tasks", {"_id": own, "name": "g", kind: wrong}), 422, "invalid")
        assert kind in issues
    refused(api.get(f"tasks/{own}"), 404)
    assert read(api, child)["pending_dependency_count"] == 0


def test_somebody_elses_task_is_an_unknown_id(server: Server, api: Api):
    stranger = server.account("provider", name="stranger")
    theirs, mine = group(stranger), group(api)
    refused(api.post(f"tasks/{mine}/add_continuations", [theirs]), 422, "invalid")
    refused(api.post("tasks", {"name": "g", "after": [theirs]}), 422, "invalid")
    refused(api.post("tasks", {"name": "g", "continuations": [theirs]}), 422, "invalid")
    assert read(stranger, theirs)["continuations"] == read(stranger, theirs)["after"] == []


def test_continuations_are_set_at_creation_and_edited_by_their_own_names(api: Api):
    task, child = group(api), make(api)["_id"]
    for name in (*KINDS, *KINDS.values()):
        issues = refused(api.patch(f"tasks/{task}", {name: [child]}), 422, "invalid")
        assert name in issues
    assert read(api, child)["pending_dependency_count"] == 0


# --- Cycles -----------------------------------------------------------------------------


def ring(api: Api, length: int, kinds: list[str]) -> list[str]:
    """A chain of this many groups, stored in one list, with edges of these kinds in turn."""
    ids = [new_id() for _ in range(length)]
    tasks = [
        {"_id": one, kinds[number % len(kinds)]: ids[number + 1 : number + 2]}
        for number, one in enumerate(ids)
    ]
    assert api.post("tasks", tasks).status_code == 201
    return ids


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("length", [2, 3, 10, 400])
def test_an_edge_that_closes_a_cycle_is_refused_however_long(api: Api, form: str, length: int):
    ids = ring(api, length, list(KINDS))
    before = versions(api, ids[0], ids[-1])
    for kind in KINDS:
        issues = refused(FORMS[form](api, f"add_{kind}", ids[-1], [ids[0]]), 422, "invalid")
        assert "cycle" in str(issues)
    assert versions(api, ids[0], ids[-1]) == before


@pytest.mark.parametrize("length", [2, 3, 1000])
def test_a_cycle_within_one_list_is_refused(api: Api, length: int):
    ids = [new_id() for _ in range(length)]
    tasks = [{"_id": one, "after_any": [ids[number - 1]]} for number, one in enumerate(ids)]
    issues = refused(api.post("tasks", tasks), 422, "invalid")
    assert sorted(map(int, issues)) == list(range(min(length, 10)))  # the first ten are named
    refused(api.get(f"tasks/{ids[0]}"), 404)


def test_a_new_task_between_two_that_exist_closes_no_cycle(api: Api):
    ids = ring(api, 5, ["continuations"])
    issues = refused(api.post("tasks", {"after": [ids[-1]], "continuations": [ids[0]]}), 422)
    assert "cycle" in str(issues)
    assert read(api, ids[-1])["continuations"] == read(api, ids[0])["after"] == []
    many = [{"name": "fine"}, {"after": [ids[-1]], "final_continuations": [ids[2]]}]
    issues = refused(api.post("tasks", many), 422)
    assert list(issues) == ["1"]


def test_one_request_of_the_collection_form_closes_no_cycle(api: Api):
    one, two, three = group(api), group(api), group(api)
    entries = [
        {"targets": [one], "values": [two]},
        {"targets": [two], "values": [three]},
        {"targets": [three], "values": [one]},
    ]
    refused(api.post("tasks/add_continuations", entries), 422, "invalid")
    assert [read(api, task)["continuations"] for task in (one, two, three)] == [[], [], []]
    assert api.post("tasks/add_continuations", entries[:2]).status_code == 200
    assert read(api, two)["after"] == [one]


# --- The collection form as a whole -----------------------------------------------------


def test_many_parents_get_many_children_at_once(api: Api):
    parents, children = [group(api) for _ in range(3)], [make(api)["_id"] for _ in range(4)]
    entries = [{"targets": parents[:2], "values": children[:2]},
               {"targets": parents, "values": children[2:]}]  # fmt: skip
    answer = api.post("tasks/add_final_continuations", entries)
    assert (answer.status_code, answer.json()) == (200, {"_status": "OK"})
    assert sorted(read(api, parents[0])["final_continuations"]) == sorted(children)
    assert sorted(read(api, parents[2])["final_continuations"]) == sorted(children[2:])
    counts = [read(api, child)["pending_dependency_count"] for child in children]
    assert counts == [2, 2, 3, 3]
    api.post("tasks/remove_final_continuations", [{"targets": parents, "values": children}])
    assert [read(api, child)["after_any"] for child in children] == [[], [], [], []]


@pytest.mark.parametrize("wrong", ["unknown", "running", "malformed"])
def test_one_bad_entry_and_nothing_is_written(server: Server, wrong: str):
    api = server.provider
    parent, other, child = group(api), group(api), make(api)["_id"]
    bad = {"unknown": new_id, "malformed": lambda: "x", "running": lambda: in_state(server, wrong)}
    before = versions(api, parent, other, child)
    for entry in (
        {"targets": [other], "values": [bad[wrong]()]},
        {"targets": [bad[wrong]()], "values": [child]},
    ):
        entries = [{"targets": [parent], "values": [child]}, entry]
        refused(api.post("tasks/add_continuations", entries), 422, "invalid")
    assert versions(api, parent, other, child) == before
