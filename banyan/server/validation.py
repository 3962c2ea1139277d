"""The validator: Cerberus as Eve uses it, with Banyan's types and rules.

Every value that a client sends passes here, against the schema of the field that it is
meant for; virtual writes name that field in their row and are validated by the same
schema. Called by verbs; writes nothing.
"""

import base64
import binascii
import re
import threading
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import cerberus
from bson import ObjectId
from bson.errors import InvalidId
from eve.io.mongo import Validator
from flask import g, has_request_context

from banyan.domain import variables
from banyan.domain.resources import (
    Capacity,
    ResourceError,
    free_from,
    normalise_capacity,
    normalise_request,
)
from banyan.domain.retention import parse_retain
from banyan.domain.units import parse_duration_milliseconds, parse_time
from banyan.errors import BanyanError
from banyan.server import quick, sparing
from banyan.server.schemas.forms import PRIORITIES
from banyan.server.schemas.tasks import COMMAND_CHARACTERS_MAX, COMMAND_WORDS_MAX, SECRET_NAME

# One request is told so much of what is wrong with it: each part takes up to a millisecond.
DOCUMENTS_TOLD_MAX = 10
ISSUES_TOLD_MAX = 32
UNTOLD: Mapping[str, Any] = {"": "is not valid, too; mend those first of which more is told"}
_ISSUE_CHARACTERS_MAX = 2_000
_UNREAD = re.compile(r"field '.*' cannot be coerced: (.*)", re.DOTALL)  # as Cerberus says it


def _object_id(value: Any) -> ObjectId:
    try:
        if isinstance(value, str):
            return ObjectId(value)
    except InvalidId:
        pass
    raise ValueError("an id is 24 hex digits")


def _priority(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    if value not in PRIORITIES:
        raise ValueError(f"a whole number or one of {', '.join(PRIORITIES)}")
    return PRIORITIES[value]


def _base64(value: Any) -> bytes:
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, TypeError, ValueError):
        raise ValueError("base64, please") from None


def _mapping(value: Any) -> Mapping[str, object]:
    if not isinstance(value, Mapping):
        raise ResourceError({"": 'an object, as in {"cores": 1, "memory": "1 GiB"}'})
    return value


COERCIONS: Mapping[str, Callable[[Any], Any]] = {
    "object_id": _object_id,
    "time": lambda value: None if value is None else parse_time(value),
    "duration": lambda value: None if value is None else parse_duration_milliseconds(value),
    "retain": lambda value: None if value is None else parse_retain(value),
    "priority": _priority,
    "requested_resources": lambda value: normalise_request(_mapping(value)),
    "capacity": lambda value: normalise_capacity(_mapping(value)),
    "base64": _base64,
}


def _wrong_with_command(value: Any) -> str | None:
    parts = [value] if isinstance(value, str) else value
    if parts is None:
        return None
    if not isinstance(parts, list) or not all(isinstance(part, str) for part in parts):
        return "a string, or a list of strings"
    if not parts or not parts[0]:
        return "must not be empty; leave it out for a group"
    if len(parts) > COMMAND_WORDS_MAX:
        return f"more than {COMMAND_WORDS_MAX} words"
    if sum(map(len, parts)) > COMMAND_CHARACTERS_MAX:
        return f"longer than {COMMAND_CHARACTERS_MAX} characters"
    return "contains a NUL character" if any("\0" in part for part in parts) else None


def _nul_in(value: Any) -> str | None:
    return "contains a NUL character" if isinstance(value, str) and "\0" in value else None


def _wrong_with_env_value(value: Any) -> str | None:
    if isinstance(value, str):
        return _nul_in(value)
    name = value.get("secret") if isinstance(value, dict) and len(value) == 1 else None
    if isinstance(name, str) and re.fullmatch(SECRET_NAME, name):
        return None
    return 'a string, or {"secret": NAME} for what only the worker knows'


def _too_large_env(value: Any) -> str | None:
    return variables.wrong_with_sizes(value) if isinstance(value, dict) else None


def _wrong_with_free(value: Any) -> str | None:
    try:
        free_from(value, Capacity(0, 0))
    except ValueError as error:
        return str(error)
    return None


