"""The query parameters and headers of requests, as OpenAPI describes parameters.

Rows of VIRTUAL_RESOURCES name theirs in `parameters`; reads of items and lists have those
of READ_ITEM and READ_LIST. An argument that is not named is refused.
"""

from collections.abc import Mapping
from typing import Any

from banyan.config import knobs
from banyan.domain.tallies import BUCKETS_MAX

Parameter = dict[str, Any]

READ_ITEM = ("projection",)
READ_LIST = ("where", "projection", "sort", "page", "max_results")


def _query(description: str, schema: Mapping[str, Any]) -> Parameter:
    return {"in": "query", "description": description, "schema": dict(schema)}


def _header(description: str, **more: Any) -> Parameter:
    return {"in": "header", "description": description, "schema": {"type": "string"}, **more}


_TIME = {"type": "string", "format": "date-time"}
_GROUP = r"(state|outcome|queue|owner|name|tags\.[A-Za-z0-9_-]{1,64})"


def _number(least: int, most: int) -> dict[str, Any]:
    return {"type": "integer", "minimum": least, "maximum": most}


# `where` and `projection` are JSON about the fields of a resource: openapi.py describes them.
QUERY: Mapping[str, Parameter] = {
    "sort": _query(
        "One to four fields, `-` before one for the largest first: `-priority,name`.",
        {"type": "string"},
    ),
    "page": _query("Which page, from 1.", _number(1, 100_000)),
    "max_results": _query("Items on a page.", _number(1, knobs().PAGE_ITEMS_MAX)),
    "attempt": _query("The number of an attempt; the latest otherwise.", _number(0, 10**15 - 1)),
    "offset": _query("The byte from which to read.", _number(0, 10**15 - 1)),
    "stream": _query(
        "Only one of the two; or `answer`: what a callable of an Executor gave back, packed, which "
        "is no output.",
        {"type": "string", "enum": ["stdout", "stderr", "answer"]},
    ),
    "by": _query(
        "What to count by, with commas between: state, outcome, queue, owner, name, "
        "or a tag as in tags.sweep.",
        {
            "type": "string",
            "pattern": f"^{_GROUP}(,{_GROUP})*$",
        },
    ),
    "window": _query(
        "What was over so long a time, too: a duration as in `24 hours`. [24 hours]",
        {"type": "string"},
    ),
    "lost": _query(
        "1: what it ran has ended with it, and counts as lost. 0: it is given back without fault.",
        {"type": "string", "enum": ["0", "1"]},
    ),
    "from": _query("What was since then, too; in place of `window`.", _TIME),
    "to": _query("The end of that time. [now]", _TIME),
    "buckets": _query(
        "Into how many parts that time is cut; they begin at round times. [24]",
        _number(1, BUCKETS_MAX),
    ),
}
HEADERS: Mapping[str, Parameter] = {
    "Prefer": _header(
        "`return=minimal`: no links and no echoes. `wait=30`: hold the answer for so many "
        "seconds until there is something new, where the address has something to wait for."
    ),
    "If-None-Match": _header("The ETag that the caller has: 304 while it is still the same."),
    "If-Match": _header(
        "The `_etag`s that the change is meant for, with commas between: 412 if it is another now."
    ),
    "Banyan-Attempt-Token": _header(
        "The token of the attempt, where the body has no place for it."
    ),
}
BULK_MAX: int = knobs().BULK_ITEMS_MAX
