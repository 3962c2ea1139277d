"""`where`, `projection`, `sort` and paging of a request -> what MongoDB is asked.

Strict: JSON only, fields of the schema only, operators of an allow-list only, inclusion
only. What is not understood is refused with 400, never passed on.
"""

from collections.abc import Callable, Mapping
from typing import Any

import orjson
from bson import ObjectId

from banyan.config import knobs
from banyan.domain.units import parse_time
from banyan.errors import BanyanError
from banyan.server.render import check_storable

_COMPARISONS = {"$eq", "$ne", "$gt", "$gte", "$lt", "$lte"}
_LISTS = {"$in", "$nin", "$all"}
_LOGIC = {"$and", "$or", "$nor"}
_VALUES_MAX = 2_000  # of one list
CONDITIONS_MAX = 256  # in all of a filter: each is compared with each task
_PAGE_DEEPEST = 100_000

Schema = Mapping[str, Any]
AUTOMATIC: Schema = {
    "_id": {"type": "objectid"},
    "_created": {"type": "datetime"},
    "_updated": {"type": "datetime"},
    "_etag": {"type": "string"},
}


def parse_where(text: str | None, schema: Schema) -> dict[str, Any]:
    """The filter of a request. Errors: `bad_request`."""
    if not text:
        return {}
    query = _json(text, "where")
    if not isinstance(query, dict):
        raise BanyanError("bad_request", "where: a JSON object of fields and conditions")
    if _conditions(query) > CONDITIONS_MAX:
        message = f"where: more than {CONDITIONS_MAX} conditions; of values, use $in with a list"
        raise BanyanError("bad_request", message)
    return _query(query, {**schema, **AUTOMATIC})


def _conditions(query: Any) -> int:
    """How many things each task is compared with; a list of $in and $nin is one of them."""
    if isinstance(query, dict):
        return sum(
            1 if name in ("$in", "$nin") else _conditions(one) for name, one in query.items()
        )
    if isinstance(query, list):
        return sum(map(_conditions, query))
    return 1


def too_slow() -> BanyanError:
    """The error for what took the database longer than it may."""
    return BanyanError(
        "bad_request",
        f"this query takes longer than {knobs().QUERY_SECONDS_MAX:g} s: narrow it, best by `_id`, "
        "`state`, `name` or `owner`, or sort by `_id`",
    )


def named_ids(where: Mapping[str, Any]) -> list[ObjectId] | None:
    """The only items that a parsed filter may match; None where it names none, or not plainly."""
    named = where.get("_id")
    listed = isinstance(named, dict) and named.keys() == {"$in"}
    ids: list[Any] = where["_id"]["$in"] if listed else [named]
    return ids if ids and all(isinstance(one, ObjectId) for one in ids) else None


def _json(text: str, name: str) -> Any:
    try:
        value = orjson.loads(text)
    except (orjson.JSONDecodeError, RecursionError):
        raise BanyanError("bad_request", f"{name}: not valid JSON") from None
    check_storable(value)
    return value


def _query(query: Mapping[str, Any], schema: Schema) -> dict[str, Any]:
    parsed: dict[str, Any] = {}
    for key, value in query.items():
        if key in _LOGIC:
            if not isinstance(value, list) or not value:
                raise BanyanError("bad_request", f"where: {key} takes a list of conditions")
            if not all(isinstance(part, dict) for part in value):
                raise BanyanError("bad_request", f"where: {key} takes a list of objects")
            parsed[key] = [_query(part, schema) for part in value]
        elif key.startswith("$"):
            raise BanyanError("bad_request", f"where: the operator {key} is not allowed")
        else:
            parsed[key] = _condition(key, value, _cast_for(key, schema))
    return parsed


def _condition(field: str, value: Any, cast: Callable[[Any], Any]) -> Any:
    if not isinstance(value, dict) or not any(key.startswith("$") for key in value):
        return _list_or_one(value, cast)
    return {name: _operand(field, name, operand, cast) for name, operand in value.items()}


def _operand(field: str, name: str, operand: Any, cast: Callable[[Any], Any]) -> Any:
    if name in _COMPARISONS:
        return _list_or_one(operand, cast)
    if name in _LISTS:
        if not isinstance(operand, list) or len(operand) > _VALUES_MAX:
            raise BanyanError(
                "bad_request", f"where: {name} takes a list of at most {_VALUES_MAX} values"
            )
        return [_list_or_one(one, cast) for one in operand]
    if name == "$exists" and isinstance(operand, bool):
        return operand
    if name == "$size" and isinstance(operand, int) and not isinstance(operand, bool):
        if operand < 0:
            raise BanyanError("bad_request", "where: $size takes a number of at least 0")
        return operand
    if name == "$not" and isinstance(operand, dict) and operand:
        if not all(key.startswith("$") for key in operand):
            raise BanyanError("bad_request", "where: $not takes operators")
        return _condition(field, operand, cast)
    raise BanyanError("bad_request", f"where: {field}: {name} is not allowed here")


