"""A stored task as callers see it, and who is told when tasks have changed."""

from collections.abc import Iterable, Mapping
from typing import Any

from bson import ObjectId
from flask import current_app

from banyan.domain.states import ENDED, HELD, State
from banyan.server import links
from banyan.server.alarm import ALARM
from banyan.server.calls import Call, Context
from banyan.server.schemas.accounts import SCHEMA as ACCOUNT
from banyan.server.schemas.tasks import SCHEMA
from banyan.server.schemas.workers import SCHEMA as WORKER
from banyan.server.store.mongo import Document

_AUTOMATIC = ("_id", "_created", "_updated", "_etag")
_SHOWN = (*_AUTOMATIC, *SCHEMA)
_MINIMAL = ("_id", "_etag", "state")


def task(call: Call, stored: Mapping[str, Any]) -> Document:
    """The fields of the schema and the links; with `return=minimal` id, version and state."""
    if call.minimal:
        return _minimal(stored)
    shown = {name: stored[name] for name in _SHOWN if name in stored}
    shown["_links"] = links.of_item(current_app.config, "tasks", shown, call.caller)
    return shown


def changed(call: Call, stored: Mapping[str, Any]) -> Document:
    """A task that was changed, or was there; to a running task no more than `minimal` of another.

    Its worker has its token, too, and may not read the other.
    """
    return task(call, stored) if call.caller.task in (None, stored["_id"]) else _minimal(stored)


def held_before(call: Call, stored: Mapping[str, Any]) -> Document:
    """A task to an account whose worker has held it: once it waits again, no more than `minimal`.

    Its owner may have changed it since, or another worker have it.
    """
    holder = stored.get("holder") or {}
    is_holder = holder.get("account") == call.caller.account
    is_theirs = is_holder and State(stored["state"]) in HELD | ENDED
    return task(call, stored) if is_theirs else _minimal(stored)


def _minimal(stored: Mapping[str, Any]) -> Document:
    return {name: stored[name] for name in _MINIMAL if name in stored}


def worker(call: Call, stored: Mapping[str, Any]) -> Document:
    """A worker as callers see it."""
    return _plain(call, "workers", stored, WORKER)


def account(call: Call, stored: Mapping[str, Any]) -> Document:
    """An account as admins see it."""
    return _plain(call, "accounts", stored, ACCOUNT)


def _plain(
    call: Call, resource: str, stored: Mapping[str, Any], schema: Mapping[str, Any]
) -> Document:
    fields = _MINIMAL if call.minimal else (*_AUTOMATIC, *schema)
    shown = {name: stored[name] for name in fields if name in stored}
    if not call.minimal:
        shown["_links"] = links.of_item(current_app.config, resource, shown, call.caller)
    return shown


def announce(context: Context, changed: Iterable[Mapping[str, Any]]) -> None:
    """Wake whoever waits for these tasks, or for work, in this very process.

    The other processes hear it from the database; this way is quicker. Most who wait for a
    task wait for its end: its start is not urgent.
    """
    available = []
    for stored in changed:
        starts = stored.get("state") == "running"
        version = stored.get("_etag", "")
        context.signals.signal(f"task:{stored['_id']}", urgent=not starts, version=version)
        if stored.get("state") == "available":
            if stored.get("wake_at"):  # claims pass it by until the mark is taken off
                ALARM.set(stored["wake_at"])
            else:
                available.append(stored["_id"])
        elif stored.get("state") == "running":
            context.signals.settle(str(stored["_id"]))
    context.signals.signal("tasks")
    announce_available(context, available)


def announce_available(context: Context, task_ids: Iterable[ObjectId]) -> None:
    """Wake one worker for each of these tasks, which may be claimed from now on."""
    for task_id in task_ids:
        context.signals.signal(f"available:{task_id}")
