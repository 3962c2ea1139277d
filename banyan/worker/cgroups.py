"""Where the kernel's control groups are: this process's own, in both versions.

Read by the inventory (what may be used) and by the launcher (where tasks can be confined).
Standard library only. It only reads.
"""

import functools
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

_READ_BYTES = 1 << 14
_WHITE = " \t\n"


def own(controller: str, proc: Path = Path("/proc/self")) -> Iterator[Path]:
    """The cgroups of a process that may bound this controller, up to the root that it sees."""
    for line in filter(None, text(proc / "cgroup").split("\n")):
        _, listed, path = line.split(":", 2)
        controllers = listed.split(",") if listed else []  # none: version 2 has them all
        if controllers and controller not in controllers:
            continue
        for mounted, root, names in _mounts(proc):
            if controller in names if controllers else not names:
                yield from _upwards(mounted, root, path)


def text(path: Path) -> str:
    """What a file of the kernel says; nothing where it is not there.

    Names in it may be of any bytes, and whoever may make a cgroup or a mount chooses them.
    """
    try:
        return os.fsdecode(path.read_bytes()).strip(_WHITE)
    except OSError:
        return ""


def read(path: str) -> bytes:
    """The same, as it is, without what a `Path` costs."""
    return _read(path, whole=True)


def read_short(path: str) -> bytes:
    """The same of a file with a few lines, which the kernel gives at once."""
    return _read(path, whole=False)


def _read(path: str, whole: bool) -> bytes:
    try:
        file = os.open(path, os.O_RDONLY)
    except OSError:
        return b""
    said = b""
    try:
        while part := os.read(file, _READ_BYTES):
            said += part
            if not whole:
                break
    except OSError:  # it was removed meanwhile
        pass
    finally:
        os.close(file)
    return said


@functools.cache
def _mounts(proc: Path) -> list[tuple[Path, str, list[str]]]:
    """Where cgroups are mounted: directory, the cgroup at its root, its version 1 controllers.

    Read once: it waits for a lock of the kernel that everybody on the machine can keep busy.
    """
    found = []
    for line in text(proc / "mountinfo").split("\n"):  # other characters may be part of a name
        before, _, after = line.partition(" - ")
        fields, kind = before.split(" "), after.split(" ")
        if kind and kind[0] in ("cgroup", "cgroup2"):
            controllers = kind[2].split(",") if kind[0] == "cgroup" else []
            found.append((Path(fields[4]), fields[3], controllers))
    return found


def _upwards(mounted: Path, root: str, path: str) -> Iterator[Path]:
    """From the process's own cgroup to the mount; a path from outside the mount is the mount."""
    inside = PurePosixPath(path)
    relative = inside.relative_to(root) if inside.is_relative_to(root) else PurePosixPath(".")
    directory = mounted / relative
    while True:
        yield directory
        if directory == mounted:
            return
        directory = directory.parent
