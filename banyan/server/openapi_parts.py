"""The parts of the OpenAPI document that its operations refer to: schemas, errors, parameters.

Made from the tables and the schemas, called by `openapi.py`.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from banyan.errors import LOCAL_WORDS, WORDS
from banyan.server import json_schema, table
from banyan.server.schemas import forms, parameters

Json = dict[str, Any]
Tables = Mapping[str, Mapping[str, Any]]

_AUTOMATIC: Json = {
    "_id": {**forms.OBJECT_ID, "description": "The identifier."},
    "_created": {"type": "string", "format": "date-time"},
    "_updated": {"type": "string", "format": "date-time"},
    "_etag": {"type": "string", "description": "The version, for If-Match."},
}
_STATUS: Json = {"type": "string", "enum": ["OK"]}
_LINK: Json = {
    "type": "object",
    "properties": {
        "title": {"type": "string"},
        "href": {"type": "string", "format": "uri-reference", "description": "An absolute path."},
        "method": {"type": "string", "enum": ["GET", "POST", "PATCH", "DELETE"]},
    },
    "required": ["title", "href", "method"],
    "additionalProperties": False,
}


def ref(kind: str, name: str) -> Json:
    """A reference to a part."""
    return {"$ref": f"#/components/{kind}/{name}"}


def title(tables: Tables, resource: str) -> str:
    """The name of a resource's item as a schema: `Task`."""
    return str(tables["DOMAIN"][resource]["item_title"]).capitalize()


def components(tables: Tables) -> Json:
    """`components` of the document."""
    schemas: Json = {"Error": error(), "Link": _LINK, "Links": _links(), "OK": _ok()}
    for resource in tables["DOMAIN"]:
        schemas |= _of_resource(tables, resource)
    return {
        "schemas": schemas,
        "responses": {f"Error{status}": _refusal(status) for status in statuses()},
        "parameters": {
            **{_key(name): {"name": name, **one} for name, one in _all_parameters()},
            "id": {"name": "id", "in": "path", "required": True, "schema": forms.OBJECT_ID},
        },
        "securitySchemes": {
            "bearer": {"type": "http", "scheme": "bearer"},
            "basic": {
                "type": "http",
                "scheme": "basic",
                "description": "The token as the user name, and no password.",
            },
        },
    }


def _all_parameters() -> Iterable[tuple[str, Json]]:
    return [*parameters.QUERY.items(), *parameters.HEADERS.items()]


def _key(name: str) -> str:
    return name.replace("-", "")


def parameter(name: str) -> Json:
    """A reference to a parameter by its name on the wire."""
    return ref("parameters", _key(name))


def _ok() -> Json:
    return {
        "type": "object",
        "properties": {"_status": _STATUS},
        "required": ["_status"],
        "additionalProperties": False,
    }


def _links() -> Json:
    one_or_more = {"anyOf": [ref("schemas", "Link"),
                             {"type": "array", "items": ref("schemas", "Link")}]}  # fmt: skip
    return {
        "type": "object",
        "description": "What this caller may do now, by name.",
        "additionalProperties": one_or_more,
    }


def _of_resource(tables: Tables, resource: str) -> Json:
    """`Task`, `Tasks`, `NewTask`, `TaskChange`: an item, a list, and what is sent."""
    name, entry = title(tables, resource), tables["DOMAIN"][resource]
    made = {name: item(tables, resource), f"{name}s": _list_of(name)}
    if "POST" in entry.get("collection", {}):
        made[f"New{name}"] = new(entry)
    if "PATCH" in entry.get("item", {}):
        made[f"{name}Change"] = change(tables, resource)
    return made


def item(tables: Tables, resource: str) -> Json:
    """An item as it is answered; a projection may add aliases, and leave other fields out."""
    aliases = {
        name: _or_null(json_schema.told_value(table.rules_of(row)))
        for name, row in tables["VIRTUAL_RESOURCES"].get(resource, {}).items()
        if row["kind"] == "alias"
    }
    made = json_schema.told(tables["DOMAIN"][resource]["schema"])
    around = {"_links": ref("schemas", "Links"), "_status": _STATUS}
    properties = {**_AUTOMATIC, **aliases, **made["properties"], **around}
    return {**made, "properties": properties, "required": ["_id"]}


