"""Documents -> JSON, and JSON -> Python with the limits that MongoDB has anyway."""

import base64
import contextlib
import json
import threading
from datetime import datetime
from typing import Any

import orjson
from bson import Binary, ObjectId

from banyan.config import knobs
from banyan.domain.units import format_time
from banyan.errors import BanyanError
from banyan.json_texts import without_texts

_OPTIONS = orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_NON_STR_KEYS
_INT64 = 2**63
_NESTED = (dict, list)  # as the parser makes them, so that looking at the class will do
# In one body: each takes some 50 to 230 bytes of memory, and may be written with two.
VALUES_MAX = 1_000_000
CONTAINERS_MAX = 500_000  # lists and objects
_LONG_BYTES = 1024 * 1024
_one_at_a_time = threading.Lock()


class JSON:
    """Eve's renderer: the only media type that Banyan speaks."""

    mime = ("application/json",)

    def render(self, data: Any) -> bytes:
        """A document, a list of them, or nothing, as bytes."""
        return dumps({} if data is None else data)


def dumps(value: Any) -> bytes:
    """JSON with ids as 24 hex digits and times as ISO 8601 in UTC."""
    return orjson.dumps(value, default=_plain, option=_OPTIONS)


def _plain(value: Any) -> Any:
    if isinstance(value, ObjectId):
        return str(value)
    if isinstance(value, datetime):
        return format_time(value)
    if isinstance(value, bytes | Binary):
        return base64.b64encode(value).decode()
    raise TypeError(f"{type(value).__name__} has no JSON form")


def loads(body: bytes) -> Any:
    """Parse a request's body.

    Long ones are parsed one at a time, so that they do not take memory and time all at once.
    Errors: `bad_request`, `invalid` where MongoDB could not hold it; `too_large`.
    """
    if len(body) > _LONG_BYTES:
        with _one_at_a_time:
            _refuse_too_many(body)
            return _parse(body)
    return _parse(body)


def _refuse_too_many(body: bytes) -> None:
    """Errors: `too_large` for so many values that they would take far more memory than the body."""
    if _are_too_many(*_count(body)):
        values, containers = _count(without_texts(body))
        if _are_too_many(values, containers):
            told = f"{values} values, {containers} of them lists or objects"
            most = f"at most {VALUES_MAX} and {CONTAINERS_MAX}"
            raise BanyanError("too_large", f"the body has {told}: send {most} at a time")


def _count(body: bytes) -> tuple[int, int]:
    """How many values there are, and lists and objects among them; as many at least."""
    containers = body.count(b"[") + body.count(b"{")
    return body.count(b",") + containers, containers


def _are_too_many(values: int, containers: int) -> bool:
    return values > VALUES_MAX or containers > CONTAINERS_MAX


def _parse(body: bytes) -> Any:
    try:
        value = orjson.loads(body)
    except (orjson.JSONDecodeError, RecursionError) as error:
        _refuse_constants(body)
        raise BanyanError("bad_request", f"the body is not valid JSON: {error}") from None
    check_storable(value)
    return value


def _refuse_constants(body: bytes) -> None:
    """Errors: `invalid` for NaN and Infinity, which many clients write where JSON has no such."""

    def refuse(name: str) -> None:
        raise BanyanError("invalid", f"{name} is not a number that can be stored")

    with contextlib.suppress(ValueError, RecursionError):
        json.loads(body, parse_constant=refuse)


def check_storable(value: Any, depth: int = 0) -> None:
    """Errors: `bad_request` for what is nested too deep, too large a number, or a NUL key."""
    if isinstance(value, dict | list):
        if depth >= knobs().BODY_DEPTH_MAX:
            raise BanyanError("bad_request", f"nested deeper than {knobs().BODY_DEPTH_MAX} levels")
        if isinstance(value, dict):
            if "\0" in "".join(value):
                raise BanyanError("bad_request", "a name contains a NUL character")
            value = value.values()
        for part in value:
            if part.__class__ in _NESTED:
                check_storable(part, depth + 1)
            elif part.__class__ is int:
                _check_number(part)
    elif isinstance(value, int):
        _check_number(value)


def _check_number(value: int) -> None:
    if not -_INT64 <= value < _INT64:
        raise BanyanError("bad_request", "a number is beyond 64 bits")
