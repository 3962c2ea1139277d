"""What the tasks of a standalone run write: NAME.out, NAME.err, NAME.result in its directory.

Fed by the run's loop from the spool. A disk that is full ends a task's files, not the task.
"""

import logging
import os
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import quote

from banyan.worker.output import Reader
from banyan.worker.progress import ProgressLines
from banyan.worker.spool import STDERR, STDOUT

_READ_BYTES = 4 << 20
_SUFFIXES = {STDOUT: ".out", STDERR: ".err"}
_RESULT = ".result"
_STEM_BYTES_MAX = 200

_log = logging.getLogger("banyan.worker")


def stem(name: str) -> str:
    """A file's name for a task's name: no slash in it, none that is hidden, none too long."""
    quoted = quote(name, safe=" +,=@:()[]")
    quoted = f"%2E{quoted[1:]}" if quoted.startswith(".") else quoted
    return quoted if len(quoted) <= _STEM_BYTES_MAX else f"{quoted[:_STEM_BYTES_MAX]}~"


def result_file(directory: Path, name: str) -> Path:
    """Where `banyan result` in a task of this name puts what it is told."""
    return directory / f"{stem(name)}{_RESULT}"


def open_own(path: Path) -> BinaryIO:
    """The file, to add to it; never what a link that somebody has put there leads to."""
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    return open(os.open(path, flags, 0o666), "ab", buffering=0)


class Output:
    """Of one attempt."""

    def __init__(self, directory: Path, name: str, reader: Reader, first: bool) -> None:
        """`first`: what an earlier run has left is removed."""
        self._base = directory / stem(name)
        self._reader = reader
        self._files: dict[int, BinaryIO] = {}
        self._lost = False
        self._lines = ProgressLines()
        if first:
            for suffix in (*_SUFFIXES.values(), _RESULT):
                self._path(suffix).unlink(missing_ok=True)

    @property
    def place(self) -> tuple[int, int]:
        """Up to where it is in the files: position in the spool, offset in the output."""
        return self._reader.position, self._reader.offset

    @property
    def progress(self) -> dict[str, Any] | None:
        """How far the task is, by what it has last said of that on a line of its own."""
        return self._lines.value

    def copy(self) -> None:
        """Takes over what is new."""
        more = True
        while more:
            chunks, more = self._reader.read(_READ_BYTES)
            for chunk in chunks:
                self._write(chunk.stream, chunk.data)
                if chunk.stream == STDOUT:
                    self._lines.feed(chunk.data)
                self._reader.delivered(chunk)

    def finish(self, inline: str | None, size: int) -> None:
        """The attempt has ended; `inline` and `size` as `Reader.complete` takes them."""
        self._reader.complete(inline, size)
        self.copy()
        if self._reader.is_lost:
            _log.error("output of %s is lost: somebody has removed it", self._base.name)
        self._lines.finish()
        for file in self._files.values():
            file.close()
        self._files.clear()

    def _write(self, stream: int, data: bytes) -> None:
        if self._lost:
            return
        try:
            if stream not in self._files:
                self._files[stream] = open_own(self._path(_SUFFIXES[stream]))
            self._files[stream].write(data)
        except OSError as error:
            self._lost = True
            _log.error("output of %s is lost: %s", self._base.name, error)

    def _path(self, suffix: str) -> Path:
        return self._base.with_name(self._base.name + suffix)
