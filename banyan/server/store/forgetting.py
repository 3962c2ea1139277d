"""Tasks that go for good: each task at one stroke, and after it its attempts and output.

Called by the verb `forget` and by upkeep. A note of the tasks that went is written with
their removal and stays until nothing of theirs is left, so that whoever is killed in between
leaves work that upkeep finds, and never a task without its attempts. Anybody may submit a task
with the id of one that went: what that one does is kept, and nobody's who had the id before
is shown to it (`attempts.py`).
"""

import logging
from collections.abc import Callable, Collection, Iterator, Mapping
from datetime import timedelta
from functools import partial
from itertools import islice, zip_longest
from typing import Any

from bson import ObjectId
from pymongo import ASCENDING
from pymongo.client_session import ClientSession
from pymongo.errors import OperationFailure

from banyan.domain.continuations import CHILD_LISTS, PARENT_LISTS
from banyan.domain.retention import neighbours
from banyan.domain.states import ENDED
from banyan.server.store import edges
from banyan.server.store.mongo import BATCH, Document, Store, now

logger = logging.getLogger(__name__)

_LISTS = (*CHILD_LISTS, *PARENT_LISTS)
# What is decided by. Of the lists, which may be long, only how many they name: `neighbour_count`.
FIELDS: Document = {
    **dict.fromkeys(("state", "owner", "unsettled", "queue", "retain", "seq", "_updated"), 1),
    "neighbour_count": {"$add": [{"$size": {"$ifNull": [f"${name}", []]}} for name in _LISTS]},
}
# A worker's report that was under way when its task went may leave something behind it.
NOTE_STAYS = timedelta(seconds=60)
_ENDED = [str(state) for state in ENDED]
_TASKS_AT_ONCE = 50  # of which output is removed: it may be 16 MiB each
_ATTEMPTS_AT_ONCE = 1000  # a task may have any number
_NOTES_AT_ONCE = 20
_NAMED_AT_ONCE = 20_000  # neighbours asked for: a thousand tasks may name three million
_LISTS_A_BATCH = 20

Tasks = Mapping[ObjectId, Document]
# Of some of the tasks those that hang together with one that has not ended, and with which.
Hanging = Callable[[Collection[ObjectId]], Mapping[ObjectId, ObjectId]]
# Of tasks that went, by id, `seq`, which tells them from later ones with the same ids.
Gone = Mapping[ObjectId, int | None]
# (the tasks as they are, how to ask what they hang together with) -> what goes
Choice = Callable[[Tasks, Hanging], Collection[ObjectId]]


def remove(
    store: Store, task_ids: Collection[ObjectId], choose: Choice, until: float | None = None
) -> Gone:
    """Remove those of these tasks that are chosen, all or none; returns what `clear` is to clear.

    choose: called within the transaction, with what is there then. Whoever retries a task,
    or hangs another on it, comes before this or after it, never in between.
    until: as `Store.transaction` has it.
    """

    def work(session: ClientSession) -> Gone:
        found = _found(store, task_ids, session)
        chosen = list(choose(found, partial(_hanging, store, found, session)))
        gone = {one: found[one].get("seq") for one in chosen}
        if chosen:
            edges.guard(store, {found[one]["owner"] for one in chosen}, session)
            store["tasks"].delete_many({"_id": {"$in": chosen}}, session=session)
            note = {"_id": ObjectId(), "tasks": chosen, "seqs": list(gone.values())}
            store["forgotten"].insert_one(note, session=session)
        return gone

    return store.transaction(work, until)


def would_go(store: Store, task_ids: Collection[ObjectId], choose: Choice) -> bool:
    """Whether any of these tasks would be chosen now."""
    found = _found(store, task_ids, None)
    return bool(choose(found, partial(_hanging, store, found, None)))


def _found(
    store: Store, task_ids: Collection[ObjectId], session: ClientSession | None
) -> dict[ObjectId, Document]:
    return {task["_id"]: task for task in _read(store, task_ids, FIELDS, session)}


