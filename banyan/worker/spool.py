"""The output of one attempt on its way to the server: frames in memory, then in a file.

The launcher writes, the agent reads. A frame is what one stream said in one go: a header
(stream, length) and the bytes. A frame never changes once it can be read, and becomes one
chunk of the log: so a reader that starts again makes the very same chunks.
Each chunk costs more than its bytes. So a task that goes from one stream to the other all the time
gets few frames: until the next flush what each stream says is joined then, and a frame counts as
FRAME_BYTES_LEAST, however short.
Standard library only. It must never grow beyond its bound, nor stop a task that says more.
"""

import os
import struct
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from banyan.worker.timers import now

STDOUT, STDERR, ANSWER = 1, 2, 3  # the last is no output: see `banyan.client.calls`
STREAM_NAMES = {STDOUT: "stdout", STDERR: "stderr", ANSWER: "answer"}
FRAME_BYTES_MAX = 1 << 18
FRAME_BYTES_LEAST = 128  # counted for one: the server stores about so much around its bytes
FRAMES_AT_ONCE = 50  # so many keep the order in which the streams spoke, and more as time goes by
_FRAMES_PER_SECOND = 10
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

    def __init__(self, path: str, bytes_max: int, answer_bytes_max: int = 0) -> None:
        """Keeps at most `bytes_max` of output, the line that says so included; and the answer."""
        self._answer_room = answer_bytes_max
        self._path = path
        self._notice = f"\n[banyan: output is kept up to {bytes_max} bytes; the rest is not]\n"
        self._room = max(bytes_max - len(self._notice), 0)
        self._room_for_frames = self._room  # of which a short one takes more than its bytes
        self._full = False
        self._file: int | None = None
        self._written = 0  # bytes of whole frames in the file
        self._frames: list[tuple[int, bytearray]] = []  # not in the file yet
        self._last: dict[int, bytearray] = {}  # of these, the last of each stream
        self._to_begin = float(FRAMES_AT_ONCE)  # frames, before the streams are joined
        self._counted_at = now()
        self._pending = 0
        self.trouble: str | None = None

    def add(self, stream: int, data: bytes) -> None:
        """Takes what a stream said."""
        if stream == ANSWER:
            self._add_answer(data[: self._answer_room])
            return
        if self._full or self.trouble:
            return
        frame = self._frame_for(stream, len(data))
        cost = _cost(frame)
        room = min(self._room, self._room_for_frames + cost - len(frame))
        if not frame and self._room_for_frames < FRAME_BYTES_LEAST:
            room = 0
        if len(data) > room:
            self._keep(stream, frame, data[:room])
            self._keep(STDERR, bytearray(), self._notice.encode())
            self._full = True
            return
        self._keep(stream, frame, data)
        self._room -= len(data)
        self._room_for_frames -= _cost(frame) - cost

    @property
    def pending(self) -> int:
        """Bytes that are in memory only."""
        return self._pending

    def flush(self) -> int:
        """Brings all frames into the file; its size in bytes."""
        taken = self._take_frames()
        if taken and self.trouble is None:
            try:
                self._write(taken)
            except OSError as error:  # a full disk ends the log, not the task
                self.trouble = f"output lost: {error.strerror}"
        return self._written

    def finish(self) -> bytes | None:
        """Ends the writing: the frames themselves where they are few, else None (see the file)."""
        if self._file is None and self._pending <= INLINE_BYTES_MAX:
            return self._take_frames()
        self.flush()
        if self._file is not None:
            os.close(self._file)
            self._file = None
        return None

    def _add_answer(self, data: bytes) -> None:
        """However much output there is, it has its own room."""
        if not self.trouble:
            self._keep(ANSWER, self._frame_for(ANSWER, len(data)), data)
            self._answer_room -= len(data)

    def _frame_for(self, stream: int, length: int) -> bytearray:
        """Where so many bytes of a stream go: into a frame that is there, or a new one."""
        last = self._last.get(stream)
        if last is None or len(last) + length > FRAME_BYTES_MAX:
            return bytearray()
        goes_on = self._frames[-1][0] == stream
        return last if goes_on or self._to_begin < 1 else bytearray()

    def _keep(self, stream: int, frame: bytearray, data: bytes) -> None:
        """`frame` as `_frame_for` says it."""
        if data and not frame:
            if not self._frames:
                self._earn()
            self._frames.append((stream, frame))
            self._last[stream] = frame
            self._to_begin = max(self._to_begin - 1, 0)
        frame += data
        self._pending += len(data)

    def _earn(self) -> None:
        earned = (now() - self._counted_at) * _FRAMES_PER_SECOND
        self._to_begin = min(self._to_begin + earned, FRAMES_AT_ONCE)
        self._counted_at = now()

    def _take_frames(self) -> bytes:
        """The frames that are in memory only, which keeps them no longer."""
        frames = [_HEADER.pack(stream, len(data)) + data for stream, data in self._frames]
        self._frames.clear()
        self._last.clear()
        self._pending = 0
        return b"".join(frames)

    def _write(self, data: bytes) -> None:
        if self._file is None:
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
            self._file = os.open(self._path, flags, 0o600)
        view = memoryview(data)
        while view:  # half a frame, where the disk is full, is none to the reader
            view = view[os.write(self._file, view) :]
        self._written += len(data)


def room_in(message: Mapping[str, Any]) -> tuple[int, int]:
    """What a `Spool` may keep of an attempt that is to start, as its agent says it."""
    _, answer_bytes_max = message.get("answer") or ("", 0)
    return message["log_bytes_max"], answer_bytes_max


def _cost(frame: bytearray) -> int:
    return max(len(frame), FRAME_BYTES_LEAST) if frame else 0


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
