"""The kernel's table of open files: whether others than tasks will soon find it full.

Only root may open a file then. No cgroup bounds it. Used by the launcher while anything runs;
standard library only.
"""

from collections.abc import Iterable

from banyan.worker import cgroups, tree

_TABLE = "/proc/sys/fs/file-nr"  # open, free, the most that there may be
_SCARCE_PART = 8  # when no more than one in so many is left


def too_many() -> int:
    """If files are scarce, how many are too many for all tasks together: half of them; else 0."""
    try:
        taken, free, most = map(int, cgroups.read_short(_TABLE).split())
    except ValueError:  # not every kernel tells
        return 0
    return most // 2 if taken - free > most - most // _SCARCE_PART else 0


def count(pids: Iterable[int]) -> int:
    """For how many these processes have room in their own tables: they may have had so many."""
    return sum(map(tree.room_for_files, pids))
