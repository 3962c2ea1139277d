"""The output of attempts, in chunks; each chunk knows its place and its stream."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from bson import ObjectId
from pymongo import UpdateOne

from banyan.server.store.mongo import Document, Store


class Chunk(NamedTuple):
    """A piece of an attempt's output; `offset` is its place in both streams together."""

    task: ObjectId
    attempt: ObjectId
    offset: int
    stream: str
    data: bytes


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


def read(store: Store, attempt: ObjectId, offset: int, stream: str | None) -> tuple[bytes, int]:
    """The output from `offset` on, and the offset after it.

    Chunks are contiguous; where one is missing (it is still on its way) reading stops.
    """
    first = store["log_chunks"].find_one(
        {"attempt": attempt, "offset": {"$lte": offset}}, {"data": 0}, sort=[("offset", -1)]
    )
    start = first["offset"] if first else 0
    query: dict[str, Any] = {"attempt": attempt, "offset": {"$gte": start}}
    parts: list[bytes] = []
    end = start
    for chunk in store["log_chunks"].find(query).sort("offset", 1):
        if chunk["offset"] != end:
            break
        end += len(chunk["data"])
        if end > offset and stream in (None, chunk["stream"]):
            parts.append(chunk["data"][max(0, offset - chunk["offset"]) :])
    return b"".join(parts), max(end, offset)


def size(store: Store, attempt: ObjectId) -> int:
    """How many bytes of output are stored, without reading them."""
    last: Document | None = next(
        iter(
            store["log_chunks"].aggregate(
                [
                    {"$match": {"attempt": attempt}},
                    {"$sort": {"offset": -1}},
                    {"$limit": 1},
                    {"$project": {"end": {"$add": ["$offset", {"$binarySize": "$data"}]}}},
                ]
            )
        ),
        None,
    )
    return int(last["end"]) if last else 0
