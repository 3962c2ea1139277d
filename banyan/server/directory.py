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
from banyan.stacks import LOCK

_TRIES = 3
_PAUSE_SECONDS = 0.05


class DirectoryLock:
    """Held from `with DirectoryLock(path):` to the end of the block or of the process.

    Errors on entering: `data_directory_in_use`; `usage` where others could put their own key,
    tokens or database there, or it can't be used at all.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._file = -1

    def __enter__(self) -> "DirectoryLock":
        try:
            ownership.make(self.directory)
            ownership.claim(self.directory)
            self._file = ownership.open_file(self.directory / LOCK, os.O_RDWR | os.O_CREAT)
        except OSError as problem:
            message = f"{self.directory} cannot be used: {problem}"
            raise BanyanError("usage", message) from None
        if not self._is_ours():
            holder = os.read(self._file, 100).decode().strip() or "unknown"
            os.close(self._file)
            raise BanyanError(
                "data_directory_in_use",
                f"{self.directory} is served by process {holder}: end that one first, "
                "or name another directory with --data",
            )
        os.ftruncate(self._file, 0)
        os.write(self._file, f"{os.getpid()}\n".encode())
        return self

    def _is_ours(self) -> bool:
        """Whoever only looks whether it is held has it for a moment."""
        for _ in range(_TRIES):
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
            time.sleep(_PAUSE_SECONDS)
        return False

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.close(self._file)
