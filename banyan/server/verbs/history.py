"""GET /tasks/<id>/history: every attempt of a task, the first first."""

from flask import current_app

from banyan.config import knobs
from banyan.server import links, scoped
from banyan.server.calls import Answer, Call
from banyan.server.schemas.attempts import SCHEMA
from banyan.server.store import attempts

_SHOWN = ("_id", "_created", "_updated", *SCHEMA)


def history(call: Call) -> Answer:
    """{"_items": [attempts], "truncated"}; of very many the last; /attempts has them by pages."""
    task = scoped.item(call, attempts.ASKED_WITH)
    found = attempts.of_task(call.store, task, knobs().PAGE_BYTES_MAX)
    items = [
        {name: attempt[name] for name in _SHOWN if name in attempt} for attempt in found.documents
    ]
    if not call.minimal:
        for item in items:
            item["_links"] = links.of_item(current_app.config, "attempts", item, call.caller)
    return Answer({"_items": items, "truncated": found.is_cut}, wait_for=[f"task:{call.item_id}"])
