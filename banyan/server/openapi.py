"""The OpenAPI 3.1 document, made from DOMAIN, VIRTUAL_RESOURCES and the schemas alone.

`app.py` serves it at /openapi.json; `scripts/docs` makes docs/protocol.md of it. It reads
the same tables as the routes, so an address can't be in one and not in the other.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from banyan import __version__
from banyan.server import json_schema, openapi_parts, table
from banyan.server.openapi_parts import Json, Tables, ref
from banyan.server.schemas import forms, parameters
from banyan.server.virtual import ENTRIES_MAX, TARGETS_MAX

_DESCRIPTION = """\
Tasks, the attempts at them, and the workers that run them. Every answer has links: start
from `GET /` and follow what is offered. Addresses answer `OPTIONS`, and those with `GET`
answer `HEAD`; another method gets 405 with `Allow`."""
_ALWAYS = (400, 401, 403, 406, 429, 503)
_OF_WRITES = (404, 409, 413, 415, 422)
_LOCATION = {
    "Location": {
        "description": "Of the item, where one was created.",
        "schema": {"type": "string", "format": "uri-reference"},
    }
}


@dataclass(frozen=True)
class Route:
    """One method of one address. `rule`: what the tables say about it."""

    method: str
    resource: str
    level: str
    name: str
    roles: Sequence[str]
    rule: Mapping[str, Any]

    @property
    def path(self) -> str:
        """The address as OpenAPI writes it."""
        parts = [self.resource, "{id}" if self.level == "item" else "", self.name]
        return "/" + "/".join(part for part in parts if part)

    @property
    def kind(self) -> str:
        """The kind of virtual subresource; none for a plain read or write."""
        return str(self.rule.get("kind", ""))


def routes(tables: Tables) -> Iterator[Route]:
    """Every route that comes from the tables."""
    for resource, entry in tables["DOMAIN"].items():
        for level in ("collection", "item"):
            for method, rule in entry.get(level, {}).items():
                yield Route(method, resource, level, "", rule["roles"], rule)
        for name, row in tables["VIRTUAL_RESOURCES"].get(resource, {}).items():
            for level in ("collection", "item"):
                for method in table.methods(row, level):
                    written = row["kind"] == "alias" and method != "GET"
                    roles = row["writers"] if written else row["roles"]
                    yield Route(method, resource, level, name, roles, row)


def document(tables: Tables) -> Json:
    """The whole document. tables: DOMAIN and VIRTUAL_RESOURCES, completed by `table.py`."""
    paths: Json = _fixed_paths()
    for route in routes(tables):
        operations = paths.setdefault(route.path, {})
        if route.level == "item":
            operations["parameters"] = [ref("parameters", "id")]
        operations[route.method.lower()] = _operation(tables, route)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Banyan",
            "version": __version__,
            "description": _DESCRIPTION,
        },
        "servers": [{"url": "/"}],
        "security": [{"bearer": []}, {"basic": []}],
        "tags": [{"name": name} for name in tables["DOMAIN"]],
        "paths": dict(sorted(paths.items())),
        "components": openapi_parts.components(tables),
    }


def _fixed_paths() -> Json:
    told = {"account": {"type": "string"}, "_links": ref("schemas", "Links")}
    home = {"type": "object", "properties": told}
    answers = {
        "/": ("Where everything starts, and whose token this is", home, (401, 406, 429, 503)),
        "/healthz": ("Whether the process serves", ref("schemas", "OK"), ()),
        "/readyz": ("Whether the database answers", ref("schemas", "OK"), (503,)),
        "/openapi.json": ("This document", {"type": "object"}, ()),
    }
    paths: Json = {"/metrics": {"get": _metrics_operation()}}
    for path, (summary, schema, refusals) in answers.items():
        operation = {
            "operationId": f"get_{path.strip('/').split('.')[0] or 'home'}",
            "summary": summary,
            "responses": {
                "200": {"description": summary, "content": _json(schema)},
                **_refusals(refusals),
            },
        }
        paths[path] = {"get": operation if 401 in refusals else {**operation, "security": []}}
    return paths


def _metrics_operation() -> Json:
    summary = "Figures for Prometheus, in its text format"
    content = {"text/plain": {"schema": {"type": "string"}}}
    return {
        "operationId": "get_metrics",
        "summary": summary,
        "x-roles": ["operator"],
        "responses": {
            "200": {"description": summary, "content": content},
            **_refusals((401, 403, 406, 429, 503)),
        },
    }


def _operation(tables: Tables, route: Route) -> Json:
    body = _body(tables, route)
    made: Json = {
        "operationId": "_".join(
            part for part in (route.method.lower(), route.resource, route.level, route.name) if part
        ),
        "tags": [route.resource],
        "summary": _summary(tables, route),
        "description": _description(route),
        "x-roles": list(route.roles),
        "parameters": _parameters(tables, route),
        "responses": {**_answers(tables, route), **_refusals(_refused(route))},
    }
    if route.rule.get("states"):
        made["x-states"] = list(route.rule["states"])
    if route.kind:
        made["x-kind"] = route.kind
    if body is not None:
        optional = "null" in body.get("type", ()) and route.kind == "action"
        made["requestBody"] = {"required": not optional, "content": _json(body)}
    return made


_PLAIN = {
    "GET": "Read the {}",
    "PATCH": "Change the {}",
    "DELETE": "Remove the {}",
}


def _summary(tables: Tables, route: Route) -> str:
    if route.kind:
        return str(route.rule["title"])
    title = tables["DOMAIN"][route.resource]["item_title"]
    if route.level == "item":
        return _PLAIN[route.method].format(title)
    article = "an" if title[0] in "aeiou" else "a"
    several = {"GET": f"List {title}s", "PATCH": f"Change many {title}s, each for itself"}
    return several.get(route.method, f"Create {article} {title}")


def _description(route: Route) -> str:
    told = [f"For {', '.join(route.roles)}."]
    if route.rule.get("states"):
        told.append(f"While it is {', '.join(route.rule['states'])}.")
    if route.kind in ("append", "remove"):
        told.append(f"Also `{route.name}` as a field of PATCH.")
    return " ".join(told)


def _parameters(tables: Tables, route: Route) -> list[Json]:
    if route.method == "GET":
        names = (*query_names(route), "If-None-Match", "Prefer")
    else:
        names = (*query_names(route), "Prefer")
        edits = route.method == "PATCH" or route.kind in ("append", "remove")
        if route.level == "item" and edits:
            names = (*names, "If-Match")
        if route.resource == "tasks" and "worker" in route.roles:
            names = (*names, "Banyan-Attempt-Token")
    return [
        _json_parameter(tables, route, name)
        if name in ("where", "projection")
        else openapi_parts.parameter(name)
        for name in names
    ]


def query_names(route: Route) -> tuple[str, ...]:
    """The query arguments that a route reads; any other is refused."""
    if route.kind or route.method != "GET":
        return tuple(table.at_level(route.rule, "parameters", route.level, ()))
    return parameters.READ_ITEM if route.level == "item" else parameters.READ_LIST


def _json_parameter(tables: Tables, route: Route, name: str) -> Json:
    """`where` and `projection`: JSON about the fields of the resource."""
    fields = ["_id", "_created", "_updated", "_etag", *tables["DOMAIN"][route.resource]["schema"]]
    virtual = tables["VIRTUAL_RESOURCES"].get(route.resource, {})
    aliases = [one for one, row in virtual.items() if row["kind"] == "alias"]
    if name == "where":
        names = {"pattern": rf"^(\$and|\$or|\$nor|({'|'.join(fields)})([.].+)?)$"}
        schema: Json = {"type": "object", "propertyNames": names}
        description = (
            "Only items of which this is true: fields and values, or the operators $eq $ne $gt "
            "$gte $lt $lte $in $nin $all $exists $size $not $and $or $nor."
        )
    else:
        names = {"pattern": f"^({'|'.join([*fields, *aliases])})([.].+)?$"}
        several = {"type": "array", "items": {"type": "string", **names}}
        yes = {"enum": [1, True]}
        chosen = {"type": "object", "propertyNames": names, "additionalProperties": yes}
        schema = {"anyOf": [chosen, several]}
        description = "Only these fields, virtual ones among them."
    return {"name": name, "in": "query", "description": description, "content": _json(schema)}


def _body(tables: Tables, route: Route) -> Json | None:
    """The schema of the request's body; None where there is none."""
    if route.method in ("GET", "DELETE"):
        return None
    if route.kind == "action":
        path = table.at_level(route.rule, "body", route.level)
        return _action_body(table.schema_at(path)) if path else None
    if route.kind:
        value = json_schema.asked_value(table.rules_of(route.rule))
        return value if route.level == "item" else _entries(value)
    name = openapi_parts.title(tables, route.resource)
    if route.method == "POST":
        one, most = ref("schemas", f"New{name}"), parameters.BULK_MAX
        many = {"type": "array", "items": one, "minItems": 1, "maxItems": most}
        plain = "function" not in route.rule
        return {"anyOf": [one, many]} if plain or route.rule.get("many") else one
    if route.level == "item":
        return ref("schemas", f"{name}Change")
    return _changes(tables, route.resource)


