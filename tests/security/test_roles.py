"""Who may do what to whose: every route of the application, tested whole.

What is expected comes from DOMAIN and VIRTUAL_RESOURCES of the settings page, what is
there from the application's own map of routes; a route that the page does not give roles
to fails. Everything is asked of the WSGI application itself, over a real database.
"""

import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import eve
import pytest

from banyan.config import settings
from banyan.server.app import create_app
from banyan.server.store import accounts
from banyan.server.store.indexes import prepare_database
from banyan.server.store.mongo import Store

ROLES = ("provider", "worker", "operator", "admin")
PUBLIC = {"/healthz", "/readyz", "/openapi.json"}
ANYBODY_WITH_A_TOKEN = {"/"}
ITEM = '<regex("[a-fA-F0-9]{24}"):_id>'
NOT_FOUND = (404, "not_found")
# A worker's write is judged by its token: the attempt is another's, or the task is taken.
REFUSED_TO_A_WORKER = {(409, "lease_lost"), (409, "conflict"), NOT_FOUND}

Route = tuple[str, str]  # method, path with ITEM in it


def declared() -> dict[Route, list[str]]:
    """Who may call which route, read off the settings page."""
    page = settings()
    routes: dict[Route, list[str]] = {("GET", "/metrics"): ["operator"]}
    for resource, entry in page["DOMAIN"].items():
        for level, path in (("collection", f"/{resource}"), ("item", f"/{resource}/{ITEM}")):
            for method, rule in entry.get(level, {}).items():
                routes[method, path] = rule["roles"]
            for name, row in page["VIRTUAL_RESOURCES"].get(resource, {}).items():
                for method in methods_of(row, level):
                    writes = row["kind"] == "alias" and method != "GET"
                    roles = row.get("writers", row["roles"]) if writes else row["roles"]
                    routes[method, f"{path}/{name}"] = roles
    return routes


def methods_of(row: dict[str, Any], level: str) -> list[str]:
    """The contract's table of kinds."""
    kind, item = row["kind"], level == "item"
    if kind in ("action", "view"):
        usual, levels = (
            (["GET"], ["item"]) if kind == "view" else (["POST"], ["item", "collection"])
        )
        return row.get("methods", usual) if level in row.get("levels", levels) else []
    if kind == "alias":
        written = [] if row.get("readonly") else ["PATCH", "POST"]
        return [*(["GET"] if item else []), *written]
    return ["POST", "PATCH"] if item else ["POST"]


ROUTES = declared()


def pairs(roles: Sequence[str], allowed: bool, level: str | None = None) -> Any:
    """Every role with every route that it may call, or may not, as parameters of a test."""
    found = [
        pytest.param(role, route, id=" ".join((role, *route)).replace(ITEM, "<id>"))
        for role in roles
        for route in sorted(ROUTES)
        if (role in ROUTES[route]) == allowed
        and (level is None or (ITEM in route[1]) == (level == "item"))
    ]
    return pytest.mark.parametrize(("role", "route"), found)


def is_open_to(role: str, path: str) -> bool:
    """Every provider sees all workers; it may change none of them."""
    return role == "provider" and path.startswith("/workers")


@dataclass
class World:
    """A provider with a running task, and the worker that holds it; a task that waits, too."""

    tokens: dict[str, str]
    ids: dict[str, str] = field(default_factory=dict)
    token: str = ""


class Asker:
    """Requests to the application, in this process."""

    def __init__(self, app: eve.Eve, store: Store) -> None:
        self.client = app.test_client()
        self.store = store
        self.count = itertools.count()

    def ask(
        self, token: str | None, method: str, path: str, body: Any = None, attempt: str = ""
    ) -> Any:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        headers |= {"Banyan-Attempt-Token": attempt} if attempt else {}
        more: dict[str, Any] = {} if body is None else {"json": body}
        number = next(self.count)  # from an address of its own: how many may fail is limited
        more["environ_overrides"] = {"REMOTE_ADDR": f"10.{number >> 8 & 255}.{number & 255}.1"}
        return self.client.open(path, method=method, headers=headers, **more)

    def done(self, *request: Any) -> Any:
        answer = self.ask(*request)
        assert answer.status_code in (200, 201), answer.text
        return answer.json

    def account(self, *roles: str) -> tuple[str, str]:
        """Its id and its token."""
        account = accounts.insert(self.store, f"a{next(self.count)}", roles)
        return str(account["_id"]), accounts.issue(self.store, account)

    def world(self) -> World:
        made = {role: self.account(role) for role in ROLES}
        world = World({role: token for role, (_, token) in made.items()})
        queue = f"q{next(self.count)}"
        provider, worker = world.tokens["provider"], world.tokens["worker"]
        task = {"command": "true", "queue": queue, "state": "available"}
        body = {"host": "h", "resources": {"cores": 4, "memory": "4 GiB"}, "queues": [queue]}
        world.ids["tasks"] = self.done(provider, "POST", "/tasks", task)["_id"]
        world.ids["child"] = self.done(provider, "POST", "/tasks", {"command": "true"})["_id"]
        world.ids["workers"] = self.done(worker, "POST", "/workers", body)["_id"]
        claim = {"worker": world.ids["workers"]}
        (item,) = self.done(worker, "POST", "/tasks/claim", claim)["_items"]
        world.ids["attempts"] = item["attempt_id"]
        world.ids["accounts"] = made["admin"][0]
        world.token = item["token"]
        return world


