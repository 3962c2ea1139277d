"""Files for output in a state directory that a cleaner may empty at any time.

Used by the launcher for its spools; standard library only. It must never make or remove a file in a
directory that is somebody else's, or to which somebody else has led it.
"""

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from banyan import ownership
from banyan.errors import BanyanError

_COPY_BYTES = 1 << 20


def make(path: str) -> int:
    """An open file, new and empty, to read and write; directories that are missing are made anew.

    Errors: OSError, also where somebody else could have put something there.
    """
    with _directory_of(path) as directory:
        return _new(path, directory)


def put_back(path: str, file: int) -> int:
    """A new file at the path with what an open one holds, open where it ends. Errors: OSError."""
    with _directory_of(path) as directory:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.basename(path), dir_fd=directory)
        copy = _new(path, directory)
    try:
        position = 0
        while data := os.pread(file, _COPY_BYTES, position):
            write_all(copy, data)
            position += len(data)
    except OSError:
        os.close(copy)
        raise
    return copy


def write_all(file: int, data: bytes | bytearray) -> None:
    """Errors: OSError; then some of it may have been written."""
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]


def _new(path: str, directory: int) -> int:
    flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.open(os.path.basename(path), flags, 0o600, dir_fd=directory)


@contextlib.contextmanager
def _directory_of(path: str) -> Iterator[int]:
    """The directory of a file, open: what is done in it is done there, wherever the path leads."""
    outputs = Path(path).parent
    try:
        _secure(outputs)
        directory = os.open(outputs, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            ownership.demand_own(outputs, os.fstat(directory))  # it may be another by now
            yield directory
        finally:
            os.close(directory)
    except BanyanError:
        said = "somebody else could have put something there"
        raise PermissionError(errno.EPERM, said, str(outputs)) from None


def _secure(outputs: Path) -> None:
    """Sees to it that the directory is there, and the way to it nobody else's."""
    try:
        ownership.check_own(outputs)
    except FileNotFoundError:
        for directory in (outputs.parent, outputs):  # nobody else may look into either
            ownership.make(directory)