CHECKS: Mapping[str, Callable[[Any], str | None]] = {
    "command": _wrong_with_command,
    "no_nul": _nul_in,
    "env_value": _wrong_with_env_value,
    "env_size": _too_large_env,
    "free": _wrong_with_free,
}


def _by_name() -> type:
    """Coercions and checks as methods, where Cerberus looks for them.

    It makes its lists of their names when a class is made, so they must be in a base.
    """

    def checking(wrong_with: Callable[[Any], str | None]) -> Callable[..., None]:
        def method(self: Any, field: str, value: Any) -> None:
            wrong = wrong_with(value)
            if wrong:
                self._error(field, wrong)

        return method

    coercions = {f"_normalize_coerce_{name}": staticmethod(one) for name, one in COERCIONS.items()}
    checks = {f"_check_with_{name}": checking(one) for name, one in CHECKS.items()}
    return type("ByName", (), {**coercions, **checks})


class BanyanValidator(_by_name(), Validator):  # type: ignore[misc]  # Eve has no types
    """Rules that the schemas name. The docstrings of rules are the rules' own schemas."""

    # Cerberus takes true for the integer 1; Eve lets null through where nothing is stored.
    types_mapping: ClassVar = {
        **Validator.types_mapping,
        "integer": cerberus.TypeDefinition("integer", (int,), (bool,)),
    }
    _validate_readonly = cerberus.Validator._validate_readonly

    def _validate_allows_duplicates(self, allowed: bool, field: str, value: Any) -> None:
        """{'type': 'boolean'}"""
        if not allowed and isinstance(value, list) and len({str(v) for v in value}) != len(value):
            self._error(field, "a value stands in the list twice")

    def _validate_regex(self, pattern: str, field: str, value: Any) -> None:
        """{'type': 'string'}"""
        # Cerberus's own takes "name\n" for "name".
        if isinstance(value, str) and not re.fullmatch(pattern, value):
            self._error(field, f"does not match {pattern}")


_validators = threading.local()
_quick: dict[int, tuple[Mapping[str, Any], quick.Check]] = {}


def _validator(schema: Mapping[str, Any], field: str | None = None) -> BanyanValidator:
    """One validator a thread and schema (or field): building one costs more than using it."""
    cache: dict[tuple[int, str | None], tuple[Mapping[str, Any], BanyanValidator]]
    cache = _validators.__dict__.setdefault("cache", {})
    key = (id(schema), field)
    if key not in cache:
        rules = dict(schema) if field is None else {field: schema[field]}
        cache[key] = (schema, BanyanValidator(rules))  # the schema is kept, so its id is too
    return cache[key][1]


def _quick_check(schema: Mapping[str, Any]) -> quick.Check:
    if id(schema) not in _quick:
        _quick[id(schema)] = (schema, quick.compile_document(schema, COERCIONS, CHECKS))
    return _quick[id(schema)][1]


def _quick_value(rules: Mapping[str, Any]) -> quick.Check:
    if id(rules) not in _quick:
        _quick[id(rules)] = (rules, quick.compile_value(rules, COERCIONS, CHECKS))
    return _quick[id(rules)][1]


class _Telling:
    """What one request has been told already of all that is wrong with it."""

    def __init__(self) -> None:
        self.documents = 0
        self.issues = 0

    @property
    def is_over(self) -> bool:
        return self.documents >= DOCUMENTS_TOLD_MAX or self.issues >= ISSUES_TOLD_MAX

    def add(self, issues: Any) -> None:
        self.documents += bool(issues)
        self.issues += count_issues(issues)


def _telling() -> _Telling:
    """One for all that a request has checked, whoever checks it."""
    if not has_request_context():
        return _Telling()
    if "telling" not in g:
        g.telling = _Telling()
    telling: _Telling = g.telling
    return telling


def count_issues(issues: Any) -> int:
    """How many sentences they are."""
    if isinstance(issues, Mapping | list):
        parts = issues.values() if isinstance(issues, Mapping) else issues
        return sum(map(count_issues, parts))
    return 1


def check(
    schema: Mapping[str, Any], document: Any, update: bool = False
) -> tuple[dict[str, Any], dict[str, Any]]:
    """(the normalised document, what is wrong with it by field).

    update: fields that are required may be left out.
    Once a request has been told enough, it is only told that something is wrong: UNTOLD.
    """
    try:
        return _quick_check(schema)(document), {}
    except quick.Unsure:
        telling = _telling()
    if telling.is_over:
        return {}, dict(UNTOLD)
    checked, issues = _check_thoroughly(schema, document, update)
    telling.add(issues)
    return checked, issues


