"""Output on its way through the spool: what goes in comes out, in the same chunks."""

import base64
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from banyan.server.store.logs import CHUNK_BYTES_LEAST
from banyan.worker.output import Reader
from banyan.worker.spool import Chunk, Spool
from banyan.worker.tail import BLOCK_BYTES, Tail

PIECES = some.lists(
    some.tuples(some.sampled_from([1, 2]), some.binary(max_size=300), some.booleans()), max_size=30
)


def read_all(reader: Reader, bytes_max: int) -> list[Chunk]:
    """All that can be read now, so much at a time."""
    found: list[Chunk] = []
    more = True
    while more:
        chunks, more = reader.read(bytes_max)
        for chunk in chunks:
            found.append(chunk)
            reader.delivered(chunk)
    return found


@settings(max_examples=150, deadline=None)
@given(PIECES, some.integers(1, 400))
def test_what_goes_in_comes_out_in_order_however_little_is_read_at_a_time(
    tmp_path_factory: pytest.TempPathFactory, pieces: list[tuple[int, bytes, bool]], bytes_max: int
):
    path = tmp_path_factory.mktemp("spool") / "output"
    spool, reader = Spool(str(path), 1 << 20), Reader(path)
    found: list[Chunk] = []
    for stream, data, flush in pieces:
        spool.add(stream, data)
        if flush:
            spool.flush()
            found += read_all(reader, bytes_max)
    inline = spool.finish()
    reader.complete(None if inline is None else base64.b64encode(inline).decode())
    found += read_all(reader, bytes_max)
    for stream in (1, 2):
        said = b"".join(data for of, data, _ in pieces if of == stream)
        assert b"".join(chunk.data for chunk in found if chunk.stream == stream) == said
    lengths = [len(chunk.data) for chunk in found]
    assert [chunk.offset for chunk in found] == [sum(lengths[:n]) for n in range(len(found))]


@settings(max_examples=100, deadline=None)
@given(PIECES, some.integers(1, 400), some.integers(0, 30))
def test_a_reader_that_starts_again_makes_the_same_chunks(
    tmp_path_factory: pytest.TempPathFactory,
    pieces: list[tuple[int, bytes, bool]],
    bytes_max: int,
    stop: int,
):
    """The server knows chunks by their offset: one that was cut otherwise would tear the log."""
    path = tmp_path_factory.mktemp("spool") / "output"
    spool, early = Spool(str(path), 1 << 20), Reader(path)
    before: list[Chunk] = []
    for stream, data, flush in pieces:
        spool.add(stream, data)
        if flush:
            spool.flush()
            before += read_all(early, bytes_max)
    spool.flush()
    after = read_all(Reader(path), 1 << 20)
    assert after[: len(before)] == before
    later = after[min(stop, len(after)) :]
    if later:
        start = after[stop - 1] if stop else None
        place = (start.end, start.offset + len(start.data)) if start else (0, 0)
        assert read_all(Reader(path, *place), bytes_max) == later


@given(
    some.integers(600, 4000),
    some.lists(
        some.tuples(
            some.sampled_from([1, 2]), some.binary(min_size=1, max_size=50), some.booleans()
        ),
        max_size=60,
    ),
)
def test_all_that_a_spool_holds_has_room_in_what_the_server_keeps(
    tmp_path_factory: pytest.TempPathFactory, bound: int, pieces: list[tuple[int, bytes, bool]]
):
    """As it counts there, the line at the end included: else that would be missing."""
    path = tmp_path_factory.mktemp("spool") / "output"
    spool = Spool(str(path), bound)
    for stream, data, flush in pieces:
        spool.add(stream, data)
        if flush:
            spool.flush()
    spool.flush()
    counted = 0
    for chunk in read_all(Reader(path), 1 << 20):
        assert counted + len(chunk.data) <= bound
        counted += max(len(chunk.data), CHUNK_BYTES_LEAST)


def test_what_went_with_the_end_is_not_kept_besides(tmp_path: Path):
    path = tmp_path / "output"
    spool = Spool(str(path), 1 << 20)
    spool.add(1, b"hello")
    assert spool.finish()
    assert (spool.pending, spool.flush()) == (0, 0)
    assert not path.exists()


@settings(max_examples=200, deadline=None)
@given(
    some.integers(0, 3000),
    some.lists(some.tuples(some.sampled_from([1, 2]), some.binary(max_size=400)), max_size=60),
    some.integers(2, 12),
)
def test_a_tail_keeps_the_end_of_each_stream_in_order_and_counts_the_rest(
    tmp_path_factory: pytest.TempPathFactory,
    bound: int,
    pieces: list[tuple[int, bytes]],
    runs_max: int,
):
    tail = Tail(str(tmp_path_factory.mktemp("tail") / "end"), bound, CHUNK_BYTES_LEAST)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("banyan.worker.tail.RUNS_MAX", runs_max)
        for stream, data in pieces:
            tail.add(stream, data)
    found = list(tail.pieces())
    kept = {1: b"", 2: b""}
    for stream, data in found:
        kept[stream] += data
    for stream, end in kept.items():
        said = b"".join(data for of, data in pieces if of == stream)
        assert said.endswith(end)
        assert tail.gone.get(stream, 0) == len(said) - len(end)
    assert sum(map(len, kept.values())) <= bound
    if tail.gone and bound >= 1000:
        chattier = max(tail.gone, key=lambda stream: len(kept[stream]))
        assert all(len(kept[one]) <= len(kept[chattier]) for one in tail.gone)
    if len(pieces) <= runs_max and not tail.gone:
        order = b"".join(data for _, data in pieces)
        assert b"".join(data for _, data in found) == order
    tail.close()


def test_the_file_of_a_tail_has_no_name_and_does_not_grow(tmp_path: Path):
    tail = Tail(str(tmp_path / "end"), 1 << 20, CHUNK_BYTES_LEAST)
    for number in range(300):
        tail.add(1 + number % 7 // 6, bytes([number % 251]) * 60_000)
        assert not list(tmp_path.iterdir())
        assert tail._file is None or os.fstat(tail._file).st_size <= (1 << 20) + BLOCK_BYTES
    tail.close()
