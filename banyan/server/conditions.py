"""`If-Match`: a change that is meant for certain versions of an item, and for no other."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from werkzeug.datastructures import ETags

from banyan.domain.lifecycle import Change
from banyan.errors import BanyanError


def check(versions: ETags | None, item: Mapping[str, Any]) -> None:
    """versions: None where any will do. Errors: `precondition_failed` for an item of another."""
    if versions is not None and not versions.contains_weak(item["_etag"]):
        raise BanyanError("precondition_failed", "it has changed since: read it again")


def guarded(versions: ETags | None, item: Mapping[str, Any], change: Change) -> Change:
    """The change, which is not to be written if the item has another version by then."""
    if versions is None or not change.set:
        return change
    return replace(change, expected={**change.expected, "_etag": item["_etag"]})
