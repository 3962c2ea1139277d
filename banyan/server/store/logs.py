"""The output of attempts, in chunks; each chunk knows its place and its stream.

What comes with the end of its attempt and is short stands in the attempt's record, as the
field `output`: that is written then anyway. Everything else is a document of its own.
"""

from collections.abc import Sequence
from itertools import chain
from typing import Any, NamedTuple

from bson import ObjectId
from pymongo import UpdateOne

from banyan.server.store.mongo import BATCH, Document, Store

SHORT_BYTES_MAX = 4096
SHORT_CHUNKS_MAX = 64  # they make a record longer by more than their bytes
CHUNK_BYTES_LEAST = 128  # counted for one, however short: it is a document of its own
READ_CHUNKS_MAX = 5_000  # for one answer
ANSWER = "answer"  # a stream that is no output: it is read by its name only
STORED = "log_stored_bytes"  # in an attempt's record: of its chunks, however they lie


class Chunk(NamedTuple):
    """A piece of an attempt's output; `offset` is its place in both streams together."""

    task: ObjectId
    attempt: ObjectId
    offset: int
    stream: str
    data: bytes


def is_short(chunks: Sequence[Chunk]) -> bool:
    """Whether output that comes with the end of its attempt goes into the attempt's record."""
    few = len(chunks) <= SHORT_CHUNKS_MAX
    return few and all(chunk.offset + len(chunk.data) <= SHORT_BYTES_MAX for chunk in chunks)


def in_record(chunks: Sequence[Chunk]) -> list[Document]:
    """What stands in the attempt's record then."""
    return [
        {"offset": chunk.offset, "stream": chunk.stream, "data": chunk.data} for chunk in chunks
    ]


def append(store: Store, chunks: Sequence[Chunk], bytes_max: int) -> dict[ObjectId, int]:
    """Store chunks; one that is there already stays as it is, so a repeat changes nothing.

    bytes_max: what is stored of an attempt, counted as it was by those before: `STORED` in its
    record, where each chunk counts as CHUNK_BYTES_LEAST at least. What goes beyond it is left out.
    Returns how much is new, by attempt, to be added there.
    """
    if not chunks:
        return {}
    chunks = _within(store, chunks, bytes_max)
    updates = [
        UpdateOne(
            {"attempt": chunk.attempt, "offset": chunk.offset},
            {"$setOnInsert": {"task": chunk.task, "stream": chunk.stream, "data": chunk.data}},
            upsert=True,
        )
        for chunk in chunks
    ]
    new: dict[ObjectId, int] = {}
    if updates:
        written = store["log_chunks"].bulk_write(updates, ordered=True)
        for place in written.upserted_ids or {}:
            chunk = chunks[place]
            new[chunk.attempt] = new.get(chunk.attempt, 0) + _counted(chunk)
    return new


def _counted(chunk: Chunk) -> int:
    return max(len(chunk.data), CHUNK_BYTES_LEAST)


def _within(store: Store, chunks: Sequence[Chunk], bytes_max: int) -> list[Chunk]:
    ids = list({chunk.attempt for chunk in chunks})
    records = store["attempts"].find({"_id": {"$in": ids}}, [STORED], batch_size=BATCH)
    sums = {one["_id"]: one.get(STORED, 0) for one in records}
    kept = []
    for chunk in chunks:
        before = sums.get(chunk.attempt, 0)
        if before + len(chunk.data) <= bytes_max:
            kept.append(chunk)
        sums[chunk.attempt] = before + _counted(chunk)
    return kept


class Output(NamedTuple):
    """Some of the output of an attempt: up to which offset, and whether more is there already."""

    data: bytes
    end: int
    more: bool


def read(store: Store, attempt: Document, offset: int, stream: str | None) -> Output:
    """The output from `offset` on, as far as it lies in READ_CHUNKS_MAX chunks.

    attempt: its record, with the field `output` if it has one.
    Chunks are contiguous; where one is missing (it is still on its way) reading stops.
    """
    mine = {"attempt": attempt["_id"]}
    first = store["log_chunks"].find_one(
        {**mine, "offset": {"$lte": offset}}, {"data": 0}, sort=[("offset", -1)]
    )
    end = first["offset"] if first else 0
    query: dict[str, Any] = {**mine, "offset": {"$gte": end}}
    apart = store["log_chunks"].find(query).sort("offset", 1).limit(READ_CHUNKS_MAX + 1)
    parts: list[bytes] = []
    for place, chunk in enumerate(chain(apart, attempt.get("output", ()))):
        start = chunk["offset"]
        if start > end:
            break
        if place >= READ_CHUNKS_MAX:
            return Output(b"".join(parts), max(end, offset), True)
        # What was sent twice may stand in both places.
        data = chunk["data"][max(end, offset) - start :]
        end = max(end, start + len(chunk["data"]))
        if data and (chunk["stream"] == stream if stream else chunk["stream"] != ANSWER):
            parts.append(data)
    return Output(b"".join(parts), max(end, offset), False)
