"""Reading lists: `where`, `projection`, `sort` and pages; what is not understood is 400."""

import json
from typing import Any

import pytest

from tests.contract.asking import Item, make, new_id, refused
from tests.harness import Api, Server

DEEP = "[" * 2_000 + "]" * 2_000


def found(api: Api, where: Any = None, **arguments: Any) -> list[Item]:
    """The items of one page of tasks."""
    if where is not None:
        arguments["where"] = json.dumps(where)
    answer = api.get("tasks", **arguments)
    assert answer.status_code == 200, answer.text
    items: list[Item] = answer.json()["_items"]
    return items


@pytest.fixture(scope="module")
def three(server: Server) -> str:
    """The name of three tasks with priorities 1, 2 and 3."""
    name = new_id()
    for priority in (2, 3, 1):
        make(server.provider, name=name, priority=priority, tags={"n": f"{priority}"})
    return name


# --- where -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("condition", "priorities"),
    [
        ({"priority": 2}, [2]),
        ({"priority": {"$gte": 2}}, [2, 3]),
        ({"priority": {"$gt": 1, "$lt": 3}}, [2]),
        ({"priority": {"$in": [1, 3, "x", None]}}, [1, 3]),
        ({"priority": {"$nin": [1]}}, [2, 3]),
        ({"priority": {"$not": {"$gt": 1}}}, [1]),
        ({"$or": [{"priority": 1}, {"tags.n": "3"}]}, [1, 3]),
        ({"$and": [{"priority": {"$ne": 1}}, {"tags.n": {"$exists": True}}]}, [2, 3]),
        ({"$nor": [{"priority": 1}]}, [2, 3]),
        ({"tags": {"n": "2"}}, [2]),
        ({"continuations": []}, [1, 2, 3]),
        ({"continuations": {"$size": 0}}, [1, 2, 3]),
        ({"state": "available"}, []),
        ({"owner": "provider", "_created": {"$gt": "2020-01-01T00:00:00Z"}}, [1, 2, 3]),
        ({"_created": {"$gt": "Wed, 01 Jan 2120 00:00:00 GMT"}}, []),
        ({"not_before": None}, [1, 2, 3]),
        ({}, [1, 2, 3]),
    ],
)
def test_where_finds_what_it_describes(
    server: Server, three: str, condition: Item, priorities: list[int]
):
    items = found(server.provider, {"name": three, **condition}, sort="priority")
    assert [item["priority"] for item in items] == priorities


def test_ids_are_ids_only_where_the_field_is_one(server: Server):
    name = new_id()  # 24 hex digits, and yet a name
    child = make(server.provider, name=name)
    parent = make(server.provider, continuations=[child["_id"]])
    assert [item["_id"] for item in found(server.provider, {"name": name})] == [child["_id"]]
    for condition in ({"_id": parent["_id"]}, {"continuations": child["_id"]}):
        assert [item["_id"] for item in found(server.provider, condition)] == [parent["_id"]]
    assert found(server.provider, {"after": {"$in": [parent["_id"]]}})[0]["_id"] == child["_id"]