def _list_or_one(value: Any, cast: Callable[[Any], Any]) -> Any:
    if isinstance(value, dict):
        if any(key.startswith("$") for key in value):
            raise BanyanError("bad_request", "where: an operator is not allowed here")
        return value
    return [cast(one) for one in value] if isinstance(value, list) else cast(value)


def _cast_for(path: str, schema: Schema) -> Callable[[Any], Any]:
    kind = _kind_of(path, schema)
    if kind == "objectid":
        return _object_id
    return _time if kind == "datetime" else _same


def _same(value: Any) -> Any:
    return value


def _object_id(value: Any) -> Any:
    return ObjectId(value) if isinstance(value, str) and ObjectId.is_valid(value) else value


def _time(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return parse_time(value)
    except ValueError as error:
        raise BanyanError("bad_request", f"where: {error}") from None


def _kind_of(path: str, schema: Schema) -> str:
    """The type that the schema gives a dotted field. Errors: `bad_request` if it has none."""
    rules: Any = {"type": "dict", "schema": schema}
    for part in path.split("."):
        if part.startswith("$") or "\0" in part:
            raise BanyanError("bad_request", f"{part!r} is no name of a field")
        while rules.get("type") == "list":
            rules = rules.get("schema", {})
            if part.isdigit():
                break
        else:
            if "schema" in rules and part in rules["schema"]:
                rules = rules["schema"][part]
            elif "valuesrules" in rules and part:
                rules = rules["valuesrules"]
            else:
                raise BanyanError("bad_request", f"there is no field {path!r} to ask for")
    if rules.get("type") == "list":
        rules = rules.get("schema", {})
    kind = rules.get("type", "")
    return kind if isinstance(kind, str) else ""


def parse_projection(text: str | None, names: set[str], schema: Schema) -> list[str] | None:
    """The fields that a request asks for; None for all.

    names: virtual fields that may be asked for besides those of the schema.
    """
    if not text:
        return None
    asked = _json(text, "projection")
    if isinstance(asked, list) and all(isinstance(name, str) for name in asked):
        asked = dict.fromkeys(asked, 1)
    if not isinstance(asked, dict) or any(value not in (1, True) for value in asked.values()):
        raise BanyanError("bad_request", 'projection: name what you want, as in {"state": 1}')
    known = {**schema, **AUTOMATIC}
    for name in asked:
        if name not in names:
            _kind_of(name, known)
    return list(asked)


def parse_sort(text: str | None, schema: Schema) -> list[tuple[str, int]]:
    """`-priority,name` or `[["priority", -1], ["name", 1]]`, as MongoDB wants it."""
    if not text:
        return []
    if text.startswith("["):
        pairs = _json(text, "sort")
    else:
        pairs = [[name.lstrip("-+"), -1 if name.startswith("-") else 1] for name in text.split(",")]
    well_formed = all(
        isinstance(pair, list)
        and len(pair) == 2
        and isinstance(pair[0], str)
        and pair[1] in (1, -1)
        for pair in pairs
    )
    if not well_formed or not 1 <= len(pairs) <= 4:
        raise BanyanError("bad_request", "sort: one to four fields, as in `-priority,name`")
    for name, _ in pairs:
        _kind_of(name, {**schema, **AUTOMATIC})
    if len({name for name, _ in pairs}) != len(pairs):
        raise BanyanError("bad_request", "sort: a field is named twice")
    return [(name, int(order)) for name, order in pairs]


def parse_page(args: Mapping[str, str], default: int, most: int) -> tuple[int, int]:
    """(page, items on a page). Errors: `bad_request` for what is no number or too large."""
    page = _number(args, "page", 1, _PAGE_DEEPEST)
    return page, _number(args, "max_results", default, most)


def _number(args: Mapping[str, str], name: str, default: int, most: int) -> int:
    text = args.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit()) or len(text) > 9 or not 1 <= int(text) <= most:
        raise BanyanError("bad_request", f"{name}: a whole number from 1 to {most}")
    return int(text)
