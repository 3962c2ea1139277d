"""The data directory's lock: one supervisor serves a directory at a time.

The kernel drops the lock with the process that holds it, so a `kill -9` leaves nothing
behind that would have to be cleaned up.
"""

import fcntl
import os
from pathlib import Path
from types import TracebackType

from banyan.errors import BanyanError


class DirectoryLock:
    """Held from `with DirectoryLock(path):` to the end of the block or of the process."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._file = -1

    def __enter__(self) -> "DirectoryLock":
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        path = self.directory / "lock"
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = path.read_text().strip() or "unknown"
            os.close(self._file)
            raise BanyanError(
                "data_directory_in_use",
                f"{self.directory} is served by process {holder}: end that one first, "
                "or name another directory with --data",
            ) from None
        os.ftruncate(self._file, 0)
        os.write(self._file, f"{os.getpid()}\n".encode())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.close(self._file)
