"""A schema compiled to plain functions: the quick way for what is valid.

Cerberus takes over a millisecond a document, most of it spent on its own schema, which a
list of a thousand tasks can't wait for. What these functions accept they normalise just
as Cerberus would; whatever they do not accept goes to Cerberus, which says what is wrong.
"""

import re
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from bson import ObjectId

Check = Callable[[Any], Any]  # the normalised value; raises Unsure
Named = Mapping[str, Callable[[Any], Any]]


class Unsure(Exception):
    """Not plainly valid: ask Cerberus."""


_TYPES: Mapping[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "dict": (dict,),
    "list": (list,),
    "objectid": (ObjectId,),
    "datetime": (datetime,),
    "binary": (bytes,),
}
_SIZES: Mapping[str, Callable[[Any, Any], bool]] = {
    "min": lambda value, bound: value >= bound,
    "max": lambda value, bound: value <= bound,
    "minlength": lambda value, bound: len(value) >= bound,
    "maxlength": lambda value, bound: len(value) <= bound,
    "allowed": lambda value, bound: value in bound,
}
_IGNORED = {"meta", "required", "nullable", "type", "coerce"}


def compile_document(schema: Mapping[str, Any], coercions: Named, checks: Named) -> Check:
    """A function from a document to its normalised form; it raises Unsure.

    coercions: by the names in `coerce`; checks: by the names in `check_with`, each returns
    what is wrong with a value or None.
    """
    fields = {name: _compile(rules, coercions, checks) for name, rules in schema.items()}
    required = {name for name, rules in schema.items() if rules.get("required")}

    def check(document: Any) -> dict[str, Any]:
        if not isinstance(document, dict) or not required <= document.keys():
            raise Unsure
        try:
            return {name: fields[name](value) for name, value in document.items()}
        except KeyError:
            raise Unsure from None  # an unknown field

    return check


def compile_value(rules: Mapping[str, Any], coercions: Named, checks: Named) -> Check:
    """As compile_document, of one value by its rules."""
    return _compile(rules, coercions, checks)


def _compile(rules: Mapping[str, Any], coercions: Named, checks: Named) -> Check:
    if rules.get("readonly"):
        return _never
    made = [_rule(name, value, rules, coercions, checks) for name, value in rules.items()]
    steps = [step for step in made if step is not None]
    kinds = rules.get("type", [])
    types = tuple(one for kind in ([kinds] if isinstance(kinds, str) else kinds)
                  for one in _TYPES[kind])  # fmt: skip
    no_bool = bool not in types
    coerce = coercions[rules["coerce"]] if "coerce" in rules else None
    nullable = rules.get("nullable", False)

    def check(value: Any) -> Any:
        if coerce:
            try:
                value = coerce(value)
            except (ValueError, TypeError):
                raise Unsure from None
        if value is None and nullable:
            return None
        if types and (not isinstance(value, types) or (no_bool and isinstance(value, bool))):
            raise Unsure
        for step in steps:
            value = step(value)
        return value

    return check


def _never(value: Any) -> Any:
    raise Unsure


def _rule(
    name: str, bound: Any, rules: Mapping[str, Any], coercions: Named, checks: Named
) -> Check | None:
    """One rule as a function; None where the rule has nothing to check by itself."""
    if name in _IGNORED or (name == "allow_unknown" and "schema" not in rules):
        return None
    if name in _SIZES:
        holds = _SIZES[name]
        return lambda value: value if holds(value, bound) else _never(value)
    if name == "regex":
        matches = re.compile(bound).fullmatch
        return lambda value: value if matches(value) else _never(value)
    if name == "check_with":
        wrong_with = checks[bound]
        return lambda value: value if wrong_with(value) is None else _never(value)
    if name == "allows_duplicates":
        return None if bound else _without_repeats
    if name in ("keysrules", "valuesrules"):
        return _pairs(name, _compile(bound, coercions, checks))
    if name == "schema":
        return _nested(bound, rules, coercions, checks)
    return _never


def _without_repeats(values: Any) -> Any:
    return values if len({str(value) for value in values}) == len(values) else _never(values)


def _pairs(name: str, check: Check) -> Check:
    if name == "keysrules":
        return lambda value: {check(key): one for key, one in value.items()}
    return lambda value: {key: check(one) for key, one in value.items()}


def _nested(schema: Any, rules: Mapping[str, Any], coercions: Named, checks: Named) -> Check:
    if rules.get("type") == "list":
        check = _compile(schema, coercions, checks)
        return lambda values: [check(value) for value in values]
    return compile_document(schema, coercions, checks)