def _read(
    store: Store, task_ids: Collection[ObjectId], fields: Any, session: ClientSession | None
) -> Iterator[Document]:
    batch = _LISTS_A_BATCH if fields is _WITH_LISTS else BATCH
    query = {"_id": {"$in": list(task_ids)}}
    yield from store["tasks"].find(query, fields, batch_size=batch, session=session)


_WITH_LISTS = ["owner", *_LISTS]


def _hanging(
    store: Store, found: Tasks, session: ClientSession | None, asked: Collection[ObjectId]
) -> dict[ObjectId, ObjectId]:
    """Which of these tasks hang together with one that has not ended, and with which.

    Their lists are read a few at a time: who names very many names the same ones, mostly.
    """
    hanging: dict[ObjectId, ObjectId] = {}
    ended: set[ObjectId] = set()  # by what was asked before
    some = [one for one in asked if found[one]["neighbour_count"]]
    for task in _read(store, some, _WITH_LISTS, session):
        named = list(neighbours(task) - ended)
        for start in range(0, len(named), _NAMED_AT_ONCE):
            piece = named[start : start + _NAMED_AT_ONCE]
            unfinished = _unfinished(store, piece, task, session)
            ended.update(set(piece) - unfinished.keys())
            own = [one for one, is_relative in unfinished.items() if is_relative]
            if own:
                hanging[task["_id"]] = min(own)
                break
    return hanging


def _unfinished(
    store: Store, named: Collection[ObjectId], task: Document, session: ClientSession | None
) -> dict[ObjectId, bool]:
    """Those that have not ended, and whether they are relatives of the task.

    The id of a task that was forgotten may be taken by somebody else: that one is none.
    """
    query = {"_id": {"$in": list(named)}, "state": {"$nin": _ENDED}}
    names_it = {"$or": [{"$in": [task["_id"], {"$ifNull": [f"${one}", []]}]} for one in _LISTS]}
    fields = {"relative": {"$or": [{"$eq": ["$owner", task["owner"]]}, names_it]}}
    found = store["tasks"].find(query, fields, batch_size=BATCH, session=session)
    return {one["_id"]: one["relative"] for one in found}


def clear(store: Store, gone: Gone) -> None:
    """Remove the output and the attempts of tasks that are gone; may be repeated."""
    waiting = list(gone)
    for start in range(0, len(waiting), _TASKS_AT_ONCE):
        of_these = {"task": {"$in": waiting[start : start + _TASKS_AT_ONCE]}}
        records = store["attempts"].find(of_these, ["task", "task_seq"], batch_size=BATCH)
        attempts = (one["_id"] for one in records if _is_of(one, gone[one["task"]]))
        while some := list(islice(attempts, _ATTEMPTS_AT_ONCE)):
            store["log_chunks"].delete_many({"attempt": {"$in": some}})
            store["attempts"].delete_many({"_id": {"$in": some}})


def _is_of(attempt: Document, seq: int | None) -> bool:
    """Whether it is of the task that went, and not of a later one with the same id.

    What does not say is a record of an earlier version, or was made anew by a late report.
    """
    return attempt.get("task_seq") in (None, seq)


def clear_rest(store: Store, after: ObjectId | None = None) -> ObjectId | None:
    """Do again what the next notes say of tasks that went some time ago; the last note, or None.

    A note at which it fails stays, and keeps none of the others from being done.
    """
    bounds: Document = {"$lt": ObjectId.from_datetime(now() - NOTE_STAYS)}
    bounds |= {} if after is None else {"$gt": after}
    notes = store["forgotten"].find({"_id": bounds}).sort("_id", ASCENDING).limit(_NOTES_AT_ONCE)
    last: ObjectId | None = None
    for note in list(notes):
        last = note["_id"]
        try:
            clear(store, dict(zip_longest(note["tasks"], note.get("seqs", ()))))
        except OperationFailure:
            logger.exception("what belonged to %s could not be removed", note["tasks"])
        else:
            store["forgotten"].delete_one({"_id": note["_id"]})
    return last