@pytest.mark.parametrize(
    "where",
    [
        '{"$where": "sleep(300)"}', '{"name": {"$regex": "^a"}}', '{"name": {"$where": "1"}}',
        '"$where"=="sleep(300)"', '{"a":1} or "$where"=="sleep(300)"', 'name=="x"', "state == 'a'",
        '{"$expr": {"$gt": ["$_id", "a"]}}', '{"$and": [{"$expr": {"$gt": ["$_id", 1]}}]}',
        '{"name": {"$not": {"$regex": "a"}}}', '{"tags": {"$elemMatch": {"a": 1}}}',
        '{"$text": {"$search": "x"}}', '{"$jsonSchema": {}}', '{"$comment": "x"}',
        '{"name": {"$gt": {"$where": "x"}}}', '{"name": {"$eq": {"$gt": 1}}}', '{"$function": {}}',
        '{"holder.account": "worker"}', '{"holder": {"$exists": true}}', '{"open_parents": []}',
        '{"token": {"$gte": "S"}}', '{"hash": 1}', '{"account": "worker"}', '{"nothing": 1}',
        '{"name.x": 1}', '{"tags.a.b": 1}', '{"": 1}', '{".": 1}', '{"tags.": 1}',
        '{"__proto__": 1}', '{"worker": "x"}', '{"exit_status": "success"}',
        "1", "[1]", "null", '"x"', "true", "{", " ", "{}}", "{'name': 1}", "{name: 1}", "NaN",
        '{"name": NaN}', '{"name": 1e999}', '{"name": "\\ud800"}', '{"name": "a\x00"}',
        '{"$and": "x"}', '{"$and": []}', '{"$and": [1]}', '{"$or": {}}', '{"$and": null}',
        '{"priority": {"$in": 1}}', '{"priority": {"$in": null}}', '{"priority": {"$size": -1}}',
        '{"continuations": {"$size": "a"}}', '{"continuations": {"$size": true}}',
        '{"name": {"$exists": 1}}', '{"name": {"$not": 1}}', '{"name": {"$not": {}}}',
        '{"name": {"$not": {"a": 1}}}', '{"name": {"$type": 2}}', '{"name": {"$gt": 1, "x": 2}}',
        '{"continuations": {"$size": 9999999999}}',
        '{"_created": "yesterday"}', '{"_created": {"$gt": "2026-99-01"}}',
        DEEP, '{"$and":[' * 40 + "{}" + "]}" * 40, '{"priority": {"$in": [' + "1," * 3000 + "1]}}",
    ],
)  # fmt: skip
def test_a_where_that_is_not_understood_is_400(server: Server, where: str):
    refused(server.provider.get("tasks", where=where), 400, "bad_request")


@pytest.mark.parametrize("field", ["hash", "token", "_id.$x", "password", "public_id"])
def test_secrets_can_be_neither_asked_for_nor_guessed_at(server: Server, field: str):
    refused(server.admin.get("accounts", where=json.dumps({field: {"$gte": "S"}})), 400)
    refused(server.admin.get("accounts", projection=json.dumps({field: 1})), 400)
    refused(server.admin.get("accounts", sort=field), 400)


def test_tokens_and_secrets_are_no_resources(server: Server):
    for path in ("tokens", "secrets", "log_chunks", "shapes", "guards"):
        refused(server.admin.get(path), 404)
    for item in server.admin.get("accounts").json()["_items"]:
        assert item.keys().isdisjoint({"token", "tokens", "hash"})


# --- projection --------------------------------------------------------------------------


def test_a_projection_answers_with_what_it_names(server: Server, three: str):
    where = {"name": three}
    for projection in ('{"state": 1}', '["state"]', '{"state": true}'):
        for item in found(server.provider, where, projection=projection):
            assert item.keys() == {"_id", "_created", "_updated", "_etag", "_links", "state"}


def test_a_projection_may_name_a_part_of_a_field(server: Server):
    task = make(server.provider, tags={"a": "1", "b": "2"})
    answer = server.provider.get(f"tasks/{task['_id']}", projection='{"tags.a": 1}')
    assert answer.json()["tags"] == {"a": "1"}
    answer = server.provider.get(f"tasks/{task['_id']}", projection='{"tags.a": 1, "tags": 1}')
    assert answer.json()["tags"] == {"a": "1", "b": "2"}


@pytest.mark.parametrize(
    "projection",
    [
        '{"state": 0}', '{"token": 0}', '{"_etag": 0}', '{"holder": 1}', '{"open_parents": 1}',
        '{"shape": 1}', '{"nothing": 1}', '{"state": {"$meta": "textScore"}}', '{"state": "$name"}',
        '{"continuations": {"$slice": 1}}', '{"a": {"$meta": "x"}}', '{"$where": 1}',
        '{"tags.$x": 1}', '{"tags.$": 1}', '{"continuations.$": 1}', '{"worker.x": 1}',
        '{"tags.a\\u0000": 1}', '["tags.\\u0000"]',
        '{"": 1}', '{"tags.": 1}', '{"tags..a": 1}', '{"name.first": 1}',
        "1", "null", '"state"', "[1]", "[[1]]", "{", "state", DEEP,
    ],
)  # fmt: skip
def test_a_projection_that_is_not_understood_is_400(server: Server, projection: str):
    make(server.provider)
    refused(server.provider.get("tasks", projection=projection), 400, "bad_request")


# --- sort and pages ----------------------------------------------------------------------


