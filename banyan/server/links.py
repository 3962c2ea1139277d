"""`_links`: what this caller may do with this item now, made from the tables.

Called for every item that leaves the server with its links; knows no verb by name. An `href` is
an absolute path, so it means the same in every document; it begins with the prefix under which a
proxy serves us, if there is one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any
from urllib.parse import quote, urlencode

from flask import request

from banyan.server import table
from banyan.server.calls import Caller
from banyan.server.store.mongo import Document

Tables = Mapping[str, Mapping[str, Any]]


def of_item(
    tables: Tables, resource: str, item: Document, caller: Caller
) -> dict[str, dict[str, str]]:
    """Links of one item: self, parent, collection, related items, and actions by name."""
    caller = _beside(caller, item)
    entry = tables["DOMAIN"][resource]
    root = request.script_root
    path = address_of(resource, item)
    links = {
        "self": _link(entry["item_title"], path),
        "parent": _link("home", f"{root}/"),
        "collection": _link(resource, f"{root}/{resource}"),
    }
    for name, template in entry.get("related", {}).items():
        if related := _related(template, item):
            links[name] = _link(name, f"{root}/{related}")
    for method, rule in entry.get("item", {}).items():
        if method != "GET" and _may_now(rule, item, caller):
            usual = f"{_EDITS[method]} the {entry['item_title']}"
            title = rule.get("title_in", {}).get(item.get("state"), usual)
            links[_EDITS[method]] = _link(title, path, method)
    for name, row in tables["VIRTUAL_RESOURCES"].get(resource, {}).items():
        method = _method_now(row, item, caller)
        if method:
            links[name] = _link(row["title"], f"{path}/{name}", method)
        if row["kind"] == "alias" and _may_set_now(row, item, caller):
            links[f"set_{name}"] = _link(f"Set: {row['title']}", f"{path}/{name}", "PATCH")
    return links


def _beside(caller: Caller, item: Document) -> Caller:
    """The caller as what it is to this item: of who works on it, it is not the owner."""
    if caller.has("operator") or item.get("owner", caller.account) == caller.account:
        return caller
    return replace(caller, roles=caller.roles - {"provider"})


_EDITS = {"PATCH": "edit", "DELETE": "remove", "POST": "create"}


def address_of(resource: str, item: Document) -> str:
    """Where an item is."""
    return f"{request.script_root}/{resource}/{item['_id']}"


def _related(template: str, item: Document) -> str | None:
    """The address in a template; None where a projection has left out what it needs."""
    try:
        return quote(template.format_map(item), safe="/?=&")
    except KeyError:
        return None


def _may_now(rule: Mapping[str, Any], item: Document, caller: Caller) -> bool:
    """Whether one of the caller's roles may do this while the item is in its state."""
    states = rule.get("states_of", {})
    now = [
        role for role in rule["roles"] if item.get("state") in states.get(role, [item.get("state")])
    ]
    return caller.has(*now)


def _may_set_now(row: Mapping[str, Any], item: Document, caller: Caller) -> bool:
    in_time = not row["states"] or item.get("state") in row["states"]
    return not row["readonly"] and in_time and caller.has(*row["writers"])


def _method_now(row: Mapping[str, Any], item: Document, caller: Caller) -> str | None:
    """The method of a row's link for this caller in this state; None for no link."""
    methods = table.methods(row, "item")
    if not methods:
        return None
    if row["kind"] in ("view", "alias"):
        return "GET" if caller.has(*row["roles"]) else None
    if row["states"] and item.get("state") not in row["states"]:
        return None
    return methods[0] if caller.has(*row["roles"]) else None


def of_collection(
    tables: Tables, resource: str, caller: Caller, page: Mapping[str, int], query: Mapping[str, str]
) -> dict[str, dict[str, str]]:
    """Links of a list: self, parent, the pages beside it, and what may be done to it."""
    entry = tables["DOMAIN"][resource]
    root = request.script_root
    path = f"{root}/{resource}"
    links = {
        "self": _link(resource, _with_query(path, query)),
        "parent": _link("home", f"{root}/"),
    }
    for name, title, step in _TURNS:
        number = page["number"] + step
        if page["full"] if step > 0 else number > 0:
            links[name] = _link(title, _with_query(path, {**query, "page": number}))
    for method, rule in entry.get("collection", {}).items():
        if method != "GET" and caller.has(*rule["roles"]):
            title = rule.get("title", f"{_EDITS[method]} {resource}")
            links[_EDITS[method]] = _link(title, path, method)
    for name, row in tables["VIRTUAL_RESOURCES"].get(resource, {}).items():
        methods = table.methods(row, "collection")
        roles = row["writers"] if row["kind"] == "alias" else row["roles"]
        if methods and caller.has(*roles):
            links[name] = _link(row["title"], f"{path}/{name}", methods[0])
    return links


_TURNS = (("next", "next page", 1), ("prev", "previous page", -1))


def _with_query(path: str, query: Mapping[str, Any]) -> str:
    return f"{path}?{urlencode(query)}" if query else path


def of_home(tables: Tables, caller: Caller) -> dict[str, Any]:
    """Links of `/`: the collections that the caller may read, and what describes them."""
    root = request.script_root
    children: Sequence[dict[str, str]] = [
        _link(name, f"{root}/{name}")
        for name, entry in tables["DOMAIN"].items()
        if caller.has(*entry.get("collection", {}).get("GET", {}).get("roles", []))
    ]
    described = _link("the API as an OpenAPI document", f"{root}/openapi.json")
    return {"self": _link("home", f"{root}/"), "describedby": described, "child": children}


def _link(title: str, href: str, method: str = "GET") -> dict[str, str]:
    return {"title": title, "href": href, "method": method}
