"""What an attempt leaves in memory that outlives its processes, and its removal.

Files in shared memory (`/dev/shm`), POSIX message queues, and System V shared memory, queues and
semaphores. Used by the launcher of a worker with `--run-as`, where each attempt has a group of its
own: what has that group is the attempt's. Standard library only. It must never remove anything
else, whatever others move about meanwhile, nor hold up the launcher for long.
"""

import contextlib
import ctypes
import os
import stat
import time
from collections.abc import Callable, Iterator

_PLACES = ("/dev/shm", "/dev/mqueue")  # noqa: S108 - others' files there are not touched
_SYSTEM_V = "/proc/sysvipc"
_IPC_RMID = 0
_TABLE_BYTES_MAX = 1 << 20
_SECONDS = 0.02  # in one go
_REST = 9  # times as long as it took, before it goes on
_DEPTH_MAX = 32
_REMEMBERED_MAX = 1000
_libc = ctypes.CDLL(None)
_REMOVERS: dict[str, Callable[[int], int]] = {
    "shm": lambda number: _libc.shmctl(number, _IPC_RMID, None),
    "msg": lambda number: _libc.msgctl(number, _IPC_RMID, None),
    "sem": lambda number: _libc.semctl(number, 0, _IPC_RMID),
}


class Leftovers:
    """Of the attempts of one launcher."""

    def __init__(self) -> None:
        self._groups: dict[int, None] = {}  # of which there may be something; the oldest first
        self._search: Iterator[None] | None = None  # for those of which it was known at its begin
        self._rest_until = 0.0

    def clear(self, group: int) -> None:
        """Removes what has this group; what takes too long is gone on with at a later call.

        Anybody may fill the places with names, and each has to be looked at.
        """
        self._groups[group] = None
        if len(self._groups) > _REMEMBERED_MAX:
            del self._groups[next(iter(self._groups))]
        began = time.monotonic()
        if began < self._rest_until:
            return
        while self._search or self._groups:
            if not self._search:
                self._search, self._groups = _search(set(self._groups)), {}
            for _ in self._search:
                if (spent := time.monotonic() - began) > _SECONDS:
                    self._rest_until = began + spent * (1 + _REST)
                    return
            self._search = None


def _search(groups: set[int]) -> Iterator[None]:
    """Removes all that has one of these groups, a step at a time."""
    for kind, remove in _REMOVERS.items():
        _remove_objects(kind, groups, remove)
    for place in _PLACES:
        try:
            directory = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except OSError:  # there is no such place here
            continue
        try:
            for name in _names(directory):
                yield from _remove(directory, name, groups)
                yield
        finally:
            os.close(directory)


def _names(directory: int) -> Iterator[str]:
    """Not all at once: there may be millions."""
    with os.scandir(directory) as entries:
        yield from (entry.name for entry in entries)


def _remove(directory: int, name: str, groups: set[int]) -> Iterator[None]:
    """One that others can exchange: removed as its owner, who can remove nobody else's."""
    with contextlib.suppress(OSError):
        found = os.stat(name, dir_fd=directory, follow_symlinks=False)
        if found.st_gid not in groups or not found.st_uid:
            return
        if is_directory := stat.S_ISDIR(found.st_mode):
            yield from _empty(directory, name, groups, _DEPTH_MAX)
        _libc.setfsuid(found.st_uid)  # of this thread alone
        try:
            (os.rmdir if is_directory else os.unlink)(name, dir_fd=directory)
        finally:
            _libc.setfsuid(os.geteuid())


def _empty(above: int, name: str, groups: set[int], depth: int) -> Iterator[None]:
    """Errors: OSError."""
    directory = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=above)
    try:
        if os.fstat(directory).st_gid not in groups:  # it was exchanged
            return
        for each in _names(directory):
            with contextlib.suppress(OSError):
                yield from _remove_within(directory, each, groups, depth)
            yield
    finally:
        os.close(directory)


def _remove_within(directory: int, name: str, groups: set[int], depth: int) -> Iterator[None]:
    """What lies in a directory of the attempt is removed, unless somebody else's.

    Errors: OSError.
    """
    found = os.stat(name, dir_fd=directory, follow_symlinks=False)
    if found.st_gid not in groups:
        return
    if not stat.S_ISDIR(found.st_mode):
        os.unlink(name, dir_fd=directory)
    elif depth:
        yield from _empty(directory, name, groups, depth - 1)
        os.rmdir(name, dir_fd=directory)


def _remove_objects(kind: str, groups: set[int], remove: Callable[[int], int]) -> None:
    """Those of System V of which one of the groups is the maker's, which nobody can change."""
    try:
        file = os.open(f"{_SYSTEM_V}/{kind}", os.O_RDONLY)
    except OSError:
        return
    try:
        table = b""
        while (part := os.read(file, 1 << 16)) and len(table) < _TABLE_BYTES_MAX:
            table += part
    finally:
        os.close(file)
    heads, *lines = table.splitlines() or [b""]
    if not lines or b"cgid" not in heads:
        return
    column, wanted = heads.split().index(b"cgid"), {str(group).encode() for group in groups}
    for fields in map(bytes.split, lines):
        if fields[column:] and fields[column] in wanted:
            remove(int(fields[1]))
