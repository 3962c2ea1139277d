"""The data directory's lock: one supervisor serves a directory at a time.

The kernel drops the lock with the process that holds it, so a `kill -9` leaves nothing
behind that would have to be cleaned up.
"""

import fcntl
import os
from pathlib import Path
from types import TracebackType

from banyan import ownership
from banyan.errors import BanyanError


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
            self._file = ownership.open_file(self.directory / "lock", os.O_RDWR | os.O_CREAT)
        except OSError as problem:
            message = f"{self.directory} cannot be used: {problem}"
            raise BanyanError("usage", message) from None
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(self._file, 100).decode().strip() or "unknown"
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
