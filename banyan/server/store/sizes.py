"""How large a document may be, and what MongoDB says of one that is too large.

Our own bounds (`RESULT_BYTES_MAX`, the schemas, `RELATIVES_MAX`) keep every document well below
MongoDB's. Whoever writes many at once asks here all the same: what one document is refused for
must not be refused to the others.
"""

from collections.abc import Iterator
from typing import Any

import bson
from bson.errors import InvalidDocument
from pymongo import errors

from banyan.errors import BanyanError

# Of one task those that wait for it, and those that it waits for: see tests/security/test_sizes.py.
RELATIVES_MAX = 200_000
# MongoDB's codes: a transaction larger than its cache takes, and documents beyond 16 MiB, as they
# are built, indexed, updated, and inserted by an update.
CODES = frozenset({388, 10334, 17280, 17419, 17420})
_BAD_VALUE = 2  # also says that a document is too large to be inserted


def bytes_of(value: Any) -> int:
    """How many bytes a value takes in the database."""
    return len(bson.encode({"": value}))


def too_large() -> BanyanError:
    """The refusal of a write for which a document has no room."""
    message = "the task, or what is kept with it, would be larger than MongoDB takes (16 MiB)"
    return BanyanError("too_large", f"{message}: send less, or take something off it first")


def is_too_large(error: BaseException) -> bool:
    """Whether a write, or a part of it, was refused for its size."""
    if isinstance(error, errors.DocumentTooLarge):
        return True
    if isinstance(error, InvalidDocument):
        return "too large" in str(error)
    return isinstance(error, errors.OperationFailure) and any(map(_says_so, _told(error)))


def _says_so(refusal: dict[str, Any]) -> bool:
    code = refusal.get("code")
    return code in CODES or (code == _BAD_VALUE and "too large" in refusal.get("errmsg", ""))


def _told(error: errors.OperationFailure) -> Iterator[dict[str, Any]]:
    details = dict(error.details or {})
    yield {"code": error.code, "errmsg": details.get("errmsg", "")}
    yield from details.get("writeErrors", ())
