"""The last output of both streams of an attempt, where it says more than is kept.

Used by the spool. Full blocks lie in a file without a name, the rest in memory: both are bounded.
Neither stream can push out the other's: what goes is the oldest of the one that has more.
Standard library only. It must never grow beyond its bound.
"""

import errno
import os
from collections import deque
from collections.abc import Iterator

from banyan.worker import output_files

BLOCK_BYTES = 1 << 16
RUNS_MAX = 1000  # so many keep the order in which the streams spoke; of the oldest it is lost
_BLOCKS_LEAST = 16  # of a small bound, so that little is dropped at a time


class Tail:
    """What was said last, and how much before that is gone."""

    def __init__(self, path: str, bytes_max: int, run_bytes: int) -> None:
        """path: where a file can be made; run_bytes: what each piece costs besides its bytes."""
        self._path = path
        self._bytes_max = bytes_max
        self._run_bytes = run_bytes
        self._block_bytes = min(max(bytes_max // _BLOCKS_LEAST, 1), BLOCK_BYTES)
        self._file: int | None = None  # made with the first block
        self._file_blocks = 0
        self._free: list[int] = []  # numbers of blocks in the file
        self._blocks: dict[int, deque[int]] = {}  # of each stream, the oldest first
        self._recent: dict[int, bytearray] = {}  # of each stream, what comes after its blocks
        self._runs: deque[list[int]] = deque()  # [stream, bytes], alternately, the oldest first
        self.gone: dict[int, int] = {}  # bytes that were dropped, by stream

    def add(self, stream: int, data: bytes) -> None:
        """Takes what a stream said. Errors: OSError; then this is not kept."""
        if not data:
            return
        if stream not in self._recent:
            self._recent[stream] = bytearray()
            self._blocks[stream] = deque()
        self._recent[stream] += data
        if self._runs and self._runs[-1][0] == stream:
            self._runs[-1][1] += len(data)
        else:
            self._runs.append([stream, len(data)])
        if len(self._runs) > RUNS_MAX:
            oldest = self._runs.popleft()
            self._runs[1][1] += oldest[1]
        while (excess := self._excess()) > 0:
            self._drop(excess)
        while len(self._recent[stream]) >= self._block_bytes:
            self._write_block(stream)

    def pieces(self) -> Iterator[tuple[int, bytes]]:
        """All that is kept, in order: streams and bytes, at most a block at a time."""
        contents = {stream: self._content(stream) for stream in self._recent}
        at_hand = dict.fromkeys(contents, b"")
        for stream, left in self._runs:
            while left:
                have = at_hand[stream] or next(contents[stream])
                yield stream, have[:left]
                at_hand[stream] = have[left:]
                left -= min(left, len(have))

    def close(self) -> None:
        """Gives the file up."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _excess(self) -> int:
        kept = sum(map(self._kept, self._recent))
        # A block may be cut where the pieces are put together anew.
        return kept + self._run_bytes * (len(self._runs) + kept // BLOCK_BYTES) - self._bytes_max

    def _kept(self, stream: int) -> int:
        return len(self._blocks[stream]) * self._block_bytes + len(self._recent[stream])

    def _drop(self, excess: int) -> None:
        stream = max(self._recent, key=self._kept)
        if self._blocks[stream]:
            self._free.append(self._blocks[stream].popleft())
            dropped = self._block_bytes
        else:
            dropped = min(excess, len(self._recent[stream]))
            del self._recent[stream][:dropped]
        self.gone[stream] = self.gone.get(stream, 0) + dropped
        self._shorten_runs(stream, dropped)

    def _shorten_runs(self, stream: int, dropped: int) -> None:
        while dropped:
            place = 0 if self._runs[0][0] == stream else 1
            run = self._runs[place]
            taken = min(run[1], dropped)
            run[1] -= taken
            dropped -= taken
            if run[1]:
                continue
            del self._runs[place]
            if place == 1 and len(self._runs) > 1:  # two of the other stream side by side
                self._runs[1][1] += self._runs.popleft()[1]

    def _write_block(self, stream: int) -> None:
        if self._file is None:
            self._file = output_files.make(self._path)
            os.unlink(self._path)
        number = self._free.pop() if self._free else self._file_blocks
        self._file_blocks = max(self._file_blocks, number + 1)
        recent, size = self._recent[stream], self._block_bytes
        if os.pwrite(self._file, recent[:size], number * size) < size:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        del recent[:size]
        self._blocks[stream].append(number)

    def _content(self, stream: int) -> Iterator[bytes]:
        size = self._block_bytes
        for number in self._blocks[stream]:
            yield os.pread(self._file or 0, size, number * size)
        yield bytes(self._recent[stream])