def _or_null(schema: Json) -> Json:
    return {"anyOf": [schema, {"type": "null"}]}


def _list_of(name: str) -> Json:
    count = {"type": "integer", "minimum": 0}
    total = {
        "type": ["integer", "null"],
        "description": "Of all pages; null where this page is not the last: counting takes long.",
    }
    return {
        "type": "object",
        "properties": {
            "_items": {"type": "array", "items": ref("schemas", name)},
            "_meta": {
                "type": "object",
                "properties": {"page": count, "max_results": count, "total": total},
                "additionalProperties": False,
            },
            "_links": ref("schemas", "Links"),
        },
        "required": ["_items", "_meta"],
        "additionalProperties": False,
    }


def new(entry: Mapping[str, Any]) -> Json:
    """What POST takes for one item."""
    made = json_schema.asked(entry["schema"])
    for field, value in entry["as_created"].items():
        if field in made["properties"] and value not in (None, {}, []):
            made["properties"][field] |= {"default": value}
    if entry["collection"]["POST"].get("chosen_id"):
        made["properties"] = {"_id": forms.OBJECT_ID, **made["properties"]}
    return made


def change(tables: Tables, resource: str) -> Json:
    """What PATCH of an item takes: fields of the item and virtual writes by name."""
    made = json_schema.asked(tables["DOMAIN"][resource]["schema"], update=True)
    for name, row in tables["VIRTUAL_RESOURCES"].get(resource, {}).items():
        if row["kind"] in ("append", "remove") or (row["kind"] == "alias" and not row["readonly"]):
            made["properties"][name] = json_schema.asked_value(table.rules_of(row))
        elif row.get("in_patch"):
            made["properties"][name] = json_schema.asked(table.schema_at(row["body"]))
    return made


def error(words: Iterable[str] | None = None) -> Json:
    """The one shape of all errors, with these words only, or with all of the closed list."""
    known = [word for word in WORDS if word not in LOCAL_WORDS] if words is None else list(words)
    told = {
        "type": "object",
        "properties": {
            "code": {"type": "integer"},
            "word": {"type": "string", "enum": known},
            "message": {"type": "string"},
        },
        "required": ["code", "word", "message"],
        "additionalProperties": False,
    }
    return {
        "type": "object",
        "properties": {
            "_status": {"type": "string", "enum": ["ERR"]},
            "_error": told,
            "_issues": {
                "type": "object",
                "description": "What is wrong, by field, or by the item's index and field: a "
                "list of texts for each, of what lies deeper an object in it.",
            },
            "_id": {"description": "Of the item, as it was sent, in an answer about many."},
            "state": {"type": ["string", "null"], "description": "The state that the task is in."},
            "limit": {"type": "string", "description": "Of `quota_exceeded`: which one."},
            **{name: {"type": "integer"} for name in ("value", "used", "asked")},
        },
        "required": ["_status", "_error"],
        "additionalProperties": False,
    }


def statuses() -> list[int]:
    """The statuses of the errors that a server answers, without its own bugs."""
    return sorted({one.status for word, one in WORDS.items() if word not in LOCAL_WORDS} - {500})


def _refusal(status: int) -> Json:
    known = WORDS.keys() - LOCAL_WORDS
    words = [word for word, one in WORDS.items() if one.status == status and word in known]
    told = "; ".join(f"`{word}`: {WORDS[word].meaning}" for word in words)
    made: Json = {
        "description": told,
        "content": {"application/json": {"schema": error(words)}},
    }
    if status in (429, 503):
        made["headers"] = {"Retry-After": {"schema": {"type": "string"}, "required": True}}
    if status == 401:
        made["headers"] = {"WWW-Authenticate": {"schema": {"type": "string"}, "required": True}}
    return made
