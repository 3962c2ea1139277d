"""Which directories answer at once, and which may let whoever looks wait for ever.

A look at a network file system whose server is away, at one that a program serves (FUSE), or at
one that is mounted when first looked at (autofs) may never come back. Asked by the launcher, which
does all in one thread, before it enters a task's directory. Standard library only. It must itself
look at nothing that may hang: it goes by the kernel's table of mounts.
"""

import contextlib
import os
import select
import time
from collections.abc import Iterable

# What needs nobody else to answer. All others are in doubt.
_LOCAL = """
bcachefs btrfs erofs exfat ext2 ext3 ext4 f2fs iso9660 jfs ntfs3 overlay ramfs reiserfs rootfs
squashfs tmpfs ufs vfat xfs zfs
binfmt_misc bpf cgroup cgroup2 configfs debugfs devpts devtmpfs efivarfs fusectl hugetlbfs mqueue
nsfs proc pstore securityfs selinuxfs sysfs tracefs
"""
_MOUNTS = "/proc/self/mountinfo"
_REMEMBERED_MAX = 1000
_REMEMBERED_SECONDS = 5.0  # a link may lead elsewhere by then
_LINKS_MAX = 40  # as the kernel has it


class Places:
    """The mounts of this machine, read again when they have changed."""

    def __init__(self) -> None:
        self._file = os.open(_MOUNTS, os.O_RDONLY | os.O_CLOEXEC)
        self._changes = select.poll()
        self._changes.register(self._file, select.POLLPRI | select.POLLERR)
        self._doubtful = self._read()
        self._remembered: dict[str, bool] = {}
        self._remembered_since = 0.0

    def answer(self, paths: Iterable[str]) -> bool:
        """Whether nothing on the way to these absolute paths is in doubt."""
        if self._changes.poll(0):
            self._doubtful = self._read()
            self._remembered.clear()
        if not self._doubtful:
            return True
        if time.monotonic() - self._remembered_since > _REMEMBERED_SECONDS:
            self._remembered_since = time.monotonic()
            self._remembered.clear()
        return all(map(self._answers, paths))

    def _answers(self, path: str) -> bool:
        if path not in self._remembered:
            if len(self._remembered) >= _REMEMBERED_MAX:
                self._remembered.clear()
            self._remembered[path] = self._walk(path)
        return self._remembered[path]

    def _walk(self, path: str) -> bool:
        """Goes from the root down, by each link where it leads, and stops before a doubtful one."""
        done, links = "", 0
        rest = path.split("/")[::-1]
        while rest:
            part = rest.pop()
            if part in ("", "."):
                continue
            if part == "..":
                done = done.rpartition("/")[0]
                continue
            done = f"{done}/{part}"
            if done in self._doubtful:
                return False
            with contextlib.suppress(OSError, ValueError):  # no link, or not there
                link = os.readlink(done)
                links += 1
                if links > _LINKS_MAX:
                    return True  # the kernel refuses it
                done = "" if link.startswith("/") else done.rpartition("/")[0]
                rest += link.split("/")[::-1]
        return True

    def _read(self) -> set[str]:
        """The mount points in doubt; of several at one place the last is the one that is seen.

        The root is not: where that does not answer, nothing does.
        """
        kinds: dict[str, str] = {}
        os.lseek(self._file, 0, os.SEEK_SET)
        with open(self._file, "rb", closefd=False) as table:
            # Whoever mounts may choose a name with any other character that looks like white space.
            for line in filter(None, table.read().split(b"\n")):
                before, _, after = line.partition(b" - ")
                place = before.split(b" ")[4].decode("unicode_escape").encode("latin-1")
                kinds[os.fsdecode(place)] = os.fsdecode(after.split(b" ")[0])
        kinds.pop("/", None)
        local = set(_LOCAL.split())
        return {place for place, kind in kinds.items() if kind not in local}
