"""/openapi.json says what there is: nothing more, nothing less, and the docs say the same."""

import re
import subprocess
import sys
from typing import Any

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from banyan.config import settings
from banyan.errors import LOCAL_WORDS, WORDS
from banyan.server import openapi, table
from banyan.server.app import create_app
from banyan.server.store.indexes import prepare_database
from tests.harness import Server
from tests.harness.processes import ROOT

METHODS = {"get", "post", "patch", "delete", "put"}


def document(server: Server) -> dict[str, Any]:
    """As anybody may read it."""
    answer = server.anonymous.get("openapi.json")
    assert answer.status_code == 200
    found: dict[str, Any] = answer.json()
    return found


def operations(document: dict[str, Any]) -> set[tuple[str, str]]:
    """(method, path) of all operations."""
    return {
        (method.upper(), path)
        for path, item in document["paths"].items()
        for method in item.keys() & METHODS
    }


def test_it_is_valid_openapi(server: Server):
    OpenAPIV31SpecValidator(document(server)).validate()


def test_it_has_an_etag_like_every_other_read(server: Server):
    etag = server.anonymous.get("openapi.json").headers["ETag"]
    again = server.anonymous.get("openapi.json", headers={"If-None-Match": etag})
    assert again.status_code == 304


def test_every_route_is_in_it_and_it_has_no_others(server: Server, module_database: str):
    prepare_database(module_database)
    app = create_app(module_database)
    routed = {
        (method, re.sub(r"<.*?>", "{id}", re.sub(r'<regex\(".*?"\):', "<", rule.rule)))
        for rule in app.url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    }
    assert routed == operations(document(server))


def test_each_operation_has_a_name_of_its_own_and_says_who_may(server: Server):
    found = document(server)
    names = [
        found["paths"][path][method.lower()]["operationId"] for method, path in operations(found)
    ]
    assert len(set(names)) == len(names)
    for method, path in operations(found):
        operation = found["paths"][path][method.lower()]
        assert operation.get("x-roles") or path in ("/", "/healthz", "/readyz", "/openapi.json")


def test_the_words_of_errors_are_the_closed_list(server: Server):
    word = document(server)["components"]["schemas"]["Error"]["properties"]["_error"]
    assert set(word["properties"]["word"]["enum"]) == set(WORDS) - LOCAL_WORDS


def test_a_refusal_has_the_words_of_its_status_only(server: Server):
    for name, answer in document(server)["components"]["responses"].items():
        schema = answer["content"]["application/json"]["schema"]
        for word in schema["properties"]["_error"]["properties"]["word"]["enum"]:
            assert f"Error{WORDS[word].status}" == name


def test_virtual_writes_take_what_the_target_field_takes(server: Server):
    found = document(server)
    body = found["paths"]["/tasks/{id}/add_continuations"]["post"]["requestBody"]
    field = found["components"]["schemas"]["NewTask"]["properties"]["continuations"]
    assert body["content"]["application/json"]["schema"] == field
    change = found["components"]["schemas"]["TaskChange"]["properties"]
    assert change["add_continuations"] == field
    assert "worker" not in change  # a readonly alias


def test_what_only_the_server_sets_is_not_asked_for(server: Server):
    new = document(server)["components"]["schemas"]["NewTask"]["properties"]
    assert not {"owner", "outcome", "attempt_id", "progress"} & new.keys()
    assert "_id" in new


def test_a_new_row_is_documented_without_other_code():
    page = settings()
    resources = {
        "notes": {
            "schema": {"lines": {"type": "list", "schema": {"type": "string"}, "maxlength": 3}},
            "collection": {"GET": {"roles": ["provider"]}, "POST": {"roles": ["provider"]}},
            "item": {"GET": {"roles": ["provider"]}, "PATCH": {"roles": ["provider"]}},
        }
    }
    domain = table.domain({**page["DOMAIN"], **resources})
    rows = {"add_lines": {"kind": "append", "target": "lines", "roles": ["provider"]}}
    schemas = {name: entry["schema"] for name, entry in domain.items()}
    virtual = table.virtual({**page["VIRTUAL_RESOURCES"], "notes": rows}, schemas)
    made = openapi.document({"DOMAIN": domain, "VIRTUAL_RESOURCES": virtual})
    OpenAPIV31SpecValidator(made).validate()
    body = made["paths"]["/notes/{id}/add_lines"]["post"]["requestBody"]
    lines = {"type": "array", "items": {"type": "string"}, "maxItems": 3}
    assert body["content"]["application/json"]["schema"] == lines


def test_an_argument_that_nothing_reads_is_refused(server: Server):
    for path in ("tasks", "tasks/statistics", "workers", "workers/statistics"):
        assert server.provider.get(path, nonsense="1").status_code == 400, path
    task = server.provider.post("tasks", {"command": "true"}).json()["_id"]
    for view in ("", "/log", "/explain", "/history", "/worker"):
        answer = server.provider.get(f"tasks/{task}{view}", nonsense="1")
        assert answer.status_code == 400, view
    assert server.provider.post(f"tasks/{task}/cancel", nonsense="1").status_code == 400


def test_an_argument_that_stands_twice_is_refused(server: Server):
    assert server.provider.get("tasks?page=1&page=2").status_code == 400


@pytest.mark.parametrize("page", ["protocol.md", "lifecycle.md"])
def test_the_generated_pages_are_fresh(page: str):
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "docs"), "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert page not in done.stderr, "run scripts/docs"
