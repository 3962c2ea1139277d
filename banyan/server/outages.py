"""Troubles with the database: which of them pass by themselves, and how they are told in a log.

Used wherever an error of the driver is met for the last time. What is told must never hold
what was to be written: environments of tasks are nobody's business.
"""

import re
from collections.abc import Callable, Iterator

from pymongo import errors, timeout

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
