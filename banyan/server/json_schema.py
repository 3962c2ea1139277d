"""The schemas of the resources (Cerberus rules) as JSON Schema, in two readings.

*Asked*: what a request may hold, short forms and all. *Told*: what an answer holds, which
is the stored form. Called by `openapi.py`; a rule that it does not know is an error, so
that no rule can be forgotten in the documents.
"""

from collections.abc import Callable, Mapping
from typing import Any

from banyan.domain import variables
from banyan.server.schemas import forms
from banyan.server.schemas.tasks import COMMAND_CHARACTERS_MAX, SECRET_NAME

Rules = Mapping[str, Any]
JsonSchema = dict[str, Any]

_TYPES = {
    "string": {"type": "string"},
    "integer": {"type": "integer"},
    "number": {"type": "number"},
    "boolean": {"type": "boolean"},
    "dict": {"type": "object"},
    "list": {"type": "array"},
    "objectid": forms.OBJECT_ID,
    "datetime": {"type": "string", "format": "date-time"},
    "binary": {"type": "string", "contentEncoding": "base64"},
}
_NO_NUL = r"^[^\u0000]*$"
_TEXT = {"type": "string", "minLength": 1, "maxLength": COMMAND_CHARACTERS_MAX, "pattern": _NO_NUL}
# Checks that say all about a value, and those that add to what the other rules say.
_WHOLE: Mapping[str, JsonSchema] = {
    "free": forms.FREE,
    "env_value": {
        "anyOf": [
            {"type": "string", "pattern": _NO_NUL},
            {
                "type": "object",
                "description": "A value that only the worker knows, put in where the task starts.",
                "properties": {"secret": {"type": "string", "pattern": f"^{SECRET_NAME}$"}},
                "required": ["secret"],
                "additionalProperties": False,
            },
        ]
    },
    "command": {
        "anyOf": [
            {**_TEXT, "description": "Run by /bin/sh -c."},
            {
                "type": "array",
                "description": "Run as it is, without a shell.",
                "prefixItems": [_TEXT],
                "items": {**_TEXT, "minLength": 0},
                "minItems": 1,
            },
        ]
    },
}
_CHECKED: Mapping[str, JsonSchema] = {
    "no_nul": {"pattern": _NO_NUL},
    "env_size": {"description": f"At most {variables.BYTES_MAX >> 10} KiB in all."},
}
# Rules that say nothing about the shape of a value.
_ELSEWHERE = {"coerce", "type", "required", "readonly", "nullable", "meta", "schema"}

_TOLD = ("type", "allowed", "schema", "valuesrules", "allow_unknown")


def asked(schema: Rules, update: bool = False) -> JsonSchema:
    """An object that a request may send; `update`: nothing is required."""
    writable = {name: rules for name, rules in schema.items() if not rules.get("readonly")}
    required = [name for name, rules in writable.items() if rules.get("required")]
    made = _object({name: asked_value(rules) for name, rules in writable.items()})
    return {**made, "required": required} if required and not update else made


def asked_value(rules: Rules) -> JsonSchema:
    """One value that a request may send."""
    if rules.get("coerce") in forms.FORMS:
        made = _bounded(dict(forms.FORMS[rules["coerce"]]), rules)
    elif rules.get("check_with") in _WHOLE:
        made = dict(_WHOLE[rules["check_with"]])
    else:
        made = _typed(rules, asked)
    return _nullable(made) if rules.get("nullable") else made


def _bounded(form: JsonSchema, rules: Rules) -> JsonSchema:
    """A short form with the bounds of the field on the numbers in it."""
    if "anyOf" not in form:
        return form
    bounds = {_BOUNDS[name]: rules[name] for name in _BOUNDS if name in rules}
    ways = [{**way, **(bounds if way.get("type") == "integer" else {})} for way in form["anyOf"]]
    return {**form, "anyOf": ways}


_BOUNDS = {"min": "minimum", "max": "maximum"}


def told(schema: Rules) -> JsonSchema:
    """An object as answers hold it; any field may be left out of it by a projection."""
    return _object({name: told_value(rules) for name, rules in schema.items()})


def told_value(rules: Rules) -> JsonSchema:
    """One value as answers hold it: its type, and of which values it is one."""
    kept = {name: rules[name] for name in _TOLD if name in rules}
    made = _typed(kept, told)
    return _nullable(made) if rules.get("nullable") else made


def _typed(rules: Rules, of_object: Callable[[Rules], JsonSchema]) -> JsonSchema:
    kinds = rules.get("type", [])
    several = [kinds] if isinstance(kinds, str) else kinds
    made = dict(_TYPES[kinds]) if isinstance(kinds, str) else {}
    if len(several) > 1:
        made = {"anyOf": [dict(_TYPES[kind]) for kind in several]}
    if "schema" in rules:
        made |= _nested(kinds, rules["schema"], of_object)
    if rules.get("allow_unknown"):
        made["additionalProperties"] = True
    for name, value in rules.items():
        if name not in _ELSEWHERE and name != "allow_unknown":
            made |= _rule(name, value, kinds, of_object)
    return made


def _nested(kinds: Any, schema: Rules, of_object: Callable[[Rules], JsonSchema]) -> JsonSchema:
    if kinds == "list":
        one = asked_value if of_object is asked else told_value
        return {"items": one(schema)}
    return of_object(schema)


def _rule(
    name: str, value: Any, kinds: Any, of_object: Callable[[Rules], JsonSchema]
) -> JsonSchema:
    one = asked_value if of_object is asked else told_value
    if name in ("minlength", "maxlength"):
        return {name[:3] + _COUNTED.get(kinds, "Length"): value}
    simple: Mapping[str, Callable[[], JsonSchema]] = {
        "min": lambda: {"minimum": value},
        "max": lambda: {"maximum": value},
        "allowed": lambda: {"enum": list(value)},
        "regex": lambda: {"pattern": f"^(?:{value})$"},
        "allows_duplicates": lambda: {} if value else {"uniqueItems": True},
        "keysrules": lambda: {"propertyNames": one(value)},
        "valuesrules": lambda: {"additionalProperties": one(value)},
        "check_with": lambda: dict(_CHECKED[value]),
    }
    return simple[name]()


_COUNTED = {"list": "Items", "dict": "Properties"}


def _object(properties: Mapping[str, JsonSchema]) -> JsonSchema:
    return {"type": "object", "properties": dict(properties), "additionalProperties": False}


def _nullable(schema: JsonSchema) -> JsonSchema:
    if "enum" in schema:
        schema = {**schema, "enum": [*schema["enum"], None]}
    if isinstance(schema.get("type"), str):
        return {**schema, "type": [schema["type"], "null"]}
    if "anyOf" in schema:
        return {**schema, "anyOf": [*schema["anyOf"], {"type": "null"}]}
    return {"anyOf": [schema, {"type": "null"}]}
