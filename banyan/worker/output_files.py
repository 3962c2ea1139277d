"""Files for output in a state directory that a cleaner may empty at any time.

Used by the launcher for its spools; standard library only. It must never make a file in a directory
that is somebody else's.
"""

import contextlib
import errno
import os
import stat

_COPY_BYTES = 1 << 20


def make(path: str) -> int:
    """An open file, new and empty, to read and write; the two directories above it are made anew.

    Errors: OSError, also where somebody else has made one of them.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        return os.open(path, flags, 0o600)
    except FileNotFoundError:
        outputs = os.path.dirname(path)
        for directory in (os.path.dirname(outputs), outputs):
            _make_directory(directory)
        return os.open(path, flags, 0o600)


def put_back(path: str, file: int) -> int:
    """A new file at the path with what an open one holds, open where it ends. Errors: OSError."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    copy = make(path)
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


def _make_directory(directory: str) -> None:
    with contextlib.suppress(FileExistsError):
        os.mkdir(directory, 0o700)
    found = os.lstat(directory)
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        raise PermissionError(errno.EPERM, "somebody else has put something there", directory)
