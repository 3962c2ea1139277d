"""Task ids made by the client, so that a request can be repeated and a graph sent as one list.

Same shape as MongoDB's ObjectId: seconds, five random bytes of the process, a counter; so ids
made one after another also sort so.
"""

import itertools
import os
import time
from collections.abc import Iterator, Sequence

PIECE = 200  # ids in one address: some 7 KB

_process = os.urandom(5)
_counter = itertools.count(int.from_bytes(os.urandom(3)))


def new_id() -> str:
    """24 hex digits that nobody else makes; of one process they rise (but for one wrap)."""
    seconds = int(time.time()).to_bytes(4)
    return (seconds + _process + (next(_counter) & 0xFFFFFF).to_bytes(3)).hex()


def since(id: str) -> str:
    """No id that this process makes after `id` is smaller than this, also where ids wrap."""
    return id[:8].ljust(24, "0")


def in_pieces(ids: Sequence[str]) -> Iterator[list[str]]:
    """As many ids at a time as an address has room for."""
    for start in range(0, len(ids), PIECE):
        yield list(ids[start : start + PIECE])


def _after_fork() -> None:
    global _process
    _process = os.urandom(5)


os.register_at_fork(after_in_child=_after_fork)
