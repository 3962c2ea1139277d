"""Contract §5: append and remove in their three forms, aliases, and what has which method."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.contract.asking import Item, make, new_id, read, refused
from tests.contract.playing import Play
from tests.harness import Api, Server

LISTS = ["continuations", "failure_continuations", "final_continuations"]
ALIASES = [
    "current_attempt", "worker", "exit_status", "time_started", "time_terminated",
    "memory_usage", "cpu_utilization", "gpu_usage", "progress", "result",
]  # fmt: skip
READ_ONLY = ALIASES[:8]

Form = Callable[[Api, str, str, list[str]], Any]


def by_post(api: Api, target: str, name: str, values: Any) -> Any:
    return api.post(f"tasks/{target}/{name}", values)


def by_patch(api: Api, target: str, name: str, values: Any) -> Any:
    return api.patch(f"tasks/{target}/{name}", values)


def by_field(api: Api, target: str, name: str, values: Any) -> Any:
    return api.patch(f"tasks/{target}", {name: values})


def by_bulk(api: Api, target: str, name: str, values: Any) -> Any:
    return api.post(f"tasks/{name}", [{"targets": [target], "values": values}])


FORMS = pytest.mark.parametrize("form", [by_post, by_patch, by_field, by_bulk])


def ids(tasks: list[Item]) -> list[str]:
    return [task["_id"] for task in tasks]


# --- The three forms -----------------------------------------------------------------------


@FORMS
@pytest.mark.parametrize("field", LISTS)
def test_each_form_adds_and_removes(server: Server, form: Form, field: str):
    parent = make(server.provider)["_id"]
    children = ids([make(server.provider) for _ in range(3)])
    added = form(server.provider, parent, f"add_{field}", children)
    assert (added.status_code, added.json()["_status"]) == (200, "OK")
    assert read(server.provider, parent)[field] == children
    assert [read(server.provider, one)["pending_dependency_count"] for one in children] == [1, 1, 1]
    removed = form(server.provider, parent, f"remove_{field}", children[:2])
    assert (removed.status_code, removed.json()["_status"]) == (200, "OK")
    assert read(server.provider, parent)[field] == children[2:]
    assert [read(server.provider, one)["pending_dependency_count"] for one in children] == [0, 0, 1]


@FORMS
def test_each_form_takes_nothing_twice(server: Server, form: Form):
    parent, child = make(server.provider)["_id"], make(server.provider)["_id"]
    for _ in range(2):
        assert form(server.provider, parent, "add_continuations", [child]).status_code == 200
    assert read(server.provider, parent)["continuations"] == [child]
    assert read(server.provider, child)["pending_dependency_count"] == 1


@FORMS
def test_removing_what_is_not_there_changes_nothing(server: Server, form: Form):
    parent, other = make(server.provider), make(server.provider)
    answer = form(server.provider, parent["_id"], "remove_continuations", [other["_id"], new_id()])
    assert answer.status_code == 200, answer.text
    assert read(server.provider, parent)["_etag"] == parent["_etag"]
    assert read(server.provider, other)["_etag"] == other["_etag"]


@FORMS
@pytest.mark.parametrize("name", ["add_continuations", "remove_final_continuations"])
@pytest.mark.parametrize(
    "bad",
    [None, "x", 5, {}, ["x"], [5], [None], [["a"]], [{"$gt": ""}], ["f" * 24, "f" * 24]],
)
def test_each_form_validates_by_the_schema_of_the_field(
    server: Server, form: Form, name: str, bad: Any
):
    parent = make(server.provider)
    issues = refused(form(server.provider, parent["_id"], name, bad), 422, "invalid")
    assert issues.keys() == ({"0"} if form is by_bulk else {name})
    assert read(server.provider, parent)["_etag"] == parent["_etag"]


@FORMS
def test_each_form_takes_at_most_1024_values(server: Server, form: Form):
    parent = make(server.provider)["_id"]
    many = [f"{number:024x}" for number in range(1025)]
    refused(form(server.provider, parent, "remove_continuations", many), 422, "invalid")
    answer = form(server.provider, parent, "remove_continuations", many[:1024])
    assert answer.status_code == 200, answer.text


def test_a_list_grows_to_1024_and_no_further(server: Server):
    parent = make(server.provider)["_id"]
    prefer = {"Prefer": "return=minimal"}
    made = [server.provider.post("tasks", [{"name": "c"}] * 513, headers=prefer) for _ in range(2)]
    first, second = (ids(answer.json()["_items"]) for answer in made)
    for form in (by_post, by_field, by_bulk):
        assert form(server.provider, parent, "add_continuations", first).status_code == 200
        refused(form(server.provider, parent, "add_continuations", second), 422, "invalid")
    last = by_post(server.provider, parent, "add_continuations", second[:511])
    assert last.status_code == 200, last.text
    assert len(read(server.provider, parent)["continuations"]) == 1024


@FORMS
def test_each_form_refuses_an_unknown_child(server: Server, form: Form):
    parent = make(server.provider)
    answer = form(server.provider, parent["_id"], "add_continuations", [new_id()])
    issues = refused(answer, 422, "invalid")
    assert issues.keys() == ({"0"} if form is by_bulk else {"add_continuations"})
    assert read(server.provider, parent)["_etag"] == parent["_etag"]


@FORMS
def test_each_form_refuses_a_child_that_is_not_inactive(server: Server, form: Form):
    parent = make(server.provider)
    fine, busy = make(server.provider), make(server.provider, state="available")
    answer = form(server.provider, parent["_id"], "add_continuations", [fine["_id"], busy["_id"]])
    issues = refused(answer, 422, "invalid")
    assert issues.keys() == ({"0"} if form is by_bulk else {"add_continuations"})
    assert busy["_id"] in json.dumps(issues)
    assert "available" in json.dumps(issues)
    assert read(server.provider, parent)["continuations"] == []
    assert read(server.provider, fine)["_etag"] == fine["_etag"]


@FORMS
def test_each_form_refuses_a_parent_that_is_not_inactive(server: Server, form: Form):
    parent, child = make(server.provider, state="available"), make(server.provider)
    answer = form(server.provider, parent["_id"], "add_continuations", [child["_id"]])
    issues = refused(answer, 422)
    assert parent["_id"] in json.dumps(issues)
    assert read(server.provider, child)["after"] == []


@FORMS
def test_each_form_knows_only_the_callers_tasks(server: Server, form: Form):
    other = server.account("provider", name=f"other-{form.__name__}")
    parent, child = make(server.provider)["_id"], make(other)["_id"]
    answer = form(other, parent, "add_continuations", [child])
    refused(answer, 422 if form is by_bulk else 404)
    refused(form(server.provider, parent, "add_continuations", [child]), 422)
    refused(form(server.worker, parent, "add_continuations", [child]), 403, "forbidden")
    assert read(server.provider, parent)["continuations"] == []


def test_a_virtual_field_goes_together_with_other_fields(server: Server):
    parent, child = make(server.provider), make(server.provider)
    body = {"name": "p", "add_continuations": [child["_id"]], "state": "available"}
    answer = server.provider.patch(f"tasks/{parent['_id']}", body)
    assert answer.status_code == 200, answer.text
    changed = read(server.provider, parent)
    assert (changed["name"], changed["state"]) == ("p", "available")
    assert changed["continuations"] == [child["_id"]]


def test_where_one_of_several_fields_is_wrong_nothing_is_written(server: Server):
    parent, child = make(server.provider), make(server.provider)
    for wrong in ({"name": ""}, {"add_continuations": [new_id()]}, {"priority": "x"}):
        body = {"name": "p", "add_final_continuations": [child["_id"]], **wrong}
        refused(server.provider.patch(f"tasks/{parent['_id']}", body), 422)
    assert read(server.provider, parent)["_etag"] == parent["_etag"]
    assert read(server.provider, child)["_etag"] == child["_etag"]


def test_additions_come_before_removals(server: Server):
    parent, one, two = (make(server.provider)["_id"] for _ in range(3))
    body = {"remove_continuations": [one], "add_continuations": [one, two]}
    assert server.provider.patch(f"tasks/{parent}", body).status_code == 200
    assert read(server.provider, parent)["continuations"] == [two]
    assert read(server.provider, one)["pending_dependency_count"] == 0


def test_if_match_guards_a_virtual_write_too(server: Server):
    parent, child = make(server.provider), make(server.provider)
    for path, body in (
        (f"tasks/{parent['_id']}/add_continuations", [child["_id"]]),
        (f"tasks/{parent['_id']}", {"add_continuations": [child["_id"]]}),
    ):
        answer = server.provider.patch(path, body, headers={"If-Match": '"old"'})
        refused(answer, 412, "precondition_failed")
    assert read(server.provider, parent)["_etag"] == parent["_etag"]


# --- The collection form ---------------------------------------------------------------------


def test_the_collection_form_writes_all_values_to_all_targets(server: Server):
    parents, children = (ids([make(server.provider) for _ in range(2)]) for _ in range(2))
    extra = make(server.provider)["_id"]
    body = [
        {"targets": parents, "values": children},
        {"targets": parents[:1], "values": [extra, children[0]]},
    ]
    answer = server.provider.post("tasks/add_continuations", body)
    assert (answer.status_code, answer.json()) == (200, {"_status": "OK"})
    assert read(server.provider, parents[0])["continuations"] == [*children, extra]
    assert read(server.provider, parents[1])["continuations"] == children
    assert read(server.provider, children[0])["pending_dependency_count"] == 2


@pytest.mark.parametrize(
    "entry",
    [
        5, None, [], {}, {"targets": []}, {"values": []}, {"targets": [], "values": [], "x": 1},
        {"targets": "x", "values": []}, {"targets": ["x"], "values": []},
        {"targets": [5], "values": []}, {"targets": [None], "values": []},
        {"targets": [f"{n:024x}" for n in range(1025)], "values": []},
        {"targets": ["f" * 24], "values": []}, {"targets": [], "values": ["x"]},
    ],
)  # fmt: skip
def test_an_invalid_entry_is_named_and_nothing_is_written(server: Server, entry: Any):
    parent, child = make(server.provider), make(server.provider)
    good = {"targets": [parent["_id"]], "values": [child["_id"]]}
    issues = refused(server.provider.post("tasks/add_continuations", [good, entry]), 422, "invalid")
    assert issues.keys() == {"1"}
    assert read(server.provider, parent)["_etag"] == parent["_etag"]


def test_an_entry_that_may_not_be_applied_is_named_and_nothing_is_written(server: Server):
    parents, children = (ids([make(server.provider) for _ in range(2)]) for _ in range(2))
    server.provider.patch(f"tasks/{children[1]}", {"state": "available"})
    for bad in (
        {"targets": [parents[1]], "values": [children[1]]},
        {"targets": [parents[1]], "values": [parents[1]]},
        {"targets": [children[0]], "values": [parents[0]]},
        {"targets": [parents[1]], "values": [new_id()]},
    ):
        body = [{"targets": [parents[0]], "values": [children[0]]}, bad]
        issues = refused(server.provider.post("tasks/add_continuations", body), 422, "invalid")
        assert issues.keys() == {"1"}, issues
        assert read(server.provider, parents[0])["continuations"] == []
        assert read(server.provider, children[0])["pending_dependency_count"] == 0


@pytest.mark.parametrize("body", [None, {}, [], "x", 5])
def test_the_collection_form_is_a_list_of_entries(server: Server, body: Any):
    refused(server.provider.post("tasks/add_continuations", body), 422, "invalid")


def test_the_collection_form_takes_at_most_128_entries(server: Server):
    parents = ids([make(server.provider) for _ in range(129)])
    child = make(server.provider)["_id"]
    body = [{"targets": [parent], "values": [child]} for parent in parents]
    refused(server.provider.post("tasks/add_continuations", body), 413, "too_large")
    assert read(server.provider, child)["pending_dependency_count"] == 0
    assert server.provider.post("tasks/add_continuations", body[:128]).status_code == 200
    assert read(server.provider, child)["pending_dependency_count"] == 128


# --- Methods -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "methods"),
    [
        *[(f"{verb}_{field}", {"POST", "PATCH"}) for verb in ("add", "remove") for field in LISTS],
        *[(name, {"GET"}) for name in READ_ONLY],
        ("progress", {"GET", "PATCH", "POST"}),
        ("result", {"GET", "PATCH", "POST"}),
        *[(name, {"POST"}) for name in ("cancel", "retry", "claim", "release")],
        ("history", {"GET"}),
        ("log", {"GET"}),
    ],
)
def test_a_method_that_the_kind_does_not_have_is_405_with_allow(
    server: Server, name: str, methods: set[str]
):
    task = make(server.provider)
    for method in {"GET", "POST", "PATCH", "PUT", "DELETE"} - methods:
        answer = server.provider.request(method, f"tasks/{task['_id']}/{name}", json=[])
        refused(answer, 405, "method_not_allowed")
        assert set(answer.headers["Allow"].split(", ")) - {"HEAD", "OPTIONS"} == methods


@pytest.mark.parametrize("name", [*READ_ONLY, "history", "log", "add_continuations"])
def test_the_collection_has_no_method_for_what_is_an_items(server: Server, name: str):
    method = "GET" if name == "add_continuations" else "POST"
    refused(server.provider.request(method, f"tasks/{name}", json=[]), 405, "method_not_allowed")


@pytest.mark.parametrize("name", ["nothing", "name", "state", "continuations", "add_after", "beat"])
def test_a_name_that_is_no_virtual_subresource_is_404(server: Server, name: str):
    task = make(server.provider)
    for path in (f"tasks/{task['_id']}/{name}", f"tasks/{name}"):
        for method in ("GET", "POST", "PATCH"):
            refused(server.provider.request(method, path, json=[]), 404, "not_found")


# --- Aliases -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ended(server: Server) -> Item:
    """A task whose attempt reported one of everything, with the worker's id."""
    play = Play(server)
    [task_id] = play.submit()
    player = play.player()
    [item] = player.claim(start=True)
    time = "2026-11-22T06:51:14.123Z"
    answer = player.report(
        item,
        memory_usage=[{"time": time, "resident_memory_bytes": 5}],
        cpu_utilization=[{"time": time, "utilization_percent": 50}],
        gpu_usage=[{"time": time, "ordinal": 0, "used_memory_bytes": 7}],
    )
    assert answer.status_code == 200, answer.text
    body = {"update_execution_data": {"token": item["token"]}}
    fields = {"progress": {"done": 1, "total": 2}, "result": {"answer": 42}}
    assert server.worker.patch(f"tasks/{task_id}", {**fields, **body}).status_code == 200
    assert player.end(item).status_code == 200
    return {**play.task(task_id), "worker": player.id}


