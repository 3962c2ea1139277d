"""The output of attempts, in chunks; each chunk knows its place and its stream.

What comes with the end of its attempt and is short stands in the attempt's record, as the
field `output`: that is written then anyway. Everything else is a document of its own.
"""

from collections.abc import Sequence
from itertools import chain
from typing import Any, NamedTuple

from bson import ObjectId
from pymongo import UpdateOne

from banyan.server.store.mongo import Document, Store

SHORT_BYTES_MAX = 4096


class Chunk(NamedTuple):
    """A piece of an attempt's output; `offset` is its place in both streams together."""

    task: ObjectId
    attempt: ObjectId
    offset: int
    stream: str
    data: bytes


def is_short(chunks: Sequence[Chunk]) -> bool:
    """Whether output that comes with the end of its attempt goes into the attempt's record."""
    return all(chunk.offset + len(chunk.data) <= SHORT_BYTES_MAX for chunk in chunks)


def in_record(chunks: Sequence[Chunk]) -> list[Document]:
    """What stands in the attempt's record then."""
    return [
        {"offset": chunk.offset, "stream": chunk.stream, "data": chunk.data} for chunk in chunks
    ]


def append(store: Store, chunks: Sequence[Chunk]) -> None:
    """Store chunks; one that is there already stays as it is, so a repeat changes nothing."""
    updates = [
        UpdateOne(
            {"attempt": chunk.attempt, "offset": chunk.offset},
            {"$setOnInsert": {"task": chunk.task, "stream": chunk.stream, "data": chunk.data}},
            upsert=True,
        )
        for chunk in chunks
    ]
    if updates:
        store["log_chunks"].bulk_write(updates, ordered=True)


def read(store: Store, attempt: Document, offset: int, stream: str | None) -> tuple[bytes, int]:
    """The output from `offset` on, and the offset after it.

    attempt: its record, with the field `output` if it has one.
    Chunks are contiguous; where one is missing (it is still on its way) reading stops.
    """
    mine = {"attempt": attempt["_id"]}
    first = store["log_chunks"].find_one(
        {**mine, "offset": {"$lte": offset}}, {"data": 0}, sort=[("offset", -1)]
    )
    end = first["offset"] if first else 0
    query: dict[str, Any] = {**mine, "offset": {"$gte": end}}
    apart = store["log_chunks"].find(query).sort("offset", 1)
    parts: list[bytes] = []
    for chunk in chain(apart, attempt.get("output", ())):
        start = chunk["offset"]
        if start > end:
            break
        # What was sent twice may stand in both places.
        data = chunk["data"][max(end, offset) - start :]
        end = max(end, start + len(chunk["data"]))
        if data and stream in (None, chunk["stream"]):
            parts.append(data)
    return b"".join(parts), max(end, offset)
