"""Directories into which nobody else can put anything, and files in them that are no links.

Asked by a server for its data directory, by a worker for its state directory, by the command
line for its profiles. What lies there is believed: tokens, keys, whose processes run. Root is
believed too. It must never write through somebody else's link.
"""

import contextlib
import grp
import os
import pwd
import stat
from collections.abc import Iterator
from pathlib import Path

from banyan.errors import BanyanError

_WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH
_ROOT = 0


def claim(directory: Path) -> None:
    """Makes the directory where it is missing; it is ours alone then.

    Errors: `usage` where it, or anything in it, is somebody else's, or others may write to it.
    """
    for parent in reversed([one for one in directory.parents if not one.exists()]):
        parent.mkdir(mode=0o755, exist_ok=True)  # whatever the umask: for others to read at most
    directory.mkdir(mode=0o700, exist_ok=True)
    _demand(directory, directory.stat(), directory)
    with os.scandir(directory) as entries:
        for entry in entries:
            _demand_owner(Path(entry.path), entry.stat(follow_symlinks=False), directory)


def check_above(path: Path) -> None:
    """What leads to it, through links too, is ours or root's, so that nobody can exchange it.

    A directory in which everybody may write will do where it is sticky, as /tmp is. What is
    missing is not looked at. Errors: `usage`.
    """
    target = path.absolute()
    for step in _steps(target):
        with contextlib.suppress(FileNotFoundError):
            found = step.lstat()
            if stat.S_ISLNK(found.st_mode) or found.st_mode & stat.S_ISVTX:
                _demand_owner(step, found, target)
            else:
                _demand(step, found, target)


def open_file(path: Path, flags: int) -> int:
    """An open file, made with mode 0600 by O_CREAT. Errors: `usage` for a link; OSError."""
    if path.is_symlink():
        raise BanyanError("usage", f"{path} is a link, and is not followed: remove it")
    return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


def read_text(path: Path) -> str:
    """What is in a file. Errors: as `open_file`, and ValueError for what is no text."""
    with os.fdopen(open_file(path, os.O_RDONLY), encoding="utf-8") as file:
        return file.read()


def replace_text(path: Path, text: str) -> None:
    """The file with this content, mode 0600, whole or not at all. Errors: OSError."""
    draft = path.with_name(f"{path.name}.new")
    draft.unlink(missing_ok=True)
    with os.fdopen(open_file(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL), "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


def demand_own(path: Path, found: os.stat_result) -> None:
    """A file or directory is ours or root's, and others can't write to it. Errors: `usage`."""
    _demand(path, found, path)


def _steps(path: Path) -> Iterator[Path]:
    """Each directory and each link on the way from / to an absolute path, the end included."""
    at = Path("/")
    parts = list(reversed(path.parts))
    while parts:
        part = parts.pop()
        if part == "..":
            at = at.parent
            continue
        at /= part  # an absolute target begins at / again
        yield at
        if at.is_symlink():
            parts += reversed(at.readlink().parts)
            at = at.parent


def _demand(path: Path, found: os.stat_result, wanted: Path) -> None:
    _demand_owner(path, found, wanted)
    by_group = found.st_mode & stat.S_IWGRP and not _is_ours_alone(found.st_gid)
    if by_group or found.st_mode & stat.S_IWOTH:
        mode = stat.S_IMODE(found.st_mode)
        who = "everybody" if found.st_mode & stat.S_IWOTH else f"the group {_group(found.st_gid)}"
        raise BanyanError(
            "usage",
            f"{path} may be written by {who} (mode {mode:04o}), so what is in {wanted} could be "
            f"anybody's: look at it, then chmod go-w {path}; or name another place",
        )


def _demand_owner(path: Path, found: os.stat_result, wanted: Path) -> None:
    owner = found.st_uid
    if owner in (_ROOT, os.geteuid()) or not _is_mapped(owner):
        return
    raise BanyanError(
        "usage",
        f"{path} belongs to {_user(owner)}, who could put anything into {wanted}: "
        f"name a place of your own, or do this as {_user(owner)}",
    )


def _is_mapped(user: int) -> bool:
    """Whether it is a user at all: in a namespace whoever is unknown has one common number."""
    with contextlib.suppress(OSError, ValueError):
        lines = Path("/proc/self/uid_map").read_text().splitlines()
        ranges = [tuple(map(int, line.split())) for line in lines]
        return any(first <= user < first + count for first, _, count in ranges)
    return True


def _is_ours_alone(group: int) -> bool:
    """Whether nobody gains by it: root's group, or the one that many systems make for each user."""
    if group == _ROOT:
        return True
    try:
        user, found = pwd.getpwuid(os.geteuid()), grp.getgrgid(group)
    except KeyError:
        return False
    own = user.pw_gid == group and found.gr_name == user.pw_name
    return own and set(found.gr_mem) <= {user.pw_name}


def _user(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return f"user {number}"


def _group(number: int) -> str:
    try:
        return grp.getgrgid(number).gr_name
    except KeyError:
        return str(number)
