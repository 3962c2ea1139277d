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
from collections.abc import Callable

_PLACES = ("/dev/shm", "/dev/mqueue")  # noqa: S108 - others' files there are not touched
_SYSTEM_V = "/proc/sysvipc"
_IPC_RMID = 0
_TABLE_BYTES_MAX = 1 << 20
_SECONDS = 0.02  # for all that there is to do after one attempt
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
        self._groups: list[int] = []  # of which there may be something yet
        self._deadline = 0.0

    def clear(self, group: int) -> None:
        """Removes what has this group; what takes too long is gone on with at the next call."""
        self._deadline = time.monotonic() + _SECONDS
        groups = {*self._groups[-_REMEMBERED_MAX:], group}
        for kind, remove in _REMOVERS.items():
            _remove_objects(kind, groups, remove)
        for place in _PLACES:
            self._clear(place, groups)
        self._groups = list(groups) if self._is_late() else []

    def _is_late(self) -> bool:
        return time.monotonic() > self._deadline

    def _clear(self, place: str, groups: set[int]) -> None:
        try:
            directory = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except OSError:  # there is no such place here
            return
        try:
            for name in os.listdir(directory):
                self._remove(directory, name, groups)
                if self._is_late():
                    return
        finally:
            os.close(directory)

    def _remove(self, directory: int, name: str, groups: set[int]) -> None:
        """One that others can exchange: removed as its owner, who can remove nobody else's."""
        with contextlib.suppress(OSError):
            found = os.stat(name, dir_fd=directory, follow_symlinks=False)
            if found.st_gid not in groups or not found.st_uid:
                return
            if is_directory := stat.S_ISDIR(found.st_mode):
                self._empty(directory, name, groups, _DEPTH_MAX)
            _libc.setfsuid(found.st_uid)  # of this thread alone
            try:
                (os.rmdir if is_directory else os.unlink)(name, dir_fd=directory)
            finally:
                _libc.setfsuid(os.geteuid())

    def _empty(self, above: int, name: str, groups: set[int], depth: int) -> None:
        """Errors: OSError."""
        directory = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=above)
        try:
            if os.fstat(directory).st_gid not in groups:  # it was exchanged
                return
            for each in os.listdir(directory):
                if self._is_late():
                    return
                with contextlib.suppress(OSError):
                    self._remove_within(directory, each, groups, depth)
        finally:
            os.close(directory)

    def _remove_within(self, directory: int, name: str, groups: set[int], depth: int) -> None:
        """What lies in a directory of the attempt is removed, unless somebody else's.

        Errors: OSError.
        """
        found = os.stat(name, dir_fd=directory, follow_symlinks=False)
        if found.st_gid not in groups:
            return
        if not stat.S_ISDIR(found.st_mode):
            os.unlink(name, dir_fd=directory)
        elif depth:
            self._empty(directory, name, groups, depth - 1)
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
