"""GET /tasks/<id>/history: every attempt of a task, the first first."""

from banyan.server import scoped
from banyan.server.calls import Answer, Call
from banyan.server.schemas.attempts import SCHEMA
from banyan.server.store import attempts

_SHOWN = ("_id", "_created", "_updated", *SCHEMA)


def history(call: Call) -> Answer:
    """{"_items": [attempts]}; the samples of usage are in the attempts themselves."""
    task = scoped.item(call, ["_id"])
    items = [
        {name: attempt[name] for name in _SHOWN if name in attempt}
        for attempt in attempts.of_task(call.store, task["_id"])
    ]
    return Answer({"_items": items}, wait_for=[f"task:{call.item_id}"])