@pytest.fixture(scope="module")
def app(module_database: str) -> eve.Eve:
    prepare_database(module_database)
    return create_app(module_database)


@pytest.fixture(scope="module")
def asker(app: eve.Eve, module_database: str) -> Iterator[Asker]:
    store = Store(module_database)
    yield Asker(app, store)
    store.close()


@pytest.fixture(scope="module")
def worlds(asker: Asker) -> tuple[World, World]:
    """One's own and another's: nothing that is refused may change them."""
    return asker.world(), asker.world()


def address(path: str, world: World) -> str:
    return path.replace(ITEM, world.ids.get(path.split("/")[1], ""))


def word(answer: Any) -> tuple[int, str]:
    return answer.status_code, (answer.json or {}).get("_error", {}).get("word", "")


# --- Bodies with which a request would go through, were it allowed ---------------------------

_SAMPLE_TIME = {"time": "2026-11-22T06:51:14Z"}
_ON_ITEM = {
    "tasks": {"priority": 1},
    "report_memory_usage": [{**_SAMPLE_TIME, "resident_memory_bytes": 1}],
    "report_cpu_utilization": [{**_SAMPLE_TIME, "utilization_percent": 1}],
    "report_gpu_usage": [{**_SAMPLE_TIME, "ordinal": 0, "used_memory_bytes": 1}],
    "messages": [{"text": "hello"}],
    "progress": {"done": 1},
    "result": "result",
    "issue": {},
    "beat": {},
}


def item_body(path: str, caller: World, role: str = "") -> Any:
    if path == f"/tasks/{ITEM}" and role == "worker":
        return {"progress": {"done": 1}, "update_execution_data": {"token": caller.token}}
    name = path.replace(f"/{ITEM}", "").split("/")[-1]
    if "continuations" in name:
        return [caller.ids["child"]]
    if name == "claim":
        return {"worker": caller.ids["workers"]}
    if name in ("release", "update_execution_data"):
        return {"token": caller.token}
    return _ON_ITEM.get(name)


def collection_body(route: Route, caller: World, target: World) -> Any:
    method, path = route
    _, resource, *names = path.split("/")
    if not names:
        made = {
            ("PATCH", "tasks"): [{"_id": target.ids["tasks"], "priority": 1}],
            ("POST", "tasks"): {"command": "true", "after": [target.ids["tasks"]]},
            ("POST", "workers"): {"host": "h", "resources": {"cores": 1, "memory": 1}},
            ("POST", "accounts"): {"name": "new", "roles": ["provider"]},
        }
        return made.get((method, resource))
    (name,) = names
    if name in ("claim", "steal"):
        return {"worker": target.ids["workers"]}
    if name == "release":
        return {"tokens": [target.token]}
    if name in ("cancel", "retry"):
        return {"targets": [target.ids["tasks"]]}
    values = item_body(f"/{resource}/{ITEM}/{name}", caller)
    return None if values is None else [{"targets": [target.ids["tasks"]], "values": values}]


def stored(asker: Asker, world: World) -> str:
    """All that the database holds of a world."""
    found = [
        list(asker.store["tasks"].find({"owner": {"$in": _names(asker, world)}})),
        list(asker.store["attempts"].find({"owner": {"$in": _names(asker, world)}})),
        list(asker.store["workers"].find({"account": {"$in": _names(asker, world)}})),
        list(asker.store["accounts"].find({"name": {"$in": _names(asker, world)}})),
    ]
    return json.dumps(found, default=str)


def _names(asker: Asker, world: World) -> list[str]:
    public = [token.split("_")[1] for token in world.tokens.values()]
    return [one["account"] for one in asker.store["tokens"].find({"_id": {"$in": public}})]


