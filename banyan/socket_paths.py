"""Paths of unix sockets, made short enough for the kernel.

Used on both sides of every unix socket of Banyan. The address of a unix socket holds 107
bytes, and the path of a data directory may be longer.
"""

import os
from pathlib import Path

PATH_BYTES_MAX = 107

_directories: dict[Path, int] = {}


def short_path(path: Path) -> str:
    """A name of `path` that a socket address can hold; it is valid in this process only.

    Errors: OSError where the directory of the socket cannot be opened.
    """
    return _shortened(path, "self")


def shared_path(path: Path) -> str:
    """Like `short_path`, but valid in all processes of this user as long as this one lives.

    Errors: OSError where the directory of the socket cannot be opened.
    """
    return _shortened(path, str(os.getpid()))


def _shortened(path: Path, process: str) -> str:
    if len(os.fsencode(path)) <= PATH_BYTES_MAX:
        return str(path)
    return f"/proc/{process}/fd/{_directory(path.parent)}/{path.name}"


def _directory(path: Path) -> int:
    """An open file of the directory; a new one where the directory was made again."""
    file = _directories.get(path)
    if file is not None:
        if os.path.samestat(os.fstat(file), path.stat()):
            return file
        os.close(file)
    _directories[path] = file = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    return file