@pytest.mark.parametrize("sort", ["-priority", '[["priority", -1]]', "-priority,name"])
def test_sort_puts_them_in_order(server: Server, three: str, sort: str):
    items = found(server.provider, {"name": three}, sort=sort)
    assert [item["priority"] for item in items] == [3, 2, 1]


@pytest.mark.parametrize(
    "sort",
    [
        '[("n", 5)]', '[["priority", 5]]', '[["priority"]]', "[[1, 1]]", "[1]", "[]", "[", ",", "-",
        "nothing", "$natural", "holder", "open_parents", "token", "priority,priority",
        "--priority,", "a,b,c,d,e", "tags.$x", "tags.a\x00", "tags.\x00", "tags..a",
        "continuations,after", '[["priority", {"$meta": "x"}]]', '{"a": 1}',
    ],
)  # fmt: skip
def test_a_sort_that_is_not_understood_is_400(server: Server, three: str, sort: str):
    refused(server.provider.get("tasks", sort=sort), 400, "bad_request")


def test_pages_follow_each_other_and_their_links_lead_on(server: Server, three: str):
    query = {"where": json.dumps({"name": three}), "sort": "priority", "max_results": 2}
    first = server.provider.get("tasks", **query).json()
    assert [item["priority"] for item in first["_items"]] == [1, 2]
    assert (first["_meta"]["page"], first["_meta"]["max_results"]) == (1, 2)
    assert "prev" not in first["_links"]
    second = server.provider.get(first["_links"]["next"]["href"]).json()
    assert [item["priority"] for item in second["_items"]] == [3]
    assert "next" not in second["_links"]
    back = server.provider.get(second["_links"]["prev"]["href"]).json()
    assert back["_items"] == first["_items"]


def test_a_page_past_the_end_is_empty(server: Server, three: str):
    assert found(server.provider, {"name": three}, page=99) == []


@pytest.mark.parametrize("name", ["page", "max_results"])
@pytest.mark.parametrize(
    "number", ["0", "-1", "1e400", "10" * 11, "x", "1.5", " 1", "+1", "\u0661", "NaN", ""]
)
def test_a_page_number_is_a_number(server: Server, name: str, number: str):
    refused(server.provider.get("tasks", **{name: number}), 400, "bad_request")


def test_more_than_a_page_may_hold_is_refused_not_clipped(server: Server):
    refused(server.provider.get("tasks", max_results=1001), 400, "bad_request")
    assert server.provider.get("tasks", max_results=1000).status_code == 200


@pytest.mark.parametrize("name", ["wher", "callback", "aggregate", "embedded", "version", "$where"])
def test_an_unknown_argument_is_refused_not_ignored(server: Server, name: str):
    task = make(server.provider)
    refused(server.provider.get("tasks", **{name: "x"}), 400, "bad_request")
    refused(server.provider.get(f"tasks/{task['_id']}", **{name: "x"}), 400, "bad_request")


# --- Lists of others, conditional reads ----------------------------------------------------


def test_a_filter_does_not_reach_past_the_callers_own(server: Server, three: str):
    other = server.account("provider", name="reader")
    for where in ({"name": three}, {"$or": [{"name": three}, {"owner": "provider"}]}, {}):
        assert found(other, where) == []
    assert len(found(server.operator, {"name": three})) == 3


def test_a_read_that_has_not_changed_is_304(server: Server):
    task = make(server.provider)
    for path in ("tasks", f"tasks/{task['_id']}", f"tasks/{task['_id']}/history"):
        first = server.provider.get(path)
        again = server.provider.get(path, headers={"If-None-Match": first.headers["ETag"]})
        assert (again.status_code, again.content) == (304, b""), path
    first = server.provider.get(f"tasks/{task['_id']}")
    server.provider.patch(f"tasks/{task['_id']}", {"name": "new"})
    etag = first.headers["ETag"]
    again = server.provider.get(f"tasks/{task['_id']}", headers={"If-None-Match": etag})
    assert (again.status_code, again.json()["name"]) == (200, "new")


def test_minimal_lists_have_no_links(server: Server, three: str):
    answer = server.provider.get(
        "tasks", where=json.dumps({"name": three}), headers={"Prefer": "return=minimal"}
    )
    assert "_links" not in answer.json()
    assert all("_links" not in item for item in answer.json()["_items"])