def _action_body(schema: Mapping[str, Any]) -> Json:
    """An action that demands nothing may be sent nothing."""
    made = json_schema.asked(schema)
    return made if "required" in made else {**made, "type": ["object", "null"]}


def _entries(value: Json) -> Json:
    """The collection form of a virtual write."""
    targets = {"type": "array", "items": forms.OBJECT_ID, "maxItems": TARGETS_MAX}
    entry = {
        "type": "object",
        "properties": {"targets": targets, "values": value},
        "required": ["targets", "values"],
        "additionalProperties": False,
    }
    return {"type": "array", "items": entry, "minItems": 1, "maxItems": ENTRIES_MAX}


def _changes(tables: Tables, resource: str) -> Json:
    """The body of a PATCH of many: what is wrong with one item is told in its part of a 207."""
    change = openapi_parts.change(tables, resource)
    properties = {"_id": forms.OBJECT_ID, **change["properties"]}
    title = f"{openapi_parts.title(tables, resource)}Change with _id"
    one = {**change, "title": title, "properties": properties, "required": ["_id"]}
    return {"type": "array", "items": one, "minItems": 1, "maxItems": parameters.BULK_MAX}


def _answers(tables: Tables, route: Route) -> Json:
    if route.method == "DELETE":
        return {"204": {"description": "Removed."}}
    schema = _answer(tables, route)
    if route.method != "GET":
        usual = [201] if route.method == "POST" and not route.kind else [200]
        listed = route.rule.get("statuses") or [route.rule.get("status", usual[0])]
        made: Json = {}
        for one in listed:
            made[str(one)] = {"description": "Done.", "content": _json(schema)}
            if route.method == "POST" and not route.kind and one == 201:
                made[str(one)]["headers"] = _LOCATION
        if _takes_many(route) and not route.kind:
            made["207"] = {"description": "Some were not done.", "content": _json(schema)}
        return made
    media = _json(schema)
    if table.at_level(route.rule, "answer", route.level) == "text/plain":
        media = {"text/plain": {"schema": {"type": "string"}}}
    etag = {"ETag": {"schema": {"type": "string"}, "required": True}}
    return {
        "200": {"description": "As it is now.", "headers": etag, "content": media},
        "304": {"description": "The caller has it already.", "headers": etag},
    }


