"""Where the next part of a list or of an output begins, as a server says it.

Called by what reads on until there is no more. Each part must lie behind the one before, and there
must be an end: a false server could else keep a program reading for ever.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from banyan.errors import BanyanError

FOUND_MAX = 10_000_000  # items of one list; of a database with more, no list is asked for whole
OUTPUT_BYTES_MAX = 1 << 30  # of one attempt, in memory; servers keep 16 MiB unless told otherwise
ATTEMPTS_MAX = 10_000_000  # of one task, which may ask for a million


def items_on_page(meta: Mapping[str, Any], start: int, asked: int, count: int) -> int:
    """How many items the server puts on a page: so many further on the next one begins.

    Of large items these are fewer than were asked for. start: the items before this page;
    count: those on it. Errors: `unavailable` where the page is another than was asked for.
    """
    page, size = meta["page"], meta["max_results"]
    if type(page) is not int or type(size) is not int or not 0 < size <= asked:
        raise _wrong("a page of a list has no place in it")
    if (page - 1) * size != start or count > size:
        raise _wrong("another page of a list was asked for")
    if start + size > FOUND_MAX:
        raise _wrong(f"a list of more than {FOUND_MAX:,} items; ask for less of it")
    return size


def next_offset(headers: Mapping[str, str], offset: int, count: int) -> int:
    """Where an output goes on of which `count` bytes were read from `offset`. Errors: as above."""
    further = number_in(headers, "Banyan-Log-Next-Offset")
    if further < offset or (count and further == offset):
        raise _wrong("an output does not go on behind what was read of it")
    return further


def number_in(headers: Mapping[str, str], name: str) -> int:
    """The number in a header. Errors: `unavailable`."""
    text = headers.get(name, "")
    if not (text.isascii() and text.isdigit()) or len(text) > _DIGITS_MAX:
        raise _wrong(f"an output has no number in its {name}")
    return int(text)


_DIGITS_MAX = 15


def attempts_in(task: Mapping[str, Any]) -> int:
    """How many attempts of it there have been. Errors: `unavailable`."""
    count = task.get("attempt_count") or 0
    if type(count) is not int or not 0 <= count <= ATTEMPTS_MAX:
        raise _wrong("a task has no number of attempts")
    return count


def whole(pieces: Iterable[bytes]) -> bytes:
    """All of an output, in memory. Errors: `unavailable` where it would not fit in there."""
    parts: list[bytes] = []
    size = 0
    for piece in pieces:
        size += len(piece)
        if size > OUTPUT_BYTES_MAX:
            raise _wrong(f"an output of more than {OUTPUT_BYTES_MAX >> 30} GiB; follow it instead")
        parts.append(piece)
    return b"".join(parts)


def _wrong(what: str) -> BanyanError:
    return BanyanError("unavailable", f"the server does not answer like a Banyan server: {what}")
