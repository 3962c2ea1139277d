"""Virtual fields in answers: aliases of nested fields and of the current attempt.

Asked for by name in a projection, or one by one as `/tasks/<id>/<name>`. Whatever lies
in the attempt's record is fetched for a whole page at once.
"""

import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from flask import current_app

from banyan.server.calls import Caller
from banyan.server.store import attempts
from banyan.server.store.mongo import Document, Store


def rows(resource: str) -> Mapping[str, Mapping[str, Any]]:
    """The alias rows of a resource, by name."""
    table = current_app.config["VIRTUAL_RESOURCES"].get(resource, {})
    return {name: row for name, row in table.items() if row["kind"] == "alias"}


def names(resource: str, caller: Caller) -> set[str]:
    """The names of those aliases of a resource that the caller may read."""
    return {name for name, row in rows(resource).items() if caller.has(*row["roles"])}


def stored_fields(resource: str, fields: Sequence[str]) -> list[str]:
    """The stored fields that are needed to answer with these, aliases among them."""
    known = rows(resource)
    needed = dict.fromkeys(_stored(known[name]["target"]) if name in known else name
                           for name in fields)  # fmt: skip
    # MongoDB refuses a field together with a part of it; the whole holds the part.
    return [path for path in needed if "." not in path or needed.keys().isdisjoint(_around(path))]


def _around(path: str) -> Iterator[str]:
    """`a` and `a.b` for `a.b.c`."""
    while path := path.rpartition(".")[0]:
        yield path


def _stored(target: str) -> str:
    return "attempt_id" if target.split(".")[0] == "attempt" else target


def _head(path: str) -> str:
    return path.partition(".")[0]


def fill(
    store: Store,
    resource: str,
    items: Sequence[Document],
    fields: Sequence[str],
    bytes_max: int = sys.maxsize,
) -> int:
    """Put the values of the aliases among `fields` into the items, and return into how many.

    bytes_max: what of the attempts is read for them; the items that it has no room for stay as
    they are, but for the first.
    """
    known = rows(resource)
    wanted = {name: known[name]["target"] for name in fields if name in known}
    if not wanted:
        return len(items)
    kept = {name if name in known else _head(name) for name in fields}
    records: dict[Any, Document] = {}
    paths = [target for target in wanted.values() if _stored(target) == "attempt_id"]
    if paths:
        parts = [path.partition(".")[2] for path in paths]
        asked = [item.get("attempt_id") for item in items]
        records, count = attempts.find_within(store, asked, all(parts) and parts, bytes_max)
        items = items[:count]
    for item in items:
        around = {**item, "attempt": records.get(item.get("attempt_id"))}
        item.update({name: value_at(around, target) for name, target in wanted.items()})
        for name in {_head(_stored(target)) for target in wanted.values()} - kept:
            item.pop(name, None)
    return len(items)


def value_at(document: Any, path: str) -> Any:
    """The value at a dotted path; None where there is none."""
    for part in path.split("."):
        document = document.get(part) if isinstance(document, dict) else None
    return document
