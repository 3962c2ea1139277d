"""Tasks that go for good: each task at one stroke, and after it its attempts and output.

Called by the verb `forget` and by upkeep. A note of the tasks that went is written with
their removal and stays until nothing of theirs is left, so that whoever is killed in between
leaves work that upkeep finds, and never a task without its attempts.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import timedelta

from bson import ObjectId
from pymongo.client_session import ClientSession

from banyan.domain.continuations import CHILD_LISTS, PARENT_LISTS
from banyan.domain.retention import neighbours
from banyan.domain.states import ENDED
from banyan.server.store import edges
from banyan.server.store.mongo import BATCH, Document, Store, now

FIELDS = ["state", "owner", "unsettled", "queue", "retain", "_updated", *CHILD_LISTS, *PARENT_LISTS]
# A worker's report that was under way when its task went may leave something behind it.
NOTE_STAYS = timedelta(seconds=60)
_ENDED = [str(state) for state in ENDED]
_TASKS_AT_ONCE = 50  # of which output is removed: it may be 16 MiB each
_NOTES_AT_ONCE = 20
_NAMED_AT_ONCE = 100_000  # neighbours asked for: a thousand tasks may name three million

# (the tasks as they are, those of their neighbours that have not ended) -> what goes
Choice = Callable[[Mapping[ObjectId, Document], Collection[ObjectId]], Collection[ObjectId]]


def remove(store: Store, task_ids: Collection[ObjectId], choose: Choice) -> list[ObjectId]:
    """Remove those of these tasks that are chosen, all or none; returns their ids.

    choose: called within the transaction, with what is there then. Whoever retries a task,
    or hangs another on it, comes before this or after it, never in between.
    """

    def work(session: ClientSession) -> list[ObjectId]:
        found, unfinished = look(store, task_ids, session)
        chosen = list(choose(found, unfinished))
        if chosen:
            edges.guard(store, {found[one]["owner"] for one in chosen}, session)
            store["tasks"].delete_many({"_id": {"$in": chosen}}, session=session)
            store["forgotten"].insert_one({"_id": ObjectId(), "tasks": chosen}, session=session)
        return chosen

    return store.transaction(work)


def look(
    store: Store, task_ids: Collection[ObjectId], session: ClientSession | None = None
) -> tuple[dict[ObjectId, Document], set[ObjectId]]:
    """These tasks, and those of their neighbours that have not ended."""
    query = {"_id": {"$in": list(task_ids)}}
    found = store["tasks"].find(query, FIELDS, batch_size=BATCH, session=session)
    tasks = {task["_id"]: task for task in found}
    named: list[ObjectId] = list(set().union(*map(neighbours, tasks.values())))
    unfinished: set[ObjectId] = set()
    for start in range(0, len(named), _NAMED_AT_ONCE):
        piece = {"_id": {"$in": named[start : start + _NAMED_AT_ONCE]}, "state": {"$nin": _ENDED}}
        open_ones = store["tasks"].find(piece, ["_id"], batch_size=BATCH, session=session)
        unfinished.update(task["_id"] for task in open_ones)
    return tasks, unfinished


def clear(store: Store, task_ids: Iterable[ObjectId]) -> None:
    """Remove the output and the attempts of tasks that are gone; may be repeated."""
    waiting = list(task_ids)
    for start in range(0, len(waiting), _TASKS_AT_ONCE):
        of_these = {"task": {"$in": waiting[start : start + _TASKS_AT_ONCE]}}
        records = store["attempts"].find(of_these, ["_id"], batch_size=BATCH)
        attempts = [record["_id"] for record in records]
        store["log_chunks"].delete_many({"attempt": {"$in": attempts}})
        store["attempts"].delete_many(of_these)


def clear_rest(store: Store) -> bool:
    """Do again what a note says of tasks that went some time ago; whether there was any."""
    before = ObjectId.from_datetime(now() - NOTE_STAYS)
    notes = list(store["forgotten"].find({"_id": {"$lt": before}}).limit(_NOTES_AT_ONCE))
    for note in notes:
        clear(store, note["tasks"])
        store["forgotten"].delete_one({"_id": note["_id"]})
    return bool(notes)
