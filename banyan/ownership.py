"""Directories into which nobody else can put anything, and files in them that are no links.

Asked by a server for its data directory, by a worker for its state directory, by the command
line for its profiles. What lies there is believed: tokens, keys, whose processes run. Root is
believed too. It must never write through somebody else's link.
"""

import contextlib
import errno
import grp
import os
import pwd
import re
import shlex
import stat
from collections.abc import Iterator
from pathlib import Path

from banyan.errors import BanyanError

_ROOT = 0
_LINKS_MAX = 40  # as the kernel has it
_INHERITED = re.compile(r"/dev/stdin|(/dev|/proc/self)/fd/[0-9]+")
_NULL = os.makedev(1, 3)


def make(directory: Path, mode: int = 0o700) -> None:
    """Makes it and what is missing above it; all of that is ours or root's then.

    Each is checked when it is there, before anything is made in it: somebody else may have made
    it a moment before us. mode: of the directory itself, where it is missing; what is missing
    above it is for others to read. Errors: as of `check_above`; OSError.
    """
    target = directory.absolute()
    missing = [one for one in (target, *target.parents) if not one.exists()]
    for one in (*reversed(target.parents), target):
        if one in missing:
            with contextlib.suppress(FileExistsError):
                one.mkdir(mode=mode if one == target else 0o755)  # for others to read at most
        _check_way(one)


def claim(directory: Path) -> None:
    """Makes the directory where it is missing; it is ours alone then. What is above: see `make`.

    Errors: `usage` where it, or anything in it, is somebody else's, or others may write to it.
    """
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
            _check_step(step, target)


def check_file(path: Path) -> None:
    """A file that another one names may be believed: it, and what leads to it, is ours or root's.

    Root believes one that has a user of its own, too, as far as `is_way_of` allows.
    Errors: `usage`; OSError where it is missing.
    """
    _check_named(path, path.stat().st_uid)


def check_own(path: Path) -> None:
    """What is read there may be believed, also by root, and be it a pipe or a device.

    It, and what leads to it, is ours or root's; what we were given open (/dev/fd/N) is so itself.
    The null device says nothing. Errors: `usage`; OSError where it is missing.
    """
    found = path.stat()
    if stat.S_ISCHR(found.st_mode) and found.st_rdev == _NULL:
        return
    if _is_inherited(path):
        _demand(path, found, path)
    else:
        _check_way(path)


def check_links(path: Path) -> None:
    """A link of somebody else's on the way to it may lead to files of that one's, not to ours.

    For what is sent where it is said to. Errors: `usage`; OSError where it is missing.
    """
    if _is_inherited(path):
        return
    owner = path.stat().st_uid
    for step in _steps(path.absolute()):
        found = step.lstat()
        if stat.S_ISLNK(found.st_mode) and found.st_uid != owner:
            _demand_owner(step, found, path)


def read_believed(path: Path) -> str:
    """The text of a file that `check_file` believes: what is read is what was checked.

    Errors: `usage`; OSError; ValueError for what is no text.
    """
    check_file(path)
    with os.fdopen(_open_regular(path), encoding="utf-8-sig") as file:
        _check_named(path, os.fstat(file.fileno()).st_uid)  # it may be another by now
        return file.read()


def read_own(path: Path, forbidden: int = 0) -> str:
    """The text of a file that is ours or root's, and so is what leads to it.

    forbidden: bits that its mode must not have. Errors: as of `read_believed`.
    """
    _check_way(path)
    with os.fdopen(_open_regular(path), encoding="utf-8-sig") as file:
        mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
        if mode & forbidden:
            message = f"{path} can be read by others (mode {mode:04o}): chmod 600 {path}"
            raise BanyanError("usage", message)
        return file.read()


def is_way_of(path: Path, user: int) -> bool:
    """We are root, and what leads to it, and it, is root's or this user's: a service's place.

    Nobody else may write anywhere on the way. /tmp is no such place: when a service's directory
    is gone from there, anybody can make it again. Errors: OSError.
    """
    if os.geteuid() != _ROOT:
        return False
    for step in _steps(path.absolute()):
        found = step.lstat()
        if found.st_uid not in (_ROOT, user) or _writers(found, user):
            return False
    return True


