"""The output of one attempt on its way to the server: frames in memory, then in a file.

The launcher writes, the agent reads. A frame is what one stream said in one go: a header
(stream, length) and the bytes. A frame never changes once it can be read, and becomes one
chunk of the log: so a reader that starts again makes the very same chunks.
Each chunk costs more than its bytes. So a task that goes from one stream to the other all the time
gets few frames: until the next flush what each stream says is joined then, and a frame counts as
FRAME_BYTES_LEAST, however short.
Where a task says more than is kept, that is the beginning and the end: the end is kept aside (see
`tail.py`), and appended when the attempt has ended, after a line that says how much is left out.
Standard library only. It must never grow beyond its bound, nor stop a task that says more.
"""

import os
import struct
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from banyan.open_files import is_at
from banyan.worker import output_files
from banyan.worker.tail import Tail
from banyan.worker.timers import now

STDOUT, STDERR, ANSWER = 1, 2, 3  # the last is no output: see `banyan.client.calls`
STREAM_NAMES = {STDOUT: "stdout", STDERR: "stderr", ANSWER: "answer"}
FRAME_BYTES_MAX = 1 << 18
FRAME_BYTES_LEAST = 128  # counted for one: the server stores about so much around its bytes
FRAMES_AT_ONCE = 50  # so many keep the order in which the streams spoke, and more as time goes by
_FRAMES_PER_SECOND = 10
FLUSH_BYTES = 1 << 20  # so much may be in memory only
INLINE_BYTES_MAX = 1 << 15  # output of an ended attempt that needs no file

# A line in two parts, so that who follows the log hears of it at once, and of how much at the end.
_GAP = "\n[banyan: the log is full. The end of the output follows when the task has ended: "
_GAP_END = "{:,} bytes of {} are left out here]\n"
_GAP_BYTES = 512  # for the lines of both streams, as the server counts them

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
        """Keeps at most `bytes_max` of output, with the lines that say how much is left out.

        answer_bytes_max: of the answer, besides.
        """
        self._answer_room = answer_bytes_max
        self._path = path
        room = max(bytes_max - _GAP_BYTES, 0)
        self._tail_bytes = room // 2
        self._tail: Tail | None = None  # once the rest is full
        self._gap_in: int | None = None  # the stream that has begun a line of what is left out
        self._room = room - self._tail_bytes
        self._room_for_frames = self._room  # of which a short one takes more than its bytes
        self._file: int | None = None
        self._written = 0  # bytes of whole frames in the file
        self._frames: list[tuple[int, bytearray]] = []  # not in the file yet
        self._last: dict[int, bytearray] = {}  # of these, the last of each stream
        self._to_begin = float(FRAMES_AT_ONCE)  # frames, before the streams are joined
        self._counted_at = now()
        self._pending = 0
        self.trouble: str | None = None
        self.put_back = False  # its file was removed by somebody else, and is there again

    def add(self, stream: int, data: bytes) -> None:
        """Takes what a stream said."""
        if stream == ANSWER:
            self._add_answer(data[: self._answer_room])
            return
        if self.trouble:
            return
        if self._tail:
            self._add_to_tail(self._tail, stream, data)
            return
        frame = self._frame_for(stream, len(data))
        cost = _cost(frame)
        room = min(self._room, self._room_for_frames + cost - len(frame))
        if not frame and self._room_for_frames < FRAME_BYTES_LEAST:
            room = 0
        if len(data) > room:
            self._keep(stream, frame, data[:room])
            self._tail = Tail(f"{self._path}.end", self._tail_bytes, FRAME_BYTES_LEAST)
            self._add_to_tail(self._tail, stream, data[room:])
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
        if self.trouble is None and (taken or self._file is not None):
            try:
                self._write(taken)
            except OSError as error:  # a full disk ends the log, not the task
                self._lose(error)
        return self._written

    @property
    def size(self) -> int:
        """Bytes of whole frames in the file."""
        return self._written

    def finish(self) -> bytes | None:
        """Ends the writing: the frames themselves where they are few, else None (see the file)."""
        if self._tail:
            self._append_tail(self._tail)
            self._tail = None
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

    def _add_to_tail(self, tail: Tail, stream: int, data: bytes) -> None:
        try:
            tail.add(stream, data)
        except OSError as error:
            self._lose(error)
        if tail.gone and self._gap_in is None:
            self._gap_in = stream if stream in tail.gone else next(iter(tail.gone))
            self._keep(self._gap_in, bytearray(), _GAP.encode())

    def _append_tail(self, tail: Tail) -> None:
        for stream, count in sorted(tail.gone.items(), key=lambda one: one[0] != self._gap_in):
            begin = "" if stream == self._gap_in else _GAP
            end = _GAP_END.format(count, STREAM_NAMES[stream])
            self._keep(stream, bytearray(), f"{begin}{end}".encode())
        try:
            for stream, data in tail.pieces():
                self._append(stream, data)
        except OSError as error:
            self._lose(error)
        tail.close()

    def _append(self, stream: int, data: bytes) -> None:
        """Unlike what `_frame_for` says, in the very order: it is known how many there are."""
        last, frame = self._frames[-1] if self._frames else (0, bytearray())
        goes_on = last == stream and len(frame) + len(data) <= FRAME_BYTES_MAX
        self._keep(stream, frame if goes_on else bytearray(), data)
        if self._pending > FLUSH_BYTES:
            self.flush()

    def _lose(self, error: OSError) -> None:
        self.trouble = f"output lost: {error.strerror}"

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
            self._file = output_files.make(self._path)
        elif not is_at(self._path, self._file):
            self._put_back(self._file)
        output_files.write_all(self._file, data)  # half a frame, at the end, is none to the reader
        self._written += len(data)

    def _put_back(self, removed: int) -> None:
        """Somebody has removed the file: what it holds is written anew, for the reader."""
        self._file = output_files.put_back(self._path, removed)
        os.close(removed)
        self.put_back = True


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
