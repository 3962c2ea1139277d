"""The data directory's lock: one supervisor serves a directory at a time.

The kernel drops the lock with the process that holds it, so a `kill -9` leaves nothing
behind that would have to be cleaned up.
"""

import contextlib
import fcntl
import os
import time
from pathlib import Path
from types import TracebackType

from banyan import ownership
from banyan.errors import BanyanError
from banyan.open_files import is_at
from banyan.stacks import LOCK, process_in

_TRIES = 3
_PAUSE_SECONDS = 0.05


class DirectoryLock:
    """Held from `with DirectoryLock(path):` to the end of the block or of the process.

    Errors on entering: `data_directory_in_use`; `usage` where others could put their own key,
    tokens or database there, or it can't be used at all.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.path = directory / LOCK
        self._file = -1

    def __enter__(self) -> "DirectoryLock":
        try:
            ownership.make(self.directory)
            ownership.claim(self.directory)
            self._file = self._locked()
        except OSError as problem:
            message = f"{self.directory} cannot be used: {problem}"
            raise BanyanError("usage", message) from None
        return self

    def is_there(self) -> bool:
        """Whether its file is; somebody may have removed it."""
        return is_at(self.path, self._file)

    def hold_again(self) -> None:
        """Makes its file anew where it was removed. Errors: as on entering; OSError."""
        if not self.is_there():
            removed, self._file = self._file, self._locked()
            os.close(removed)

    def _locked(self) -> int:
        file = ownership.open_file(self.path, os.O_RDWR | os.O_CREAT)
        if not _is_ours(file):
            holder = process_in(os.read(file, 100)) or "unknown"
            os.close(file)
            raise BanyanError(
                "data_directory_in_use",
                f"{self.directory} is served by process {holder}: end that one first, "
                "or name another directory with --data",
            )
        os.ftruncate(file, 0)
        os.write(file, f"{os.getpid()}\n".encode())
        return file

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.close(self._file)


def _is_ours(file: int) -> bool:
    """Whoever only looks whether it is held has it for a moment."""
    for _ in range(_TRIES):
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        time.sleep(_PAUSE_SECONDS)
    return False