def place_of(path: Path) -> Path:
    """Where a file of ours is to be written: there, or where a link of ours leads.

    What is missing above is made. Whatever stands there is checked before it is followed: no
    file is made where somebody else's link leads. Errors: as of `make`.
    """
    target = path.absolute()
    for _ in range(_LINKS_MAX):
        make(target.parent)
        try:
            found = target.lstat()
        except FileNotFoundError:
            return target
        _demand_owner(target, found, path)
        if not stat.S_ISLNK(found.st_mode):
            return target
        target = target.parent / target.readlink()
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))


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


def told_of_readers(path: Path) -> str:
    """A sentence for the owner of a secret that others can read; else empty. Errors: OSError.

    Where we cannot see who gets there (it was given to us open) nothing is said.
    """
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):  # a pipe has no place among the directories
        return ""
    who = ""
    with contextlib.suppress(PermissionError):
        who = _readers(found, [above.stat().st_mode for above in path.resolve().parents])
    if not who:
        return ""
    mode = stat.S_IMODE(found.st_mode)
    return f"{path} can be read by {who} (mode {mode:04o}): chmod 600 {shlex.quote(str(path))}"


def _readers(found: os.stat_result, ways: list[int]) -> str:
    """Who may read it but root and its owner. ways: the modes of the directories above it."""
    if found.st_mode & stat.S_IROTH and all(mode & stat.S_IXOTH for mode in ways):
        return "everybody"
    for_group = stat.S_IXGRP | stat.S_IXOTH
    is_open = found.st_mode & stat.S_IRGRP and all(mode & for_group for mode in ways)
    if is_open and not _is_of_user_alone(found.st_gid, found.st_uid):
        return f"the group {_group(found.st_gid)}"
    return ""


def _check_named(path: Path, owner: int) -> None:
    if owner == os.geteuid() or not is_way_of(path, owner):
        _check_way(path)


def _open_regular(path: Path) -> int:
    """An open file, and no pipe or device, for which one could wait for ever."""
    file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise BanyanError("usage", f"{path} is no regular file")
    return file


def _is_inherited(path: Path) -> bool:
    return _INHERITED.fullmatch(str(path)) is not None


def _check_way(path: Path) -> None:
    """`check_above` for what is there: whatever is missing could be made by anybody."""
    target = path.absolute()
    for step in _steps(target):
        _check_step(step, target)


def _check_step(step: Path, target: Path) -> None:
    found = step.lstat()
    is_shared = stat.S_ISDIR(found.st_mode) and found.st_mode & stat.S_ISVTX
    (_demand_owner if is_shared else _demand)(step, found, target)


def _steps(path: Path) -> Iterator[Path]:
    """Each directory and each link on the way from / to an absolute path, the end included."""
    at, links = Path("/"), 0
    parts = list(reversed(path.parts))
    while parts:
        part = parts.pop()
        if part == "..":
            at = at.parent
            continue
        at /= part  # an absolute target begins at / again
        yield at
        if at.is_symlink():
            links += 1
            if links > _LINKS_MAX:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
            parts += reversed(at.readlink().parts)
            at = at.parent


def _demand(path: Path, found: os.stat_result, wanted: Path) -> None:
    _demand_owner(path, found, wanted)
    who = _writers(found, os.geteuid())
    if who:
        mode = stat.S_IMODE(found.st_mode)
        raise BanyanError(
            "usage",
            f"{path} may be written by {who} (mode {mode:04o}), so what is in {wanted} could be "
            f"anybody's: look at it, then chmod go-w {path}; or name another place",
        )


def _writers(found: os.stat_result, user: int) -> str:
    """Who may write to it but root and this user; a link is nobody's to write to."""
    if stat.S_ISLNK(found.st_mode):
        return ""
    if found.st_mode & stat.S_IWOTH:
        return "everybody"
    if found.st_mode & stat.S_IWGRP and not _is_of_user_alone(found.st_gid, user):
        return f"the group {_group(found.st_gid)}"
    return ""


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


def _is_of_user_alone(group: int, user: int) -> bool:
    """Whether nobody gains by it: root's group, or the one that many systems make for each user."""
    if group == _ROOT:
        return True
    try:
        known, found = pwd.getpwuid(user), grp.getgrgid(group)
    except KeyError:
        return False
    own = known.pw_gid == group and found.gr_name == known.pw_name
    return own and set(found.gr_mem) <= {known.pw_name}


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
