"""One cgroup for each attempt: bounds its memory, and knows its every process.

Used by the launcher, and by the agent where a launcher has died. Standard library only. Works
with version 2 where the worker may divide its own cgroup (systemd: `Delegate=memory` and
`DelegateSubgroup=`), and with version 1 where the memory controller is writable. It must never
touch a cgroup that it did not make.
"""

import contextlib
import os
import signal
import time
from pathlib import Path

from banyan.worker import cgroups

NOTE = "launcher.cgroup"  # in the state directory: where the launcher's cells are
_PREFIX = "banyan-"
_READ_BYTES = 1 << 14
_CLEAR_SECONDS = 5.0
_LOOK_AGAIN_SECONDS = 0.01


class Cell:
    """The cgroup of one attempt."""

    def __init__(self, path: str) -> None:
        self.path = path

    def confine(self, memory_bytes: int) -> None:
        """Makes it, with a bound on memory and swap together. Errors: OSError."""
        os.mkdir(self.path)
        try:
            _write(f"{self.path}/memory.limit_in_bytes", memory_bytes)
        except FileNotFoundError:
            self._confine_with_version_2(memory_bytes)
            return
        with contextlib.suppress(OSError):  # a kernel without swap has no such file
            _write(f"{self.path}/memory.memsw.limit_in_bytes", memory_bytes)

    def _confine_with_version_2(self, memory_bytes: int) -> None:
        _write(f"{self.path}/memory.max", memory_bytes)
        for name, value in (("memory.swap.max", 0), ("memory.oom.group", 1)):
            with contextlib.suppress(OSError):
                _write(f"{self.path}/{name}", value)

    def add(self, pid: int) -> None:
        """Takes a process in, unless it has ended. Errors: OSError."""
        with contextlib.suppress(ProcessLookupError):
            _write(f"{self.path}/cgroup.procs", pid)

    def pids(self) -> list[int]:
        """All that is in it; zombies are not."""
        return [int(pid) for pid in _read(f"{self.path}/cgroup.procs").split()]

    def oom_kills(self) -> int:
        """How many of its processes the kernel has killed for want of memory."""
        said = _read(f"{self.path}/memory.oom_control") or _read(f"{self.path}/memory.events")
        after = said.partition(b"oom_kill ")[2].split()
        return int(after[0]) if after else 0

    def kill(self) -> None:
        """SIGKILL to all that is in it; with version 2 at one stroke, so that none forks away."""
        try:
            _write(f"{self.path}/cgroup.kill", 1)
        except OSError:
            for number in (signal.SIGSTOP, signal.SIGKILL):
                for pid in self.pids():
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, number)

    def remove(self) -> bool:
        """Removes it, if it is empty."""
        try:
            os.rmdir(self.path)
        except FileNotFoundError:
            return True
        except OSError:
            return False
        return True


class Cells:
    """All cells of one launcher, below one cgroup that it makes when the first is wanted."""

    def __init__(self, state_directory: Path) -> None:
        self._note = state_directory / NOTE
        self._root: Path | None = None
        self._looked = False
        self._emptied: list[Cell] = []

    def open(self, attempt: str, memory_bytes: int) -> Cell | None:
        """A new cell; None where the machine does not let us have one."""
        if not self._looked:
            self._looked = True
            self._root = make_root(str(os.getpid()))
            if self._root:
                self._note.write_text(str(self._root))
        if not self._root:
            return None
        cell = Cell(f"{self._root}/{attempt}")
        try:
            cell.confine(memory_bytes)
        except OSError:
            cell.remove()
            return None
        return cell

    def hold(self, pid: int) -> bool:
        """Whether a process is in one of them."""
        inside = f"/{self._root.name}/" if self._root else "/"
        return inside in cgroups.text(Path(f"/proc/{pid}/cgroup"))

    def close(self, cell: Cell) -> None:
        """Removes a cell, at once or when the kernel is done with it."""
        self._emptied = [each for each in [*self._emptied, cell] if not each.remove()]

    def end(self) -> None:
        """Removes all, at the end of the launcher; what is left in them keeps the note, too."""
        if self._root and _clear(self._root):
            self._note.unlink(missing_ok=True)


def available() -> bool:
    """Whether a launcher started from here could have cells."""
    root = make_root(f"try-{os.getpid()}")
    return root is not None and _clear(root)


def make_root(name: str) -> Path | None:
    """A cgroup below our own whose children can bound memory; None where that is not allowed."""
    for place in _places():
        root = place / f"{_PREFIX}{name}"
        trial = Cell(f"{root}/trial")
        try:
            _divide(place)
            root.mkdir(exist_ok=True)
            _divide(root)
            trial.confine(1 << 30)
        except OSError:
            trial.remove()
            Cell(str(root)).remove()
            continue
        trial.remove()
        return root
    return None


def clear(state_directory: Path) -> bool:
    """Kills all that a dead launcher's cells hold, and removes them; whether nothing is left."""
    note = state_directory / NOTE
    root = Path(cgroups.text(note) or os.devnull)
    if root.name.startswith(_PREFIX) and root.is_dir() and not _clear(root):
        return False
    note.unlink(missing_ok=True)
    return True


def _clear(root: Path) -> bool:
    deadline = time.monotonic() + _CLEAR_SECONDS
    while True:
        left = [Cell(str(path)) for path in root.iterdir() if path.is_dir()]
        for cell in left:
            if not cell.remove():
                cell.kill()
        if not left and Cell(str(root)).remove():
            return True
        if time.monotonic() > deadline:
            return False
        time.sleep(_LOOK_AGAIN_SECONDS)


def _places() -> list[Path]:
    """Our own cgroup, and the one above it where systemd has handed that over to us."""
    own = list(cgroups.own("memory"))
    places = own[:1]
    with contextlib.suppress(OSError):
        if own[1:] and os.getxattr(own[1], "user.delegate") == b"1":
            places.append(own[1])
    return places


def _divide(place: Path) -> None:
    """With version 2, lets the children of a cgroup have bounds of their own. Errors: OSError."""
    control = place / "cgroup.subtree_control"
    if control.exists() and "memory" not in cgroups.text(control).split():
        _write(str(control), "+memory")


def _read(path: str) -> bytes:
    try:
        file = os.open(path, os.O_RDONLY)
    except OSError:
        return b""
    try:
        read = b""
        while more := os.read(file, _READ_BYTES):
            read += more
        return read
    except OSError:  # it was removed meanwhile
        return b""
    finally:
        os.close(file)


def _write(path: str, value: int | str) -> None:
    file = os.open(path, os.O_WRONLY)
    try:
        os.write(file, str(value).encode())
    finally:
        os.close(file)
