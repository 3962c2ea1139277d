"""Contract §5: a resource and virtual subresources of one's own, from the tables alone.

The settings page of `own_page.py` adds `tasks_notes` (a name that begins as another does)
with a row of every kind; what an action and a view do is the only code.
"""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.contract.asking import Item, new_id, refused
from tests.contract.own_page import Extended
from tests.harness import Api, Server, start_server


@pytest.fixture(scope="module")
def server(module_database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server whose settings page extends the real one."""
    directory = tmp_path_factory.mktemp("own")
    own = Extended(directory)
    yield start_server(own, directory / "data", module_database)
    own.end()


def note(server: Server, **fields: Any) -> Item:
    """A new note."""
    answer = server.provider.post("tasks_notes", {"title": "t", **fields})
    assert answer.status_code == 201, answer.text
    made: Item = answer.json()
    return made


def read(api: Api, path: str) -> Item:
    """What is at an address of one's own resource."""
    answer = api.get(f"tasks_notes/{path}")
    assert answer.status_code == 200, answer.text
    found: Item = answer.json()
    return found


# --- The resource itself -----------------------------------------------------------------------


def test_it_is_created_read_and_listed(server: Server):
    made = note(server, lines=["a"], colour={"name": "red", "shade": 3})
    found = read(server.provider, made["_id"])
    assert (found["title"], found["lines"]) == ("t", ["a"])
    assert found["_etag"] == made["_etag"]
    where = json.dumps({"colour.shade": {"$gt": 2}, "_id": made["_id"]})
    listed = server.provider.get("tasks_notes", where=where).json()["_items"]
    assert [item["_id"] for item in listed] == [made["_id"]]


def test_a_list_of_them_is_stored_whole_or_not_at_all(server: Server):
    title = new_id()
    answer = server.provider.post("tasks_notes", [{"title": title}, {"title": title}])
    assert answer.status_code == 201
    assert len(answer.json()["_items"]) == 2
    issues = refused(server.provider.post("tasks_notes", [{"title": title}, {"count": -1}]), 422)
    assert issues.keys() == {"1"}
    assert issues["1"].keys() == {"title", "count"}
    where = json.dumps({"title": title})
    assert len(server.provider.get("tasks_notes", where=where).json()["_items"]) == 2


@pytest.mark.parametrize(
    "body",
    [
        {}, None, 5, {"title": ""}, {"title": "t", "sealed": True}, {"title": "t", "nothing": 1},
        {"title": "t", "readers": ["a", "a"]}, {"title": "t", "colour": {"shade": 10}},
        {"title": "t", "owner": "me"}, {"title": "t", "count": True}, {"title": "t", "a\x00": 1},
    ],
)  # fmt: skip
def test_its_schema_says_what_is_valid(server: Server, body: Any):
    answer = server.provider.post("tasks_notes", body)
    assert answer.status_code in (400, 422), answer.text


def test_an_empty_list_and_a_too_long_one_are_refused(server: Server):
    refused(server.provider.post("tasks_notes", []), 422, "invalid")
    refused(server.provider.post("tasks_notes", [{"title": "t"}] * 1001), 413, "too_large")


def test_it_is_changed_and_removed(server: Server):
    made = note(server, count=1)
    path = f"tasks_notes/{made['_id']}"
    changed = server.provider.patch(path, {"count": 2, "colour": {"name": "red"}})
    assert changed.status_code == 200, changed.text
    assert changed.json()["_etag"] != made["_etag"]
    assert (changed.json()["count"], changed.json()["title"]) == (2, "t")
    refused(server.provider.patch(path, {"count": 3}, headers={"If-Match": made["_etag"]}), 412)
    refused(server.provider.patch(path, {"count": -1}), 422)
    refused(server.provider.patch(path, []), 422)
    assert server.provider.delete(path).status_code == 204
    refused(server.provider.get(path), 404)
    refused(server.provider.delete(path), 404)


def test_its_roles_say_who_may(server: Server):
    path = f"tasks_notes/{note(server)['_id']}"
    refused(server.worker.post("tasks_notes", {"title": "t"}), 403, "forbidden")
    refused(server.worker.patch(path, {"count": 1}), 403, "forbidden")
    refused(server.admin.get("tasks_notes"), 403, "forbidden")
    refused(server.anonymous.get(path), 401, "unauthenticated")


def test_it_belongs_to_who_made_it(server: Server):
    path = f"tasks_notes/{note(server)['_id']}"
    other = server.account("provider", name=new_id())
    for method, where, body in (
        ("GET", path, None),
        ("PATCH", path, {"count": 1}),
        ("DELETE", path, None),
        ("POST", f"{path}/add_lines", ["x"]),
        ("GET", f"{path}/shade", None),
    ):
        refused(other.request(method, where, body), 404, "not_found")
    assert other.get("tasks_notes").json()["_items"] == []


def test_it_has_no_method_that_it_does_not_declare(server: Server):
    for method in ("PATCH", "DELETE", "PUT"):
        refused(server.provider.request(method, "tasks_notes", json={}), 405)


# --- append and remove ---------------------------------------------------------------------------


def by_post(api: Api, item: str, name: str, values: Any) -> Any:
    return api.post(f"tasks_notes/{item}/{name}", values)


def by_patch(api: Api, item: str, name: str, values: Any) -> Any:
    return api.patch(f"tasks_notes/{item}/{name}", values)


def by_field(api: Api, item: str, name: str, values: Any) -> Any:
    return api.patch(f"tasks_notes/{item}", {name: values})


def by_bulk(api: Api, item: str, name: str, values: Any) -> Any:
    return api.post(f"tasks_notes/{name}", [{"targets": [item], "values": values}])


FORMS = pytest.mark.parametrize("form", [by_post, by_patch, by_field, by_bulk])


@FORMS
def test_a_list_that_allows_duplicates_gets_them(server: Server, form: Callable[..., Any]):
    made = note(server)["_id"]
    for values in (["a", "b"], ["a", "a"]):
        assert form(server.provider, made, "add_lines", values).status_code == 200
    assert read(server.provider, made)["lines"] == ["a", "b", "a", "a"]
    assert form(server.provider, made, "remove_lines", ["a", "c"]).status_code == 200
    assert read(server.provider, made)["lines"] == ["b"]


@FORMS
def test_a_list_that_allows_none_gets_none(server: Server, form: Callable[..., Any]):
    made = note(server, readers=["a"])["_id"]
    assert form(server.provider, made, "add_readers", ["b", "a"]).status_code == 200
    assert read(server.provider, made)["readers"] == ["a", "b"]
    refused(form(server.provider, made, "add_readers", ["c", "c"]), 422, "invalid")
    assert form(server.provider, made, "remove_readers", ["a", "z"]).status_code == 200
    assert read(server.provider, made)["readers"] == ["b"]


@FORMS
@pytest.mark.parametrize("bad", [None, "x", [5], ["x" * 11], ["a"] * 5, {"$each": ["a"]}])
def test_values_are_validated_by_the_fields_schema(
    server: Server, form: Callable[..., Any], bad: Any
):
    made = note(server)
    issues = refused(form(server.provider, made["_id"], "add_lines", bad), 422, "invalid")
    assert issues.keys() == ({"0"} if form is by_bulk else {"add_lines"})
    assert read(server.provider, made["_id"])["_etag"] == made["_etag"]


@FORMS
def test_values_are_values_whatever_they_look_like(server: Server, form: Callable[..., Any]):
    made = note(server)["_id"]
    assert (
        form(server.provider, made, "add_readers", ["$title", "a.b", "$$ROOT"]).status_code == 200
    )
    assert read(server.provider, made)["readers"] == ["$title", "a.b", "$$ROOT"]


@FORMS
def test_a_row_has_roles_of_its_own_in_every_form(server: Server, form: Callable[..., Any]):
    made = note(server)["_id"]
    refused(form(server.provider, made, "approve", ["x"]), 403, "forbidden")
    assert "readers" not in read(server.provider, made)


def test_fields_additions_and_removals_go_in_one_patch(server: Server):
    made = note(server, readers=["a"], lines=["x"])["_id"]
    body = {
        "count": 7, "shade": 4, "remove_readers": ["b", "a"], "add_readers": ["b", "c"],
        "add_lines": ["y"],
    }  # fmt: skip
    answer = server.provider.patch(f"tasks_notes/{made}", body)
    assert answer.status_code == 200, answer.text
    found = read(server.provider, made)
    assert (found["readers"], found["lines"], found["count"]) == (["c"], ["x", "y"], 7)
    assert found["colour"] == {"shade": 4}


def test_the_collection_form_is_checked_as_a_whole(server: Server):
    one, two = note(server), note(server)
    good = {"targets": [one["_id"], two["_id"]], "values": ["x"]}
    for bad in (
        {"targets": [new_id()], "values": ["x"]},
        {"targets": [two["_id"]], "values": [5]},
        {"targets": "x", "values": ["x"]},
    ):
        issues = refused(server.provider.post("tasks_notes/add_lines", [good, bad]), 422)
        assert issues.keys() == {"1"}
    assert read(server.provider, one["_id"])["_etag"] == one["_etag"]
    answer = server.provider.post("tasks_notes/add_lines", [good, good])
    assert (answer.status_code, answer.json()) == (200, {"_status": "OK"})
    assert read(server.provider, two["_id"])["lines"] == ["x", "x"]


# --- Aliases, actions, views ----------------------------------------------------------------------


def test_an_alias_of_a_nested_field_is_read_and_written(server: Server):
    made = note(server, colour={"name": "red", "shade": 3})["_id"]
    path = f"tasks_notes/{made}"
    assert server.provider.get(f"{path}/shade").json() == {"shade": 3}
    assert server.provider.patch(f"{path}/shade", 5).status_code == 200
    assert server.provider.get(f"{path}/shade").json() == {"shade": 5}
    assert server.provider.patch(path, {"shade": 6}).status_code == 200
    entry = {"targets": [made], "values": 7}
    assert server.provider.post("tasks_notes/shade", [entry]).status_code == 200
    assert read(server.provider, made)["colour"] == {"name": "red", "shade": 7}
    for refusal in (
        server.provider.patch(f"{path}/shade", 10),
        server.provider.patch(path, {"shade": "dark"}),
        server.provider.post("tasks_notes/shade", [{**entry, "values": 10}]),
        server.provider.post("tasks_notes/shade", [{"targets": [new_id()], "values": 1}]),
    ):
        refused(refusal, 422, "invalid")


def test_a_field_and_a_part_of_it_at_once_are_422(server: Server):
    made = note(server)
    body = {"colour": {"name": "red"}, "shade": 1}
    refused(server.provider.patch(f"tasks_notes/{made['_id']}", body), 422, "invalid")
    assert read(server.provider, made["_id"])["_etag"] == made["_etag"]


def test_a_readonly_alias_is_read_only(server: Server):
    path = f"tasks_notes/{note(server, colour={'name': 'red'})['_id']}"
    assert server.provider.get(f"{path}/colour_name").json() == {"colour_name": "red"}
    refused(server.provider.patch(f"{path}/colour_name", "green"), 405, "method_not_allowed")
    assert "colour_name" in refused(server.provider.patch(path, {"colour_name": "green"}), 422)


def test_a_projection_may_name_an_alias(server: Server):
    made = note(server, colour={"name": "red", "shade": 3})["_id"]
    answer = server.provider.get(f"tasks_notes/{made}", projection='{"shade": 1, "title": 1}')
    shown = {name: v for name, v in answer.json().items() if not name.startswith("_")}
    assert shown == {"shade": 3, "title": "t"}


def test_a_new_row_of_an_old_resource_works_as_well(server: Server):
    task = server.provider.post("tasks", {"name": "long"}).json()
    path = f"tasks/{task['_id']}"
    assert server.provider.get(f"{path}/nickname").json() == {"nickname": "long"}
    assert server.provider.patch(f"{path}/nickname", "short").status_code == 200
    assert server.provider.patch(path, {"nickname": "shorter"}).status_code == 200
    assert server.provider.get(path).json()["name"] == "shorter"
    assert "nickname" in refused(server.provider.patch(path, {"nickname": ""}), 422)
    both = {"nickname": "a", "name": "b"}
    assert refused(server.provider.patch(path, both), 422, "invalid")


def test_a_nested_field_of_an_old_resource_may_have_an_alias(server: Server):
    asked = {"cores": 2, "memory": "1 GiB"}
    task = server.provider.post("tasks", {"requested_resources": asked}).json()
    path = f"tasks/{task['_id']}"
    assert server.provider.get(f"{path}/memory").json() == {"memory": 2**30}
    for written in (
        server.provider.patch(f"{path}/memory", 5),
        server.provider.patch(path, {"memory": 6}),
        server.provider.post("tasks/memory", [{"targets": [task["_id"]], "values": 7}]),
    ):
        assert written.status_code == 200, written.text
    changed = server.provider.get(path).json()["requested_resources"]
    assert changed == {**task["requested_resources"], "cpu_memory_bytes": 7}
    assert refused(server.provider.patch(path, {"memory": -1}), 422).keys() == {"memory"}


def test_an_action_and_a_view_need_their_function_only(server: Server):
    made = note(server)["_id"]
    answer = server.provider.post(f"tasks_notes/{made}/shout", {"loud": True})
    assert answer.json() == {"shouted": {"loud": True}, "item": made, "_status": "OK"}
    assert server.provider.post("tasks_notes/shout", [1]).json()["shouted"] == [1]
    assert server.provider.get(f"tasks_notes/{made}/length").json() == {"_items": ["t"]}
    assert server.provider.get("tasks_notes/length").json() == {"_items": []}
    refused(server.provider.get(f"tasks_notes/{made}/shout"), 405)
    refused(server.provider.post(f"tasks_notes/{made}/length"), 405)
    refused(server.worker.post(f"tasks_notes/{made}/shout", {}), 403, "forbidden")
    refused(server.anonymous.get(f"tasks_notes/{made}/length"), 401)


def test_its_links_come_from_the_table(server: Server):
    made = note(server)
    path = f"tasks_notes/{made['_id']}"
    links = read(server.provider, made["_id"])["_links"]
    assert links["self"]["href"] == f"/{path}"
    assert links["collection"]["href"] == "/tasks_notes"
    assert links["add_lines"] == {"title": "Write more", "href": f"/{path}/add_lines",
                                  "method": "POST"}  # fmt: skip
    assert links["remove"]["method"] == "DELETE"
    assert links["length"]["method"] == "GET"
    assert {"add_lines", "shout", "edit", "remove"}.isdisjoint(
        read(server.worker, made["_id"])["_links"]
        if server.worker.get(path).status_code == 200
        else {}
    )
    home = server.provider.get("").json()["_links"]["child"]
    assert "/tasks_notes" in [link["href"] for link in home]
    actions = server.provider.get("tasks_notes").json()["_links"]
    assert actions["shout"]["href"] == "/tasks_notes/shout"


def test_minimal_answers_echo_nothing(server: Server):
    headers = {"Prefer": "return=minimal"}
    made = server.provider.post("tasks_notes", {"title": "t"}, headers=headers).json()
    assert made.keys() == {"_id", "_etag", "_status"}
    path = f"tasks_notes/{made['_id']}"
    changed = server.provider.patch(path, {"count": 1}, headers=headers).json()
    assert changed.keys() == {"_id", "_etag", "_status"}