# --- The tests -------------------------------------------------------------------------------


def test_every_route_is_declared_and_everything_declared_is_a_route(app: eve.Eve):
    there = {
        (method, rule.rule)
        for rule in app.url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    }
    open_ones = {("GET", path) for path in PUBLIC | ANYBODY_WITH_A_TOKEN}
    assert there - ROUTES.keys() == open_ones
    assert ROUTES.keys() - there == set()


def test_every_route_names_roles_that_exist():
    for route, roles in ROUTES.items():
        assert roles, route
        assert set(roles) <= {*ROLES, "task"}, route  # a running task is no account


def test_nobody_has_all_routes():
    for role in ROLES:
        assert any(role not in roles for roles in ROUTES.values()), role


@pytest.mark.parametrize("route", sorted(ROUTES), ids=" ".join)
def test_without_a_valid_token_all_is_refused_alike(
    asker: Asker, worlds: tuple[World, World], route: Route
):
    mine, _ = worlds
    method, path = route
    answers = [
        asker.ask(token, method, address(path, mine), item_body(path, mine), mine.token)
        for token in (None, "wrong", mine.token + "0", mine.tokens["admin"][:-1] + "!")
    ]
    assert {word(answer) for answer in answers} == {(401, "unauthenticated")}
    assert len({answer.data for answer in answers}) == 1


@pytest.mark.parametrize("path", sorted(ANYBODY_WITH_A_TOKEN))
def test_the_way_in_needs_a_token(asker: Asker, worlds: tuple[World, World], path: str):
    assert word(asker.ask(None, "GET", path)) == (401, "unauthenticated")
    for token in worlds[0].tokens.values():
        assert asker.ask(token, "GET", path).status_code == 200


@pairs(ROLES, allowed=False)
def test_a_role_that_may_not_is_refused_whosever_it_is(
    asker: Asker, worlds: tuple[World, World], role: str, route: Route
):
    mine, others = worlds
    method, path = route
    for world in (mine, others):
        body = item_body(path, mine) if ITEM in path else collection_body(route, mine, world)
        answer = asker.ask(mine.tokens[role], method, address(path, world), body, mine.token)
        assert word(answer) == (403, "forbidden")


@pairs(["provider", "worker"], allowed=True, level="item")
def test_somebody_elses_item_is_not_there(
    asker: Asker, worlds: tuple[World, World], role: str, route: Route
):
    method, path = route
    mine, others = worlds
    before = stored(asker, others)
    body = item_body(path, mine, role)
    answer = asker.ask(mine.tokens[role], method, address(path, others), body, mine.token)
    if is_open_to(role, path):
        assert (method, answer.status_code) == ("GET", 200)
    elif role == "worker" and path.startswith("/tasks") and method != "GET":
        assert word(answer) in REFUSED_TO_A_WORKER
    else:
        assert word(answer) == NOT_FOUND
    assert stored(asker, others) == before


@pairs(["provider", "worker"], allowed=True, level="collection")
def test_a_collection_shows_and_changes_nothing_of_somebody_elses(
    asker: Asker, worlds: tuple[World, World], role: str, route: Route
):
    method, path = route
    mine, others = worlds
    before = stored(asker, others)
    body = collection_body(route, mine, others)
    answer = asker.ask(mine.tokens[role], method, path, body, mine.token)
    assert answer.status_code < 500
    assert stored(asker, others) == before
    if method == "GET" and not is_open_to(role, path):
        assert not [one for one in others.ids.values() if one in answer.text]


@pairs(ROLES, allowed=True, level="item")
def test_who_may_is_let_through_to_what_is_theirs(asker: Asker, role: str, route: Route):
    method, path = route
    mine = asker.world()
    body = item_body(path, mine, role)
    answer = asker.ask(mine.tokens[role], method, address(path, mine), body, mine.token)
    # An edge to a running task is refused for its state, not for its owner.
    refused_by_state = {(422, "invalid"), (422, "illegal_transition"), (409, "conflict")}
    assert answer.status_code < 300 or word(answer) in refused_by_state
    if method == "GET":
        assert answer.status_code == 200


@pytest.mark.parametrize("role", ROLES)
def test_several_roles_may_what_each_of_them_may(asker: Asker, role: str):
    both = tuple({role, "admin"})
    _, token = asker.account(*both)
    for (method, path), roles in ROUTES.items():
        if method == "GET" and ITEM not in path:
            allowed = not set(both).isdisjoint(roles)
            assert asker.ask(token, method, path).status_code == (200 if allowed else 403), path