def _answer(tables: Tables, route: Route) -> Json:
    """The schema of a success."""
    name = openapi_parts.title(tables, route.resource)
    path = table.at_level(route.rule, "answer", route.level)
    if path and path != "text/plain":
        ruled = _ruled(tables, table.schema_at(path))
        return _of_each(ruled) if not route.kind and _takes_many(route) else ruled
    if route.kind == "alias" and route.method == "GET":
        value = json_schema.told_value(table.rules_of(route.rule))
        known = {route.name: {"anyOf": [value, {"type": "null"}]}}
        return {"type": "object", "properties": known, "additionalProperties": False}
    if route.kind == "view":
        return {}
    if route.kind:
        return ref("schemas", name if route.level == "item" else "OK")
    if route.level == "item":
        return ref("schemas", name)
    return _of_collection(route, name)


def _of_collection(route: Route, name: str) -> Json:
    one = ref("schemas", name)
    if route.method == "GET":
        return ref("schemas", f"{name}s")
    if route.method == "PATCH":
        return _of_each(one)
    many = "function" not in route.rule or route.rule.get("many")
    return {"anyOf": [one, _several(one)]} if many else one


def _takes_many(route: Route) -> bool:
    return route.method == "PATCH" and route.level == "collection"


def _of_each(one: Json) -> Json:
    """The answer about many, each of which may have been refused for itself."""
    return _several({"anyOf": [one, ref("schemas", "Error")]})


def _several(one: Json) -> Json:
    status = {"type": "string", "enum": ["OK", "ERR"]}
    return {
        "type": "object",
        "properties": {"_status": status, "_items": {"type": "array", "items": one}},
        "required": ["_status", "_items"],
        "additionalProperties": False,
    }


def _ruled(tables: Tables, rules: Mapping[str, Any]) -> Json:
    """An answer's rules; `item_of` stands for the fields of an item, plus its own."""
    if "item_of" in rules:
        title = openapi_parts.title(tables, rules["item_of"])
        if not rules["schema"]:
            return ref("schemas", title)
        made = openapi_parts.item(tables, rules["item_of"])
        own = json_schema.told(rules["schema"])["properties"]
        properties = {**made["properties"], **own}
        return {**made, "title": f"{title} with {', '.join(own)}", "properties": properties}
    if rules.get("type") == "list":
        return {"type": "array", "items": _ruled(tables, rules["schema"])}
    if rules.get("type") == "dict" and "schema" in rules:
        made = json_schema.told_value({**rules, "schema": {}})
        made["properties"] = {n: _ruled(tables, one) for n, one in rules["schema"].items()}
        return made
    return json_schema.told_value(rules)


def _refused(route: Route) -> tuple[int, ...]:
    """The statuses with which a route may refuse."""
    if route.method == "GET":
        return (*_ALWAYS, 404) if route.level == "item" else _ALWAYS
    conditional = (412,) if route.level == "item" else ()
    return (*_ALWAYS, *_OF_WRITES, *conditional)


def _refusals(statuses: Sequence[int]) -> Json:
    return {str(one): ref("responses", f"Error{one}") for one in sorted(statuses)}


def _json(schema: Json) -> Json:
    return {"application/json": {"schema": schema}}