@pytest.mark.parametrize("name", ALIASES)
def test_an_alias_reads_as_its_name_and_value(server: Server, ended: Item, name: str):
    fresh = make(server.provider)
    assert server.provider.get(f"tasks/{fresh['_id']}/{name}").json() == {name: None}
    answer = server.provider.get(f"tasks/{ended['_id']}/{name}").json()
    assert answer.keys() == {name}
    expected = {
        "worker": ended["worker"], "exit_status": "success", "result": {"answer": 42},
        "progress": {"done": 1, "total": 2},
    }  # fmt: skip
    assert answer[name] == expected.get(name, answer[name])
    assert answer[name]


def test_the_current_attempt_is_the_record_of_the_attempt(server: Server, ended: Item):
    record = server.provider.get(f"tasks/{ended['_id']}/current_attempt").json()["current_attempt"]
    assert record["_id"] == ended["attempt_id"]
    assert record["task"] == ended["_id"]
    assert "token" not in json.dumps(record)


def test_projections_may_name_aliases(server: Server, ended: Item):
    other = make(server.provider, name=new_id())
    where = json.dumps({"_id": {"$in": [ended["_id"], other["_id"]]}})
    answer = server.provider.get("tasks", where=where, projection='{"worker": 1, "exit_status": 1}')
    items = {item["_id"]: item for item in answer.json()["_items"]}
    assert items[ended["_id"]]["worker"] == ended["worker"]
    assert items[ended["_id"]]["exit_status"] == "success"
    assert items[other["_id"]]["worker"] is None
    for item in items.values():
        names = {name for name in item if not name.startswith("_")}
        assert names == {"worker", "exit_status"}
    one = server.provider.get(f"tasks/{ended['_id']}", projection='["worker", "state"]').json()
    assert (one["worker"], one["state"]) == (ended["worker"], "terminated")


@pytest.mark.parametrize("name", READ_ONLY)
def test_a_readonly_alias_is_no_field_of_a_patch(server: Server, name: str):
    task = make(server.provider)
    answer = server.provider.patch(f"tasks/{task['_id']}", {name: "x"})
    assert refused(answer, 422).keys() == {name}
    assert read(server.provider, task)["_etag"] == task["_etag"]
