"""Lists of documents with a bound in bytes: what a thousand large ones take, no process has.

Called where a list of documents is about to be answered. Sizes are those of the database; an
answer's JSON is of the same order.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, cast

import bson
from pymongo.collection import Collection

from banyan.server.store.mongo import Document

_LENGTH_BYTES = 4  # at the head of each document


class Part(NamedTuple):
    """The first documents of a list; is_cut: the next one would have been too much."""

    documents: list[Document]
    size_bytes: int
    is_cut: bool


class Asked(NamedTuple):
    """Which documents, with which of their fields, in which order."""

    query: Mapping[str, Any]
    fields: Sequence[str] | Mapping[str, Any] | None = None
    sort: Sequence[tuple[str, int]] = ()
    skip: int = 0
    limit: int = 0


def read(collection: Collection[Document], asked: Asked, bytes_max: int) -> Part:
    """As many as fit in, and at least one; they come in batches that MongoDB bounds as well."""
    fields = list(asked.fields) if isinstance(asked.fields, Sequence) else asked.fields
    cursor = collection.find_raw_batches(
        asked.query,
        fields,
        sort=list(asked.sort) or None,
        skip=asked.skip,
        limit=asked.limit,
        batch_size=asked.limit,
    )
    options = collection.codec_options
    documents: list[Document] = []
    size = 0
    with cursor:
        for batch in cast(Iterator[bytes], cursor):  # the driver's types speak of documents
            if size + len(batch) <= bytes_max:
                size += len(batch)
                documents += bson.decode_all(batch, options)
                continue
            for raw in _each(batch):
                if documents and size + len(raw) > bytes_max:
                    return Part(documents, size, is_cut=True)
                size += len(raw)
                documents.append(bson.decode(raw, options))
    return Part(documents, size, is_cut=False)


def _each(batch: bytes) -> Iterator[bytes]:
    start = 0
    while start < len(batch):
        end = start + int.from_bytes(batch[start : start + _LENGTH_BYTES], "little")
        yield batch[start:end]
        start = end


def smaller(page: int, size: int, room: int) -> tuple[int, int]:
    """(page, items on a page) that begin where this page does, with no more items than `room`.

    So what was asked for as a page of a thousand is answered as one of a hundred, and its next
    page goes on behind it.
    """
    start = (page - 1) * size
    if not start:
        return 1, 1 << (room.bit_length() - 1)  # a power of two can be halved later on
    fitting = next(count for count in range(room, 0, -1) if start % count == 0)
    return start // fitting + 1, fitting
