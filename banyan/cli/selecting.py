"""Which tasks are meant: an id, the unique beginning of one, or `last`.

Called by every command that takes ids. It must never guess between two.
"""

import re
from collections.abc import Iterable
from typing import Any

from banyan.client.api import Client
from banyan.errors import BanyanError

ID_DIGITS = 24

STATES = ("inactive", "available", "running", "pending_cancellation", "cancelled", "terminated")
OUTCOMES = ("success", "failure", "timeout", "oom", "lost")


def find_id(client: Client, text: str) -> str:
    """The id that is meant. Errors: `not_found`, `usage` where it is not unique."""
    if text == "last":
        newest = next(client.find(sort="-_created,-_id", limit=1, projection={"name": 1}), None)
        if newest is None:
            raise BanyanError("not_found", "there is no task yet")
        return str(newest["_id"])
    if not re.fullmatch(r"[0-9a-f]{4,24}", text):
        message = f"{text!r} is no id: write its 24 hex digits, at least the first 4, or 'last'"
        raise BanyanError("usage", message)
    if len(text) == ID_DIGITS:
        return text
    bounds = {"$gte": text.ljust(ID_DIGITS, "0"), "$lte": text.ljust(ID_DIGITS, "f")}
    found = list(client.find({"_id": bounds}, projection={"name": 1}, limit=2))
    if not found:
        raise BanyanError("not_found", f"there is no task whose id begins with {text}")
    if len(found) > 1:
        raise BanyanError("usage", f"several ids begin with {text}: write more of it")
    return str(found[0]["_id"])


def find_ids(client: Client, texts: Iterable[str]) -> list[str]:
    """Several of them, each once."""
    return list(dict.fromkeys(find_id(client, text) for text in texts))


def in_state(word: str) -> dict[str, Any]:
    """The filter for `--state`: a state, an outcome, `failed` or `open`. Errors: `usage`."""
    if word in STATES:
        return {"state": word}
    if word in OUTCOMES:
        return {"outcome": word}
    if word == "failed":
        return {"outcome": {"$in": [outcome for outcome in OUTCOMES if outcome != "success"]}}
    if word == "open":
        return {"state": {"$nin": ["terminated", "cancelled"]}}
    known = ", ".join((*STATES, *OUTCOMES, "failed", "open"))
    raise BanyanError("usage", f"--state {word!r} is none of {known}")
