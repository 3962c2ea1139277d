"""What other server processes change: a change stream, turned into signals.

One thread in each server process; runs a change stream over the database only while
somebody waits. It decides nothing: a signal makes the waiting request look for itself.
"""

import logging
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any

from pymongo.change_stream import ChangeStream
from pymongo.errors import PyMongoError

from banyan.server import outages
from banyan.server.store import told
from banyan.server.store.mongo import Store
from banyan.server.waiting import Hub

logger = logging.getLogger(__name__)

_REST_AFTER_SECONDS = 30.0
_AWAIT_MILLISECONDS = 500  # how long the database holds a question for changes
# Each time it is opened anew all who wait look again: not for each write that fails.
_OPEN_SECONDS_MIN = 1.0
_BACKOFF_SECONDS = (0.1, 0.2, 0.5, 1.0, 2.0)

_WRITES = ["insert", "update", "replace", "delete"]
_STAGES: list[dict[str, Any]] = [
    {
        "$match": {
            "$or": [
                {"ns.coll": "tasks", "operationType": {"$in": _WRITES}},
                {"ns.coll": "log_chunks", "operationType": "insert"},
                {"ns.coll": "workers", "operationType": "delete"},
                {"ns.coll": "workers", "updateDescription.updatedFields.signal": {"$exists": True}},
            ]
        }
    },
    {
        "$project": {
            "ns.coll": 1,
            "documentKey": 1,
            "fullDocument.state": 1,
            "fullDocument._etag": 1,
            "fullDocument.wake_at": 1,
            "fullDocument.task": 1,
            "updateDescription.updatedFields.state": 1,
            "updateDescription.updatedFields._etag": 1,
            "updateDescription.updatedFields.wake_at": 1,
            "updateDescription.updatedFields.edit_count": 1,
            "updateDescription.removedFields": 1,
        }
    },
]


def _pipeline(told_here: str) -> list[dict[str, Any]]:
    """What others have written: of what this process has told by itself, nothing."""
    versions = ("fullDocument._etag", "updateDescription.updatedFields._etag")
    news = {version: {"$not": {"$regex": told_here}} for version in versions}
    return [{"$match": news}, *_STAGES]


class Watcher:
    """`start()` it beside the application; `stop()` ends it within a second."""

    def __init__(self, mongo_uri: str, hub: Hub, rest_after: float = _REST_AFTER_SECONDS) -> None:
        self._store = Store(mongo_uri)
        self._hub = hub
        self._rest_after_seconds = rest_after
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watcher", daemon=True)

    def start(self) -> None:
        """Begin; the database need not be there yet."""
        self._thread.start()

    def stop(self) -> None:
        """End, and wait for the end."""
        self._stopping.set()
        self._hub.wanted.set()
        self._thread.join(5.0)
        self._store.close()

    def _run(self) -> None:
        failures = 0
        while self._hub.wanted.wait() and not self._stopping.is_set():
            try:
                told_here = told.pattern()
                with self._store.database.watch(
                    _pipeline(told_here), max_await_time_ms=_AWAIT_MILLISECONDS, batch_size=1000
                ) as changes:
                    failures = 0
                    self._follow(changes, told_here)
            except PyMongoError as error:
                logger.warning("changes can't be watched for now: %s", outages.told(error))
                self._stopping.wait(_BACKOFF_SECONDS[min(failures, len(_BACKOFF_SECONDS) - 1)])
                failures += 1
            finally:
                self._hub.watched = False

    def _follow(self, changes: ChangeStream[dict[str, Any]], told_here: str) -> None:
        """Signal what changes, until nobody has waited for a while or the stream breaks.

        told_here: what it leaves out; until that is to be heard, too.
        """
        self._hub.watched = True
        self._hub.signal_everybody()  # what changed until now, nobody has seen
        needed = time.monotonic()
        opened = time.monotonic()
        while changes.alive and not self._stopping.is_set():
            if told.pattern() != told_here and time.monotonic() > opened + _OPEN_SECONDS_MIN:
                return
            change = changes.try_next()
            if change is not None:
                signal(self._hub, change)
            elif self._hub.waiting:
                needed = time.monotonic()
            elif time.monotonic() - needed > self._rest_after_seconds:
                self._hub.watched = False
                self._hub.wanted.clear()
                if self._hub.waiting:  # came between the two looks
                    self._hub.wanted.set()
                return


def signal(hub: Hub, change: Mapping[str, Any]) -> None:
    """Signal what one change means to those who wait."""
    collection, key = change["ns"]["coll"], change["documentKey"]["_id"]
    if collection == "tasks":
        written = _written(change)
        # That a delay is over nobody else says.
        echo = "state" in written and told.is_of_this_process(written.get("_etag"))
        for topic, urgent in _of_task(hub, str(key), written, change):
            hub.signal(topic, observed=True, echo=echo, urgent=urgent)
    elif collection == "log_chunks":
        hub.signal(f"log:{change['fullDocument']['task']}", observed=True)
    else:
        hub.signal(f"worker:{key}", observed=True)


def _written(change: Mapping[str, Any]) -> Mapping[str, Any]:
    """Of the fields that a change has set, those that the stages let through."""
    update = change.get("updateDescription") or {}
    return change.get("fullDocument") or update.get("updatedFields") or {}


def _of_task(
    hub: Hub, task: str, now: Mapping[str, Any], change: Mapping[str, Any]
) -> Iterator[tuple[str, bool]]:
    """The topics, and whether each is urgent (`represent.announce` says why)."""
    update = change.get("updateDescription")
    state = now.get("state")
    yield f"task:{task}", state != "running"
    yield "tasks", True
    delayed = now.get("wake_at") is not None
    delay_over = "wake_at" in now or (update is not None and "wake_at" in update["removedFields"])
    news = delay_over or "edit_count" in now  # changed where it waits: it may fit now
    if not delayed and (state == "available" or (state is None and news)):
        yield f"available:{task}", True
    elif state not in ("available", None):
        hub.settle(task)
