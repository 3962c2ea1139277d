"""The validator: Cerberus as Eve uses it, with Banyan's types and rules.

Every value that a client sends passes here, against the schema of the field that it is
meant for; virtual writes name that field in their row and are validated by the same
schema. Called by verbs; writes nothing.
"""

import base64
import binascii
import threading
from collections.abc import Mapping, Sequence
from typing import Any

from bson import ObjectId
from eve.io.mongo import Validator

from banyan.domain.resources import ResourceError, normalise_capacity, normalise_request
from banyan.domain.units import parse_duration_milliseconds, parse_time
from banyan.errors import BanyanError
from banyan.server.schemas.tasks import COMMAND_CHARACTERS_MAX

PRIORITIES = {"backfill": -100, "low": -10, "normal": 0, "high": 10}
_ENV_BYTES_MAX = 64 * 1024


class BanyanValidator(Validator):  # type: ignore[misc]  # Eve has no types
    """Rules and coercions that the schemas name. Their docstrings are rules' own schemas."""

    def _normalize_coerce_object_id(self, value: Any) -> ObjectId:
        if not isinstance(value, str) or not ObjectId.is_valid(value):
            raise ValueError("an id is 24 hex digits")
        return ObjectId(value)

    def _normalize_coerce_time(self, value: Any) -> Any:
        return None if value is None else parse_time(value)

    def _normalize_coerce_duration(self, value: Any) -> Any:
        return None if value is None else parse_duration_milliseconds(value)

    def _normalize_coerce_priority(self, value: Any) -> Any:
        if isinstance(value, str):
            if value not in PRIORITIES:
                raise ValueError(f"a whole number or one of {', '.join(PRIORITIES)}")
            return PRIORITIES[value]
        return value

    def _normalize_coerce_requested_resources(self, value: Any) -> Any:
        return normalise_request(_mapping(value))

    def _normalize_coerce_capacity(self, value: Any) -> Any:
        return normalise_capacity(_mapping(value))

    def _normalize_coerce_base64(self, value: Any) -> bytes:
        try:
            return base64.b64decode(value, validate=True)
        except (binascii.Error, TypeError, ValueError):
            raise ValueError("base64, please") from None

    def _validate_allows_duplicates(self, allowed: bool, field: str, value: Any) -> None:
        """{'type': 'boolean'}"""
        if not allowed and isinstance(value, list) and len({str(v) for v in value}) != len(value):
            self._error(field, "a value stands in the list twice")

    def _check_with_command(self, field: str, value: Any) -> None:
        parts = [value] if isinstance(value, str) else value
        if parts is None:
            return
        if not isinstance(parts, list) or not all(isinstance(part, str) for part in parts):
            self._error(field, "a string, or a list of strings")
        elif not parts or not parts[0]:
            self._error(field, "must not be empty; leave it out for a group")
        elif sum(map(len, parts)) > COMMAND_CHARACTERS_MAX:
            self._error(field, f"longer than {COMMAND_CHARACTERS_MAX} characters")
        elif any("\0" in part for part in parts):
            self._error(field, "contains a NUL character")

    def _check_with_no_nul(self, field: str, value: Any) -> None:
        if isinstance(value, str) and "\0" in value:
            self._error(field, "contains a NUL character")

    def _check_with_env_size(self, field: str, value: Any) -> None:
        if isinstance(value, dict):
            texts = [text for pair in value.items() for text in pair if isinstance(text, str)]
            if sum(len(text.encode()) for text in texts) > _ENV_BYTES_MAX:
                self._error(field, "larger than 64 KiB")


def _mapping(value: Any) -> Mapping[str, object]:
    if not isinstance(value, Mapping):
        raise ResourceError({"": 'an object, as in {"cores": 1, "memory": "1 GiB"}'})
    return value


_validators = threading.local()


def _validator(schema: Mapping[str, Any], field: str | None = None) -> BanyanValidator:
    """One validator a thread and schema (or field of it): building one costs more than using it."""
    cache: dict[tuple[int, str | None], tuple[Mapping[str, Any], BanyanValidator]]
    cache = _validators.__dict__.setdefault("cache", {})
    key = (id(schema), field)
    if key not in cache:
        rules = dict(schema) if field is None else {field: schema[field]}
        cache[key] = (schema, BanyanValidator(rules))  # the schema is kept, so its id is too
    return cache[key][1]


def check(
    schema: Mapping[str, Any], document: Any, update: bool = False
) -> tuple[dict[str, Any], dict[str, Any]]:
    """(the normalised document, what is wrong with it by field).

    update: fields that are required may be left out.
    """
    if not isinstance(document, dict):
        return {}, {"": "an object, please"}
    return _run(_validator(schema), document, update)


def _run(
    validator: BanyanValidator, document: dict[str, Any], update: bool
) -> tuple[dict[str, Any], dict[str, Any]]:
    validator.validate(document, update=update, normalize=True)
    return dict(validator.document or {}), dict(validator.errors)


def demand(schema: Mapping[str, Any], document: Any, update: bool = False) -> dict[str, Any]:
    """The normalised document. Errors: `invalid` with the issues of each field."""
    checked, issues = check(schema, document, update)
    if issues:
        raise BanyanError("invalid", "some fields are invalid: see _issues", issues)
    return checked


def check_value(schema: Mapping[str, Any], field: str, value: Any) -> tuple[Any, Any]:
    """(one value normalised by the rules of a field, what is wrong with it or None)."""
    checked, issues = _run(_validator(schema, field), {field: value}, update=True)
    return checked.get(field), issues.get(field)


def demand_value(schema: Mapping[str, Any], field: str, value: Any, name: str) -> Any:
    """One value by the rules of a field; the issue is told under `name`. Errors: `invalid`."""
    checked, wrong = check_value(schema, field, value)
    if wrong:
        raise BanyanError("invalid", f"{name}: see _issues", {name: wrong})
    return checked


def item_issues(found: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Issues of a list of items, by the item's index."""
    return {str(index): issues for index, issues in enumerate(found) if issues}
