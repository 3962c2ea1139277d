"""Every index, and the rule that a task document is never made by halves.

Called once before servers start, and safe to call again: what exists is left alone.
"""

import contextlib

from pymongo import ASCENDING, DESCENDING, IndexModel
from pymongo.errors import CollectionInvalid, OperationFailure

from banyan.server.store import accounts, duties, statistics, tallies
from banyan.server.store.mongo import Store

UPKEEP = "upkeep"
RETENTION = "retention"
TALLIES = "tallies"
SETTLING = "settling"
HELD_STATES = ["running", "pending_cancellation"]

INDEXES = {
    "tasks": [
        # The claim: one range for each kind of request, in the order of claiming; what may only
        # be claimed later stands apart (`wake_at`). The state is the same in all of it, but in
        # the index it spares the look at the shapes that wait the documents.
        IndexModel(
            [
                ("state", ASCENDING),
                ("shape", ASCENDING),
                ("wake_at", ASCENDING),
                ("priority", DESCENDING),
                ("seq", ASCENDING),
            ],
            name="claim_in_time",
            partialFilterExpression={"state": "available"},
        ),
        # What a worker holds. Upkeep asks which workers hold anything, and of those that are lost
        # whose tasks: without the owner it would read all of them to find that out.
        IndexModel(
            [("state", ASCENDING), ("holder.worker", ASCENDING), ("owner", ASCENDING)],
            name="held_of_owner",
            partialFilterExpression={"state": {"$in": HELD_STATES}},
        ),
        # What may be stolen: of each worker, what it comes to last. To count it no document
        # is read.
        IndexModel(
            [
                ("state", ASCENDING),
                ("holder.spare", ASCENDING),
                ("queue", ASCENDING),
                ("holder.worker", ASCENDING),
                ("priority", ASCENDING),
                ("seq", DESCENDING),
            ],
            name="spare",
            partialFilterExpression={"state": "running", "holder.spare": True},
        ),
        IndexModel([("open_parents", ASCENDING)], name="open_parents", sparse=True),
        # What a running task has submitted; what accounts submit is not in it.
        IndexModel([("submitted_by", ASCENDING)], name="submitted_by", sparse=True),
        # What upkeep has to do for owners, who take turns: it asks for the owners first.
        IndexModel(
            [("unsettled", ASCENDING), ("owner", ASCENDING)],
            name="unsettled_of_owner",
            partialFilterExpression={"unsettled": True},
        ),
        IndexModel(
            [("state", ASCENDING), ("owner", ASCENDING), ("wake_at", ASCENDING)],
            name="wake_of_owner",
            partialFilterExpression={"state": "available", "wake_at": {"$type": "date"}},
        ),
        # A repeated claim finds what it took, also when some of it has ended since.
        IndexModel([("holder.claim_id", ASCENDING)], name="claim_id", sparse=True),
        IndexModel(
            [("cancelled_because", ASCENDING)],
            name="cancelled_because",
            partialFilterExpression={"cancelled_because": {"$type": "objectId"}},
        ),
        # Ended tasks go when their time is over; those with a time of their own are found by it.
        IndexModel(
            [("forget_after", ASCENDING), ("_id", ASCENDING)],
            name="forget_after",
            partialFilterExpression={"forget_after": {"$gte": 0}},
        ),
        IndexModel(
            [("owner", ASCENDING), ("dedupe_key", ASCENDING), ("submitted_by", ASCENDING)],
            name="dedupe_by_submitter",
            unique=True,
            partialFilterExpression={"dedupe_key": {"$type": "string"}},
        ),
        # What people list: their own, by state, newest first.
        IndexModel([("owner", ASCENDING), ("_created", DESCENDING)], name="owner_created"),
        IndexModel(
            [("owner", ASCENDING), ("state", ASCENDING), ("_id", ASCENDING)], name="owner_state_id"
        ),
        IndexModel([("name", ASCENDING), ("_id", ASCENDING)], name="name_id"),
        # How many there are of each kind: counted here, without a look at any task.
        IndexModel([(name, ASCENDING) for name in statistics.KINDS], name=statistics.INDEX),
    ],
    "attempts": [
        IndexModel([("task", ASCENDING), ("attempt_count", ASCENDING)], name="task_count"),
        IndexModel([("worker", ASCENDING), ("_id", ASCENDING)], name="worker_id"),
        IndexModel([("owner", ASCENDING), ("_id", ASCENDING)], name="owner_id"),
    ],
    "log_chunks": [
        IndexModel(
            [("attempt", ASCENDING), ("offset", ASCENDING)], name="attempt_offset", unique=True
        ),
    ],
    # Each says itself until when it is kept.
    "tallies": [IndexModel([("until", ASCENDING)], name="until", expireAfterSeconds=0)],
    "worker_samples": [IndexModel([("until", ASCENDING)], name="until", expireAfterSeconds=0)],
    "workers": [IndexModel([("account", ASCENDING)], name="account")],
    "accounts": [IndexModel([("name", ASCENDING)], name="name", unique=True)],
    "tokens": [IndexModel([("account", ASCENDING)], name="account")],
}

_INDEX_NOT_FOUND = 27
# Of earlier versions. The one of dedupe_keys did not tell apart who had submitted a task; those of
# claims and delays had tasks in the way that nobody asks for; the last three knew no owners.
_OUTDATED = {"tasks": ["dedupe", "claim", "wake", "held_by", "unsettled", "wake_available"]}
_OUTDATED_COLLECTION = "shapes"

# The bulk write of guarded changes relies on this: where its guard does not match, the
# upsert must fail, also where the task itself is gone (see store/tasks.py).
VALIDATORS = {"tasks": {"owner": {"$type": "string"}}}


def prepare_database(mongo_uri: str) -> None:
    """Collections, indexes and the secret of attempt tokens; safe to call again."""
    store = Store(mongo_uri)
    try:
        ensure(store)
        accounts.attempt_secret(store)
    finally:
        store.close()


def ensure(store: Store) -> None:
    """Make the collections, their validators and indexes where they are missing."""
    for name, indexes in INDEXES.items():
        with contextlib.suppress(CollectionInvalid):  # it is there
            store.database.create_collection(name, validator=VALIDATORS.get(name, {}))
        store[name].create_indexes(indexes)
        for outdated in _OUTDATED.get(name, ()):
            _drop(store, name, outdated)
    store.database.drop_collection(_OUTDATED_COLLECTION)
    tallies.ensure(store)
    for duty in (UPKEEP, SETTLING, RETENTION, TALLIES):
        duties.ensure(store, duty)


def _drop(store: Store, collection: str, index: str) -> None:
    """Remove an index, if it is still there: another server may have been quicker."""
    try:
        store[collection].drop_index(index)
    except OperationFailure as error:
        if error.code != _INDEX_NOT_FOUND:
            raise
