"""What the tasks of a standalone run write: NAME.out, NAME.err, NAME.result in its directory.

Fed by the run's loop from the spool. A disk that is full ends a task's files, not the task.
"""

import contextlib
import hashlib
import logging
import os
import stat
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
_DIGITS = 32  # of the hash that stands for the rest of a long name

_log = logging.getLogger("banyan.worker")


def stem(name: str) -> str:
    """A file's name for a task's name: no slash in it, none that is hidden, none too long.

    No two names share one. What is cut is longer than what is not, and has a hash of the whole.
    """
    quoted = quote(name, safe=" +,=@:()[]", errors="surrogatepass")
    quoted = f"%2E{quoted[1:]}" if quoted.startswith(".") else quoted
    if len(quoted) <= _STEM_BYTES_MAX:
        return quoted
    digest = hashlib.sha256(quoted.encode()).hexdigest()
    return f"{quoted[:_STEM_BYTES_MAX]}~{digest[:_DIGITS]}"


def result_file(directory: Path, name: str) -> Path:
    """Where `banyan result` in a task of this name puts what it is told."""
    return directory / f"{stem(name)}{_RESULT}"


def open_own(path: Path) -> BinaryIO:
    """The file, to add to it; never what a link that somebody has put there leads to."""
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    return open(os.open(path, flags, 0o666), "ab", buffering=0)


def _give(path: Path, user: int) -> None:
    """Makes an empty file of that user's in a directory that stays ours; one that is there stays.

    Nobody else can put anything in its place meanwhile: no link is followed. Errors: OSError.
    """
    with contextlib.suppress(FileExistsError):
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        try:
            os.fchown(file, user, -1)
        finally:
            os.close(file)


class Output:
    """Of one attempt."""

    def __init__(
        self,
        directory: Path,
        name: str,
        reader: Reader,
        first: bool,
        *,
        found: bool = False,
        user: int | None = None,
    ) -> None:
        """first: what an earlier run has left is removed.

        found: the attempt runs since an earlier run; it may have told its result.
        user: as whom the task runs, if not as ourselves: it may make no file in the directory, so
              the one for its result is made for it.
        """
        self._base = directory / stem(name)
        self._reader = reader
        self._files: dict[int, BinaryIO] = {}
        self._lost = False
        self._lines = ProgressLines()
        self._user = user
        if first:
            for suffix in (*_SUFFIXES.values(), *(() if found else (_RESULT,))):
                self._path(suffix).unlink(missing_ok=True)
        if user is not None:
            try:
                _give(self._path(_RESULT), user)
            except OSError as error:
                _log.error("%s can tell no result: %s", self._base.name, error)

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
        if self._user is not None:
            self._remove_untold()

    def _remove_untold(self) -> None:
        """The file that was made for a result that the task did not tell."""
        with contextlib.suppress(FileNotFoundError):
            found = self._path(_RESULT).lstat()
            if stat.S_ISREG(found.st_mode) and not found.st_size:
                self._path(_RESULT).unlink()

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
