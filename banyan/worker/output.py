"""The reading end of an attempt's spool: output as chunks of the log.

Used by the reports. What was read is handed out again until it is said to be delivered.
It must never cut a chunk differently the second time: the server knows them by their offset.
"""

import base64
import errno
import os
import stat
from pathlib import Path
from typing import Any

from banyan.worker.spool import STREAM_NAMES, Chunk, chunks

_CHUNKS_MAX = 1000  # in one go, where the caller sets no bound


class Reader:
    """Where one attempt's output is, and how much of it is delivered."""

    def __init__(self, path: Path, position: int = 0, offset: int = 0) -> None:
        """`position` in the spool and `offset` in the output: up to there it is delivered."""
        self._path = path
        self._inline: bytes | None = None
        self._size = 0
        self.position = position
        self.offset = offset

    def complete(self, inline: str | None, size: int = 0) -> None:
        """The attempt has ended; `inline` is its whole spool (base64) where it has no file.

        size: of the file, as far as it was written; 0 where nobody knows.
        """
        self._size = size
        if inline is not None:
            self._inline = base64.b64decode(inline)

    @property
    def is_lost(self) -> bool:
        """Whether the file of an ended attempt is shorter than it was. Errors: OSError."""
        if self._inline is not None or self.position >= self._size:
            return False
        return self.position + self.left < self._size

    @property
    def left(self) -> int:
        """Bytes of the spool that are not delivered. Errors: OSError."""
        if self._inline is not None:
            return max(len(self._inline) - self.position, 0)
        try:
            found = self._path.lstat()
        except FileNotFoundError:
            return 0
        return max(found.st_size - self.position, 0) if _is_own(found) else 0

    def read(self, bytes_max: int, chunks_max: int = _CHUNKS_MAX) -> tuple[list[Chunk], bool]:
        """The next chunks, at least one where there is any, and whether more can be read."""
        found: list[Chunk] = []
        size = 0
        data = self._data(bytes_max)
        for chunk in chunks(data, self.position, self.offset):
            if found and (size + len(chunk.data) > bytes_max or len(found) >= chunks_max):
                return found, True
            found.append(chunk)
            size += len(chunk.data)
        return found, bool(found) and len(data) > found[-1].end - self.position

    def delivered(self, chunk: Chunk) -> None:
        """Everything up to and with this chunk is recorded."""
        self.position, self.offset = chunk.end, chunk.offset + len(chunk.data)

    def _data(self, bytes_max: int) -> bytes:
        if self._inline is not None:
            return self._inline[self.position :]
        try:
            with open(self._path, "rb", opener=_opened) as spooled:
                if not _is_own(os.fstat(spooled.fileno())):
                    return b""
                spooled.seek(self.position)
                return spooled.read(bytes_max + _FRAME_ROOM_BYTES)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ELOOP):
                return b""
            raise


_FRAME_ROOM_BYTES = 1 << 19  # so that the largest frame is always there whole


def _opened(path: str, flags: int) -> int:
    """Follows no link, and waits for no pipe."""
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)


def _is_own(found: os.stat_result) -> bool:
    """Whether it is a file of ours: in a directory that was removed others may have put one."""
    return stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid()


def as_json(chunk: Chunk) -> dict[str, Any]:
    """A chunk as a report carries it."""
    return {
        "offset": chunk.offset,
        "stream": STREAM_NAMES[chunk.stream],
        "data": base64.b64encode(chunk.data).decode(),
    }