def _check_thoroughly(
    schema: Mapping[str, Any], document: Any, update: bool
) -> tuple[dict[str, Any], dict[str, Any]]:
    """As `check`, by Cerberus: it can say what is wrong."""
    if not isinstance(document, dict):
        return {}, {"": "an object, please"}
    return _run(schema, _validator(schema), document, update)


def _run(
    schema: Mapping[str, Any], validator: BanyanValidator, document: dict[str, Any], update: bool
) -> tuple[dict[str, Any], dict[str, Any]]:
    spared = sparing.spare(schema, document, _quick_value, COERCIONS, CHECKS)
    checked, issues = _ask(validator, spared.document, update)
    told: dict[str, Any] = _told(spared.told(issues))
    if told or spared.is_whole:
        return checked, told
    # Nothing of that is wrong: the rest is wanted, too, and what Cerberus says of it.
    checked, issues = _ask(validator, document, update)
    return checked, _told(issues)


def _ask(
    validator: BanyanValidator, document: dict[str, Any], update: bool
) -> tuple[dict[str, Any], dict[str, Any]]:
    validator.validate(document, normalize=True)
    # Cerberus's own `update` would let what is required within a field be left out, too.
    issues = {
        name: wrong for name, wrong in validator.errors.items() if not update or name in document
    }
    return dict(validator.document or {}), issues


def _told(issues: Any) -> Any:
    """What is wrong with a field; of a text that could not be read that, and nothing besides."""
    if isinstance(issues, dict):
        return {name: _told(one) for name, one in issues.items()}
    several = issues if isinstance(issues, list) else [issues]
    unread = [_UNREAD.fullmatch(one) for one in several if isinstance(one, str)]
    problems = [found[1] for found in unread if found]
    if problems:
        return _short(problems[0])
    return [_told(one) for one in issues] if isinstance(issues, list) else _short(issues)


def _short(issue: Any) -> Any:
    """Without most of a very long value that it speaks of."""
    too_long = isinstance(issue, str) and len(issue) > _ISSUE_CHARACTERS_MAX
    return f"{issue[:_ISSUE_CHARACTERS_MAX]}…" if too_long else issue


def demand(schema: Mapping[str, Any], document: Any, update: bool = False) -> dict[str, Any]:
    """The normalised document. Errors: `invalid` with the issues of each field."""
    checked, issues = check(schema, document, update)
    if issues:
        raise BanyanError("invalid", "some fields are invalid: see _issues", issues)
    return checked


def check_value(schema: Mapping[str, Any], field: str, value: Any) -> tuple[Any, Any]:
    """(one value normalised by the rules of a field, what is wrong with it or None)."""
    rules = {field: schema[field]}
    try:
        return _quick_value(schema[field])(value), None
    except quick.Unsure:
        telling = _telling()
    if telling.is_over:
        return None, UNTOLD[""]
    checked, issues = _run(rules, _validator(schema, field), {field: value}, update=True)
    telling.add(issues)
    return checked.get(field), issues.get(field)


def demand_value(schema: Mapping[str, Any], field: str, value: Any, name: str) -> Any:
    """One value by the rules of a field; the issue is told under `name`. Errors: `invalid`."""
    checked, wrong = check_value(schema, field, value)
    if wrong:
        raise BanyanError("invalid", f"{name}: see _issues", {name: wrong})
    return checked


def items_told(found: Mapping[int, Mapping[str, Any]]) -> tuple[dict[str, Any], str]:
    """(issues of a list's items by the item's index, a sentence on those that are not told).

    Of the first wrong items only, as with UNTOLD: a list of a thousand is not mended by hand.
    """
    told: dict[str, Any] = {}
    wrong = [index for index, issues in found.items() if issues]
    count = 0
    for index in wrong[:DOCUMENTS_TOLD_MAX]:
        if found[index] == UNTOLD or count >= ISSUES_TOLD_MAX:
            break
        told[str(index)] = found[index]
        count += count_issues(found[index])
    more = len(wrong) - len(told)
    items = "item is" if more == 1 else "items are"
    return told, f"; {more} more {items} wrong, too" if more else ""
