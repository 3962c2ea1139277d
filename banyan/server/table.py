"""Reads the settings page's DOMAIN and VIRTUAL_RESOURCES, and says what is wrong with them.

Everything that is made from the tables (routes, validation, links, documents) starts
from what this file returns, so a mistake in a row shows at the start, with its name.
"""

import importlib
from collections.abc import Callable, Mapping
from typing import Any

from banyan.errors import BanyanError
from banyan.server.calls import Answer, Call
from banyan.server.queries import AUTOMATIC

KINDS = ("alias", "append", "remove", "action", "view")
_VIEWS = ("view",)

Row = Mapping[str, Any]
Function = Callable[[Call], Answer]


def function(path: str) -> Function:
    """The function that a row names as `package.module:name`."""
    module, _, name = path.partition(":")
    found: Function = getattr(importlib.import_module(module), name)
    return found


def domain(declared: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """DOMAIN for Eve: each resource with its schema in place and GET as Eve's only method."""
    return {name: _resource(name, dict(entry)) for name, entry in declared.items()}


def _resource(name: str, entry: dict[str, Any]) -> dict[str, Any]:
    schema = entry["schema"]
    as_created: Mapping[str, Any] = {}
    if isinstance(schema, str):
        module = importlib.import_module(schema)
        schema, as_created = module.SCHEMA, getattr(module, "AS_CREATED", {})
    return {
        **entry,
        "schema": schema,
        "as_created": as_created,  # what stands for fields that are left out
        "resource_methods": ["GET"],
        "item_methods": ["GET"],
        "item_url": 'regex("[a-fA-F0-9]{24}")',
        "datasource": {"source": name},
        "hateoas": False,
        "pagination": True,
        "projection": False,  # our data layer's business: Eve's would take the aliases out
        "item_title": entry.get("title", name.rstrip("s")),
        "bulk_enabled": True,
    }


def virtual(
    declared: Mapping[str, Mapping[str, Row]], schemas: Mapping[str, Row]
) -> dict[str, dict[str, dict[str, Any]]]:
    """VIRTUAL_RESOURCES with the defaults of each kind filled in."""
    return {
        resource: {name: _row(resource, name, row, schemas) for name, row in rows.items()}
        for resource, rows in declared.items()
    }


def _row(resource: str, name: str, row: Row, schemas: Mapping[str, Row]) -> dict[str, Any]:
    kind = row.get("kind")
    where = f"VIRTUAL_RESOURCES[{resource!r}][{name!r}]"
    if kind not in KINDS:
        raise BanyanError("usage", f"{where}: kind is one of {', '.join(KINDS)}")
    for needed in ("roles", "function" if kind in ("action", "view") else "target"):
        if needed not in row:
            raise BanyanError("usage", f"{where}: a row of kind {kind} needs {needed!r}")
    full = {"title": name, "states": [], "readonly": False, "writers": row["roles"], **row}
    full.setdefault("levels", ["item"] if kind in _VIEWS else ["item", "collection"])
    if kind in ("append", "remove", "alias"):
        full["schema"], full["field"] = target_schema(resource, str(row["target"]), schemas)
    return full


def target_schema(resource: str, target: str, schemas: Mapping[str, Row]) -> tuple[Row, str]:
    """(the schema that holds the rules of a row's target, the field in it)."""
    head, _, rest = target.partition(".")
    if head == "attempt" and resource == "tasks":
        return schemas["attempts"], rest
    schema, path = schemas[resource], target
    while "." in path:
        head, _, path = path.partition(".")
        schema = schema[head]["schema"]
    if path not in schema:
        raise BanyanError("usage", f"{resource} has no field {target!r}")
    return schema, path


def rules_of(row: Row) -> Mapping[str, Any]:
    """The rules of the field behind a row; of the whole current attempt, all of them."""
    if not row["field"]:
        return {"type": "dict", "schema": {**AUTOMATIC, **row["schema"]}}
    rules: Mapping[str, Any] = row["schema"][row["field"]]
    return rules


def schema_at(path: str) -> Mapping[str, Any]:
    """The data that a row names as `package.module:NAME`."""
    module, _, name = path.partition(":")
    found: Mapping[str, Any] = getattr(importlib.import_module(module), name)
    return found


def at_level(row: Row, key: str, level: str, default: Any = None) -> Any:
    """A row's value, which may be one for each level."""
    value = row.get(key, default)
    return value.get(level, default) if isinstance(value, Mapping) else value


def methods(row: Row, level: str) -> list[str]:
    """The methods that a virtual subresource has on an item or on the collection."""
    kind = row["kind"]
    if level not in row["levels"]:
        return []
    if kind == "view":
        return ["GET"]
    if kind == "action":
        return list(row.get("methods", ["POST"]))
    if kind == "alias":
        written = [] if row["readonly"] else ["PATCH", "POST"]
        return ["GET", *written] if level == "item" else written
    return ["POST", "PATCH"] if level == "item" else ["POST"]
