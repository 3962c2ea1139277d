"""Task ids made by the client, so that a request can be repeated and a graph sent as one list.

Same shape as MongoDB's ObjectId: seconds, then eight random bytes, of each id anew. Ids of
different seconds sort by time. From ids that are known nobody can tell the next ones, and so
nobody can take them first.
"""

import os
import time
from collections.abc import Iterator, Sequence

PIECE = 200  # ids in one address: some 7 KB


def new_id() -> str:
    """24 hex digits that nobody else makes, and nobody can guess."""
    return (int(time.time()).to_bytes(4) + os.urandom(8)).hex()


def since(id: str) -> str:
    """No id that this process makes after `id` is smaller than this."""
    return id[:8].ljust(24, "0")


def in_pieces(ids: Sequence[str]) -> Iterator[list[str]]:
    """As many ids at a time as an address has room for."""
    for start in range(0, len(ids), PIECE):
        yield list(ids[start : start + PIECE])
