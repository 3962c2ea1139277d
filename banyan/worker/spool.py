"""The output of one attempt on its way to the server: frames in memory, then in a file.

The launcher writes, the agent reads. A frame is what one stream said in one go: a header
(stream, length) and the bytes. A frame never changes once it can be read, and becomes one
chunk of the log: so a reader that starts again makes the very same chunks.
Standard library only. It must never grow beyond its bound, nor stop a task that says more.
"""

import os
import struct
from collections.abc import Iterator
from typing import NamedTuple

STDOUT, STDERR = 1, 2
STREAM_NAMES = {STDOUT: "stdout", STDERR: "stderr"}
FRAME_BYTES_MAX = 1 << 18
INLINE_BYTES_MAX = 1 << 15  # output of an ended attempt that needs no file

_HEADER = struct.Struct(">BI")


class Chunk(NamedTuple):
    """`offset` counts the bytes of both streams before it; `end` is its end in the spool."""

    offset: int
    stream: int
    data: bytes
    end: int


class Spool:
    """The writing end."""

    def __init__(self, path: str, bytes_max: int) -> None:
        """Keeps at most `bytes_max` of output, the line that says so included."""
        self._path = path
        self._notice = f"\n[banyan: output is kept up to {bytes_max} bytes; the rest is not]\n"
        self._room = max(bytes_max - len(self._notice), 0)
        self._full = False
        self._file: int | None = None
        self._written = 0  # bytes of whole frames in the file
        self._frames: list[tuple[int, bytearray]] = []  # not in the file yet
        self._pending = 0
        self.trouble: str | None = None

    def add(self, stream: int, data: bytes) -> None:
        """Takes what a stream said."""
        if self._full or self.trouble:
            return
        if len(data) > self._room:
            self._keep(stream, data[: self._room])
            self._keep(STDERR, self._notice.encode())
            self._full = True
            return
        self._room -= len(data)
        self._keep(stream, data)

    @property
    def pending(self) -> int:
        """Bytes that are in memory only."""
        return self._pending

    def flush(self) -> int:
        """Brings all frames into the file; its size in bytes."""
        if self._frames and self.trouble is None:
            try:
                self._write(self._packed())
            except OSError as error:  # a full disk ends the log, not the task
                self.trouble = f"output lost: {error.strerror}"
        self._frames.clear()
        self._pending = 0
        return self._written

    def finish(self) -> bytes | None:
        """Ends the writing: the frames themselves where they are few, else None (see the file)."""
        if self._file is None and self._pending <= INLINE_BYTES_MAX:
            return self._packed()
        self.flush()
        if self._file is not None:
            os.close(self._file)
            self._file = None
        return None

    def _keep(self, stream: int, data: bytes) -> None:
        self._pending += len(data)
        if self._frames:
            last_stream, last = self._frames[-1]
            if last_stream == stream and len(last) + len(data) <= FRAME_BYTES_MAX:
                last += data
                return
        if data:
            self._frames.append((stream, bytearray(data)))

    def _packed(self) -> bytes:
        return b"".join(_HEADER.pack(stream, len(data)) + data for stream, data in self._frames)

    def _write(self, data: bytes) -> None:
        if self._file is None:
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
            self._file = os.open(self._path, flags, 0o600)
        view = memoryview(data)
        while view:  # half a frame, where the disk is full, is none to the reader
            view = view[os.write(self._file, view) :]
        self._written += len(data)


def chunks(data: bytes, position: int = 0, offset: int = 0) -> Iterator[Chunk]:
    """The whole frames in `data`, which lies at `position` of the spool, at output `offset`."""
    start = 0
    while start + _HEADER.size <= len(data):
        stream, length = _HEADER.unpack_from(data, start)
        end = start + _HEADER.size + length
        if end > len(data):
            return
        yield Chunk(offset, stream, data[end - length : end], position + end)
        offset += length
        start = end
