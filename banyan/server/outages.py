"""Troubles with the database: which of them pass by themselves, and how they are told in a log.

Used wherever an error of the driver is met for the last time. What is told must never hold
what was to be written: environments of tasks are nobody's business.
"""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

from pymongo import errors, timeout

from banyan.errors import BanyanError
from banyan.server.data_watch import told_if_full

_AWAY = (
    errors.ConnectionFailure,
    errors.ConfigurationError,  # a member on its way up: with the same settings the server began
    errors.ExecutionTimeout,
    errors.WTimeoutError,
    errors.WaitQueueTimeoutError,
)
_LABELS = ("RetryableWriteError", "TransientTransactionError", "UnknownTransactionCommitResult")
# MongoDB's codes for: another member becomes the primary, or a member goes, is out of reach, is
# full or too slow, or has no key yet to sign the cluster's time; and for cursors, snapshots and
# transactions that did not survive that.
_PASSING = frozenset(
    {6, 7, 24, 43, 46, 50, 64, 89, 91, 112, 133, 134, 175, 189, 211, 237, 239, 246, 251, 262, 290,
     9001, 10107, 11600, 11601, 11602, 13435, 13436, 14031}
)  # fmt: skip
_DUPLICATE = 11000
_PING_SECONDS = 1.0
_ALL_THAT_PYMONGO_KNOWS = re.compile(r" \(configured timeouts|, Timeout:")


_disks: list[Path] = []


def watch_disk(directory: Path) -> None:
    """The database has its files there: where they have no room, that is why it is away."""
    _disks.append(directory)


def away() -> BanyanError:
    """The error of whoever needs the database, which does not answer."""
    if any(map(told_if_full, _disks)):
        return BanyanError(
            "unavailable",
            "the disk of the server's database is full: free some space there, and it goes on; "
            "what was acknowledged is not lost",
        )
    return BanyanError("unavailable", "the database does not answer; try again soon")


def is_passing(error: errors.PyMongoError) -> bool:
    """Whether the same request may well succeed in a moment."""
    if isinstance(error, _AWAY) or error.timeout:
        return True
    if any(error.has_error_label(label) for label in _LABELS):
        return True
    codes = set(_codes(error)) - {_DUPLICATE}
    return bool(codes) and codes <= _PASSING


def was_slow(error: Exception, ping: Callable[[], None]) -> bool:
    """Whether the time for a query was over while the database was there, at work on it."""
    if isinstance(error, errors.ExecutionTimeout):
        return True
    if not isinstance(error, errors.NetworkTimeout):
        return False
    try:
        with timeout(_PING_SECONDS):
            ping()
    except errors.PyMongoError:
        return False
    return True


def told(error: errors.PyMongoError) -> str:
    """The error for a log, without what was to be written."""
    if isinstance(error, errors.BulkWriteError):
        return f"BulkWriteError with the codes {sorted(set(_codes(error)))}"
    if isinstance(error, errors.OperationFailure):
        return f"{type(error).__name__} {error.code}: {(error.details or {}).get('codeName')}"
    if isinstance(error, errors.ServerSelectionTimeoutError):
        found = _ALL_THAT_PYMONGO_KNOWS.split(str(error))[0]
        is_down = "set named 'None'" in found  # so it calls one that nobody listens for
        return "MongoDB is not there" if is_down else found
    return str(error)


def _codes(error: errors.PyMongoError) -> Iterator[int]:
    if isinstance(error, errors.BulkWriteError):
        details = error.details or {}
        for one in (*details.get("writeErrors", ()), *details.get("writeConcernErrors", ())):
            yield one["code"]
    elif isinstance(error, errors.OperationFailure) and error.code is not None:
        yield error.code
