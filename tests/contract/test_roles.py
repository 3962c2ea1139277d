"""Every route with every role, from the tables: who may not is told so, and nobody gets a 500.

The whole of deny by default: a route whose row names no role would show here.
"""

from collections.abc import Iterator
from typing import Any

import pytest

from banyan.config import settings
from banyan.server import table
from tests.contract.asking import make, new_id, refused
from tests.harness import Api, Server

ROLES = ["provider", "worker", "operator", "admin"]


def routes() -> Iterator[tuple[str, str, list[str]]]:
    """(method, address, roles that may) of all that the tables declare."""
    page = settings()
    schemas = {name: entry["schema"] for name, entry in table.domain(page["DOMAIN"]).items()}
    for resource, entry in page["DOMAIN"].items():
        for level in ("collection", "item"):
            for method, rule in entry.get(level, {}).items():
                yield method, _address(resource, level), rule["roles"]
    for resource, rows in table.virtual(page["VIRTUAL_RESOURCES"], schemas).items():
        for name, row in rows.items():
            for level in ("collection", "item"):
                for method in table.methods(row, level):
                    writes = row["kind"] == "alias" and method != "GET"
                    roles = row["writers"] if writes else row["roles"]
                    yield method, f"{_address(resource, level)}/{name}", roles


def _address(resource: str, level: str) -> str:
    return resource if level == "collection" else f"{resource}/{'f' * 24}"


@pytest.fixture(scope="module")
def accounts(server: Server) -> dict[str, Api]:
    """One account of each role."""
    return {role: server.account(role, name=f"only-{role}") for role in ROLES}


@pytest.mark.parametrize(("method", "address", "roles"), list(routes()))
def test_a_route_is_for_the_roles_that_its_row_names(
    server: Server, accounts: dict[str, Api], method: str, address: str, roles: list[str]
):
    assert roles
    assert set(roles) <= set(ROLES)
    body = None if method in ("GET", "DELETE") else {}
    refused(server.anonymous.request(method, address, body), 401, "unauthenticated")
    for role, api in accounts.items():
        answer = api.request(method, address, body)
        if role not in roles:
            refused(answer, 403, "forbidden")
            continue
        assert answer.status_code < 500, (role, answer.text)
        word = answer.json()["_error"]["word"] if answer.status_code >= 400 else "none"
        assert word not in ("unauthenticated", "forbidden", "method_not_allowed"), role


def test_a_role_in_the_body_gives_nobody_a_role(server: Server):
    for extra in ({"roles": ["admin"]}, {"role": "operator"}, {"account": "admin"}):
        refused(server.provider.post("tasks", {"command": "x", **extra}), 422, "invalid")
    refused(server.provider.post("accounts", {"name": new_id(), "roles": ["admin"]}), 403)


def test_somebody_elses_item_is_404_never_403(server: Server, accounts: dict[str, Api]):
    task = make(server.provider)
    path = f"tasks/{task['_id']}"
    other = accounts["provider"]
    requests: list[tuple[str, str, Any]] = [
        ("GET", path, None),
        ("PATCH", path, {"name": "x"}),
        *[("GET", f"{path}/{name}", None) for name in ("worker", "progress", "history", "log")],
        *[("POST", f"{path}/{name}", None) for name in ("cancel", "retry")],
        ("POST", f"{path}/add_continuations", [new_id()]),
    ]
    for method, address, body in requests:
        theirs = other.request(method, address, body)
        nobodys = other.request(method, address.replace(task["_id"], "f" * 24), body)
        refused(theirs, 404, "not_found")
        assert theirs.text.replace(task["_id"], "") == nobodys.text.replace("f" * 24, "")
    refused(other.post("tasks/cancel", {"targets": [task["_id"]]}), 422)
    assert server.provider.get(path).json()["_etag"] == task["_etag"]
