"""How much of an answer a task takes: known before it is claimed, so that no claim brings too much.

The mark `heavy` stands in the few tasks that have much to carry. Asked by submissions, edits and
claims.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from banyan.config import knobs
from banyan.server.store.mongo import Document
from banyan.server.store.sizes import bytes_of

# What is claimed carries these; they are the client's, and may be large.
FIELDS = ("command", "env", "labels", "tags")
_HEAVY_BYTES = 16 * 1024  # a thousand that are not heavy fill a page
_SHORT = 4096  # no text of so few characters is heavy by itself


def mark(task: Mapping[str, Any]) -> dict[str, int]:
    """The field `heavy` of a task with these fields: its bytes, where they are many."""
    command, env, tags = task.get("command") or "", task.get("env"), task.get("tags")
    if (
        len(command) < _SHORT
        and isinstance(command, str)
        and not (env or tags or task.get("labels"))
    ):
        return {}
    size = bytes_of([task.get(name) for name in FIELDS])
    return {"heavy": size} if size > _HEAVY_BYTES else {}


def together(chosen: Sequence[tuple[Document, Any]]) -> Sequence[tuple[Document, Any]]:
    """Of tasks to be claimed, in their order, as many as one answer has room for."""
    left = knobs().PAGE_BYTES_MAX
    for place, (task, _) in enumerate(chosen):
        left -= task.get("heavy", 0)
        if left < 0 and place:
            return chosen[:place]
    return chosen
