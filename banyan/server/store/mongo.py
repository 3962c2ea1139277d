"""The connection: one client a process, and what every write promises.

Writes are acknowledged by a majority and journaled; decisions are read from the
primary. `Store` is what verbs and upkeep are given; the other files of this folder
are functions over it, one file a collection.
"""

import os
import time
from collections.abc import Callable
from collections.abc import Collection as Collection_
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, TypeVar

from bson import ObjectId
from bson.codec_options import CodecOptions
from pymongo import MongoClient, ReadPreference, timeout
from pymongo.client_session import ClientSession
from pymongo.collection import Collection
from pymongo.database import Database
from pymongo.errors import BulkWriteError, NotPrimaryError
from pymongo.read_concern import ReadConcern
from pymongo.uri_parser import parse_uri
from pymongo.write_concern import WriteConcern

from banyan.config import knobs

Document = dict[str, Any]
T = TypeVar("T")

# Documents in a query's own answer; of more than MongoDB's 101 the rest is asked for again.
BATCH = 10_000
MAJORITY = WriteConcern("majority", j=True, wtimeout=10_000)
DUPLICATE_KEY = 11000  # MongoDB's error code
# For what may be forgotten in a crash without harm; each use says why it may.
FORGETTABLE = WriteConcern(1)
# A server that has lost its database says so with 503 before its callers give up.
_SELECTION_TIMEOUT_MILLISECONDS = 4_000
# A member that stands still is noticed after a heartbeat and the time to connect, not 14 s.
_HEARTBEAT_MILLISECONDS = 2_000
_SOCKET_TIMEOUT_MILLISECONDS = 30_000
# Longer than an election takes; who is in somebody's way for so long is told to ask again.
TRANSACTION_SECONDS_MAX = 20.0
_SECONDS_MIN = 0.001  # 0 would be no end


class Store:
    """A database of Banyan's. Connects at its first use, so that it may be made anywhere."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self.database_name = parse_uri(uri)["database"] or knobs().DATABASE
        self.application = f"banyan:{self.database_name}"  # how MongoDB names our connections

    @cached_property
    def client(self) -> MongoClient[Document]:
        """The process's one client; pymongo keeps its pool of connections."""
        return MongoClient(
            self.uri,
            appname=self.application,
            tz_aware=True,
            retryWrites=True,
            serverSelectionTimeoutMS=_SELECTION_TIMEOUT_MILLISECONDS,
            connectTimeoutMS=_SELECTION_TIMEOUT_MILLISECONDS,
            heartbeatFrequencyMS=_HEARTBEAT_MILLISECONDS,
            socketTimeoutMS=_SOCKET_TIMEOUT_MILLISECONDS,
        )

    @cached_property
    def database(self) -> Database[Document]:
        """The database: reads from the primary, writes as the promises need them."""
        return self.client.get_database(
            self.database_name,
            codec_options=CodecOptions(tz_aware=True, tzinfo=UTC),
            read_preference=ReadPreference.PRIMARY,
            write_concern=MAJORITY,
        )

    def __getitem__(self, collection: str) -> Collection[Document]:
        return self.database[collection]

    def transaction(self, work: Callable[[ClientSession], T], until: float | None = None) -> T:
        """Run `work` in one transaction; it is run again where another write came between.

        until: when to give up, by `time.monotonic`: who tries several times has one end for all.
        Errors: an ExecutionTimeout where something came between for TRANSACTION_SECONDS_MAX.
        """
        most = TRANSACTION_SECONDS_MAX
        seconds = most if until is None else max(_SECONDS_MIN, until - time.monotonic())
        with timeout(seconds), self.client.start_session() as session:
            return session.with_transaction(
                work, read_concern=ReadConcern("snapshot"), write_concern=MAJORITY
            )

    def confirm(self, tasks: Collection_[Document]) -> None:
        """Return once a majority has these tasks as they were read, so that none is undone.

        For answers that rest on what an earlier request has written, and write nothing: that
        request may have been told that it failed because no majority had it yet. The write
        changes nothing, but its acknowledgement waits for all that came before it; and it
        asks for these very versions, as another member may have become the primary meanwhile.
        Errors: NotPrimaryError where they are not there any more.
        """
        if not tasks:
            return
        ids, versions = [one["_id"] for one in tasks], [one["_etag"] for one in tasks]
        query = {"_id": {"$in": ids}, "_etag": {"$in": versions}}
        if self["tasks"].update_many(query, {"$set": {}}).matched_count < len(set(ids)):
            raise NotPrimaryError("what was read has been undone, or has changed; ask again")

    def ping(self) -> None:
        """Errors: a PyMongoError where no primary answers."""
        # Of an address that names one member, anything but this would ask it as a secondary, too.
        if not self.client.admin.command("hello").get("isWritablePrimary"):
            raise NotPrimaryError("it takes no writes")

    def close(self) -> None:
        """Give the connections back."""
        if "client" in self.__dict__:
            self.client.close()


def losers(error: BulkWriteError, *codes: int) -> list[int]:
    """The places of those writes of a bulk that failed with one of these codes.

    Errors: the error itself where others failed, or a majority has not confirmed the rest.
    """
    failed = error.details["writeErrors"]
    unconfirmed = error.details.get("writeConcernErrors")
    if unconfirmed or any(one["code"] not in codes for one in failed):
        raise error
    return [one["index"] for one in failed]


def now() -> datetime:
    """The time, cut to the milliseconds that MongoDB keeps."""
    time = datetime.now(UTC)
    return time.replace(microsecond=time.microsecond // 1000 * 1000)


def unforeseen_id() -> ObjectId:
    """The id of a new task, like the clients' (client/ids.py).

    Nobody can tell it beforehand, and submit a task with it first.
    """
    return ObjectId(((time.time_ns() << 24) // 10**9).to_bytes(7) + os.urandom(5))


def new_etag() -> str:
    """A value that no earlier version of any document had."""
    return str(ObjectId())
