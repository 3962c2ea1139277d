"""Task ids made by the client, so that a request can be repeated and a graph sent as one list.

Same shape as MongoDB's ObjectId, seconds first. Then come three bytes of a second's fraction, so
that ids sort in the order in which they were made (random ones cost the database a third more),
and five random bytes, of each id anew: from ids that are known nobody can tell the next ones, and
take them first. Who knows the second of the next one has 2**64 to guess from.
"""

import os
import re
import time
from collections.abc import Iterator, Sequence
from typing import Any

PIECE = 200  # ids in one address: some 7 KB
_ID = re.compile("[0-9a-fA-F]{24}")


def new_id() -> str:
    """24 hex digits that nobody else makes, and nobody can guess."""
    return ((time.time_ns() << 24) // 10**9).to_bytes(7).hex() + os.urandom(5).hex()


def is_id(value: Any) -> bool:
    """Whether it has the shape of one, whoever made it."""
    return isinstance(value, str) and bool(_ID.fullmatch(value))


def new_before(id: str) -> str:
    """As `new_id`, for what is older than `id`: it sorts before that."""
    return f"{max(int(id[:14], 16) - 1, 0):014x}{os.urandom(5).hex()}"


def since(id: str) -> str:
    """No id that this process makes after `id` is smaller than this."""
    return id[:8].ljust(24, "0")


def in_pieces(ids: Sequence[str]) -> Iterator[list[str]]:
    """As many ids at a time as an address has room for."""
    for start in range(0, len(ids), PIECE):
        yield list(ids[start : start + PIECE])
