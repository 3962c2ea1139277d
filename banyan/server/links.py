"""`_links`: what this caller may do with this item now, made from the tables.

Called for every item that leaves the server with its links; knows no verb by name.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from banyan.server import table
from banyan.server.calls import Caller
from banyan.server.store.mongo import Document

Tables = Mapping[str, Mapping[str, Any]]


def of_item(
    tables: Tables, resource: str, item: Document, caller: Caller
) -> dict[str, dict[str, str]]:
    """Links of one item: self, parent, collection, related items, and actions by name."""
    entry = tables["DOMAIN"][resource]
    path = f"{resource}/{item['_id']}"
    links = {
        "self": _link(entry["item_title"], path),
        "parent": _link("home", "/"),
        "collection": _link(resource, resource),
    }
    for name, template in entry.get("related", {}).items():
        links[name] = _link(name, template.format_map(_Blank(item)))
    for method, rule in entry.get("item", {}).items():
        if method != "GET" and _may_now(rule, item, caller):
            links[_EDITS[method]] = _link(
                f"{_EDITS[method]} the {entry['item_title']}", path, method
            )
    for name, row in tables["VIRTUAL_RESOURCES"].get(resource, {}).items():
        method = _method_now(row, item, caller)
        if method:
            links[name] = _link(row["title"], f"{path}/{name}", method)
        if row["kind"] == "alias" and _may_set_now(row, item, caller):
            links[f"set_{name}"] = _link(f"Set: {row['title']}", f"{path}/{name}", "PATCH")
    return links


_EDITS = {"PATCH": "edit", "DELETE": "remove", "POST": "create"}


class _Blank(dict[str, Any]):
    """A template's values; what the item lacks is left empty."""

    def __missing__(self, key: str) -> str:
        return ""


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
    links = {"self": _link(resource, _with_query(resource, query)), "parent": _link("home", "/")}
    if page["full"]:
        links["next"] = _link(
            "next page", _with_query(resource, {**query, "page": page["number"] + 1})
        )
    if page["number"] > 1:
        links["prev"] = _link(
            "previous page", _with_query(resource, {**query, "page": page["number"] - 1})
        )
    for method, rule in entry.get("collection", {}).items():
        if method != "GET" and caller.has(*rule["roles"]):
            links[_EDITS[method]] = _link(f"{_EDITS[method]} {resource}", resource, method)
    for name, row in tables["VIRTUAL_RESOURCES"].get(resource, {}).items():
        methods = table.methods(row, "collection")
        roles = row["writers"] if row["kind"] == "alias" else row["roles"]
        if methods and caller.has(*roles):
            links[name] = _link(row["title"], f"{resource}/{name}", methods[0])
    return links


def _with_query(resource: str, query: Mapping[str, Any]) -> str:
    from urllib.parse import urlencode

    return f"{resource}?{urlencode(query)}" if query else resource


def of_home(tables: Tables, caller: Caller) -> dict[str, Any]:
    """Links of `/`: the collections that the caller may read, and what describes them."""
    children: Sequence[dict[str, str]] = [
        _link(name, name)
        for name, entry in tables["DOMAIN"].items()
        if caller.has(*entry.get("collection", {}).get("GET", {}).get("roles", []))
    ]
    described = _link("the API as an OpenAPI document", "openapi.json")
    return {"self": _link("home", "/"), "describedby": described, "child": children}


def _link(title: str, href: str, method: str = "GET") -> dict[str, str]:
    return {"title": title, "href": href, "method": method}
