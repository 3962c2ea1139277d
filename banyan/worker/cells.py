"""One cgroup for each attempt: bounds its memory and processes, and knows its every process.

Used by the launcher, and by the agent where a launcher has died. Standard library only. Works
with version 2 where the worker may divide its own cgroup (systemd: `Delegate=memory pids` and
`DelegateSubgroup=`), and with version 1 where the memory controller is writable; there a second
one bounds the processes, where that controller is writable too. It must never touch a cgroup
that it did not make.
"""

import contextlib
import itertools
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

from banyan.worker import cgroups, tree

NOTE = "launcher.cgroup"  # in the state directory: where the launcher's cells are
_PREFIX = "banyan-"
_THREADS = "tasks"  # of version 1; the number 0 is who writes it
_MODE = 0o755  # whatever the umask: in a group of its own making a task would be out of sight
_ROOMY_BYTES = 64 << 20  # a cell that the launcher may enter while it is bounded
_FREE_MAX = 64
_EMPTY_BYTES = 1 << 20  # a cell with no more in it holds nothing of its last attempt
# Pages of files that the kernel gives up before it kills, in version 1 and 2.
_CACHE = (b"total_active_file", b"total_inactive_file", b"active_file", b"inactive_file")
_CLEAR_SECONDS = 5.0
_LOOK_AGAIN_SECONDS = 0.01


class Cell:
    """The cgroup of one attempt."""

    def __init__(self, path: str, twin: str = "") -> None:
        """twin: with version 1, where its processes are counted; empty: nowhere."""
        self.path = path
        self._paths = [path, twin] if twin else [path]
        self._doors: list[int] = []  # open files through which a thread comes in
        self.entered = False  # what the launcher started was born in it
        self.bound_bytes = 0  # of its memory; 0: none
        self.wanted_processes = 0
        self.bound_processes = 0  # threads included; 0: none

    def make(self) -> None:
        """Makes it. Errors: OSError."""
        for path in self._paths:
            os.mkdir(path, _MODE)

    def bound_count(self, processes: int) -> None:
        """Bounds the number of processes and threads, where that can be: they can't fork then.

        The launcher's thread is among them while it starts the first.
        """
        self.wanted_processes = processes
        if not processes:
            return
        with contextlib.suppress(OSError):
            _write(f"{self._paths[-1]}/pids.max", max(processes, 2))
            self.bound_processes = processes

    def bound(self, memory_bytes: int) -> None:
        """Bounds memory and swap together. Errors: OSError, also where it holds more already."""
        try:
            _write(f"{self.path}/memory.limit_in_bytes", memory_bytes)
        except FileNotFoundError:
            self._bound_version_2(memory_bytes)
        else:
            with contextlib.suppress(OSError):  # a kernel without swap has no such file
                _write(f"{self.path}/memory.memsw.limit_in_bytes", memory_bytes)
        self.bound_bytes = memory_bytes

    def enter(self) -> None:
        """Moves the calling thread in, which only version 1 lets it do alone. Errors: OSError."""
        for path in self._paths[len(self._doors) :]:
            self._doors.append(os.open(f"{path}/{_THREADS}", os.O_WRONLY | os.O_CLOEXEC))
        for door in self._doors:
            os.write(door, b"0")
        self.entered = True

    def _bound_version_2(self, memory_bytes: int) -> None:
        _write(f"{self.path}/memory.max", memory_bytes)
        for name, value in (("memory.swap.max", 0), ("memory.oom.group", 1)):
            with contextlib.suppress(OSError):
                _write(f"{self.path}/{name}", value)

    def add(self, pid: int) -> None:
        """Takes a process in, unless it has ended. Errors: OSError."""
        with contextlib.suppress(ProcessLookupError):
            for path in self._paths:
                _write(f"{path}/cgroup.procs", pid)

    def pids(self) -> list[int]:
        """All that is in it; zombies are not."""
        return [int(pid) for pid in cgroups.read(f"{self.path}/cgroup.procs").split()]

    def usage_bytes(self) -> int:
        """Memory and swap that are charged to it: cheap, and never too little."""
        said = (
            cgroups.read_short(f"{self.path}/memory.memsw.usage_in_bytes")
            or cgroups.read_short(f"{self.path}/memory.usage_in_bytes")  # a kernel without swap
            or cgroups.read_short(f"{self.path}/memory.current")
        )
        return int(said or 0)

    def held_bytes(self, usage_bytes: int) -> int:
        """How much of this usage the kernel cannot take back; what is shared counts once.

        Counts files in shared memory that no process has mapped.
        """
        lines = map(bytes.split, cgroups.read(f"{self.path}/memory.stat").splitlines())
        said = {name: int(value) for name, value in lines if name in _CACHE}
        cache = sum(said.get(name, said.get(name[6:], 0)) for name in _CACHE[:2])
        return max(usage_bytes - cache, 0)

    def oom_kills(self) -> int:
        """How many of its processes the kernel has killed for want of memory."""
        version_1 = cgroups.read_short(f"{self.path}/memory.oom_control")
        said = version_1 or cgroups.read_short(f"{self.path}/memory.events")
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
        while self._doors:
            os.close(self._doors.pop())
        return all(_removed(path) for path in self._paths)


class Cells:
    """All cells of one launcher, below one cgroup that it makes when the first is wanted."""

    def __init__(self, state_directory: Path) -> None:
        self._note = state_directory / NOTE
        self._root: Path | None = None
        self._twins: Path | None = None  # with version 1, where processes are counted
        self._homes: list[int] = []  # open files through which a thread leaves a cell again
        self._looked = False
        self._count = 0
        self._free: list[Cell] = []  # empty and bounded: to make one costs more than to keep it
        self._emptied: list[Cell] = []

    def open(self, memory_bytes: int, processes: int = 0) -> Cell | None:
        """An empty cell with these bounds, or with none of memory yet; see `bound_bytes`.

        None where the machine does not let us have one.
        """
        if not self._looked:
            self._look()
        if not self._root:
            return None
        for cell in self._free:
            if cell.bound_bytes == memory_bytes and cell.wanted_processes == processes:
                self._free.remove(cell)
                return cell
        self._count += 1
        twin = f"{self._twins}/{self._count}" if self._twins else ""
        cell = Cell(f"{self._root}/{self._count}", twin)
        try:
            cell.make()
        except OSError:
            cell.remove()
            return None
        cell.bound_count(processes)
        return cell

    def _look(self) -> None:
        self._looked = True
        self._root = make_root(str(os.getpid()))
        if self._root:
            self._twins = _make_twins(self._root)
            self._keep_note([str(path) for path in (self._root, self._twins) if path])
            self._homes = _homes(bool(self._twins))

    def _keep_note(self, roots: list[str]) -> None:
        self._note.unlink(missing_ok=True)
        with self._note.open("x") as note:  # a new file: no link that is there is followed
            note.write("\n".join(roots))

    @contextlib.contextmanager
    def inside(self, cell: Cell | None) -> Iterator[None]:
        """What the calling thread starts in here is born in the cell, where that can be.

        To move a thread costs microseconds; to move a process once it is there waits for the
        whole kernel to agree (milliseconds), and what it has forked must be looked for. A
        narrow cell must have no bound yet: the thread that would be in the way is our own.
        """
        with contextlib.suppress(OSError):
            if cell and self._homes:
                cell.enter()
        try:
            yield
        finally:
            for home in self._homes if cell else ():
                os.write(home, b"0")

    def path_of(self, pid: int) -> str:
        """The path of the cell that a process is in; empty where it is in none."""
        if not self._root:
            return ""
        inside = f"/{self._root.name}/"
        for each in (pid, *tree.other_threads(pid)):  # of an ended thread version 1 tells none
            after = cgroups.text(Path(f"/proc/{each}/cgroup")).partition(inside)[2]
            if after:
                return f"{self._root}/{after.partition(chr(10))[0]}"
        return ""

    def close(self, cell: Cell) -> None:
        """Keeps an emptied cell for the next attempt with its bound, or removes it.

        One in which the kernel has killed would go on saying so. One in which something is left
        (a file in /dev/shm) would charge the next attempt for it, and have no room for the launcher
        while that stands in it. What cannot be removed at once is when the kernel is done with it.
        """
        if cell.bound_bytes >= _ROOMY_BYTES and not cell.oom_kills() and _is_as_new(cell):
            cell.entered = False
            self._free.append(cell)
            if len(self._free) <= _FREE_MAX:
                return
            cell = self._free.pop(0)
        self._emptied = [each for each in [*self._emptied, cell] if not each.remove()]

    def end(self) -> None:
        """Removes all, at the end of the launcher; what is left in them keeps the note, too."""
        if self._root and _clear(self._root) and (not self._twins or _clear(self._twins)):
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
            root.mkdir(_MODE, exist_ok=True)
            _divide(root)
            trial.make()
            trial.bound(1 << 30)
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
    for root in map(Path, _noted(note)):
        if root.name.startswith(_PREFIX) and root.is_dir() and not _clear(root):
            return False
    note.unlink(missing_ok=True)
    return True


def _noted(note: Path) -> list[str]:
    """The roots that it names; none where it is a link, as whoever made that could name any."""
    with contextlib.suppress(OSError):
        file = os.open(note, os.O_RDONLY | os.O_NOFOLLOW)
        with os.fdopen(file) as noted:
            return noted.read().splitlines()
    return []


def clear_forsaken() -> None:
    """Removes the empty cgroups of launchers that are dead, whose directories nobody uses again.

    Where one still holds a process it stays: whose that is only its state directory tells.
    """
    for place in [*_places(), *_counting_places()]:
        for root in place.glob(f"{_PREFIX}*"):
            launcher = root.name.rpartition("-")[2]
            if not launcher.isdecimal() or Path(f"/proc/{launcher}").exists():
                continue
            with contextlib.suppress(OSError):  # another was faster
                for cell in [path for path in root.iterdir() if path.is_dir()]:
                    Cell(str(cell)).remove()
                Cell(str(root)).remove()


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


def _counting_places() -> list[Path]:
    """With version 1, our own cgroup where processes are counted, if that is not `_places`."""
    return [place for place in list(cgroups.own("pids"))[:1] if place not in _places()]


def _make_twins(root: Path) -> Path | None:
    """The same root where processes are counted; None where it is the same, or not allowed."""
    if (root / "cgroup.controllers").exists():
        return None  # version 2 counts them in the cell itself
    for place in _counting_places():
        twins = place / root.name
        with contextlib.suppress(OSError):
            twins.mkdir(_MODE, exist_ok=True)
            if (twins / "pids.max").exists() and (twins / _THREADS).exists():
                return twins
            twins.rmdir()
    return None


def _homes(counted: bool) -> list[int]:
    """Where a thread of this process comes back to; empty where threads can't be moved alone."""
    homes: list[int] = []
    places = [list(cgroups.own(name))[:1] for name in ("memory", *(["pids"] if counted else []))]
    for place in itertools.chain(*places):
        try:
            homes.append(os.open(f"{place}/{_THREADS}", os.O_WRONLY | os.O_CLOEXEC))
            os.write(homes[-1], b"0")
        except OSError:
            for home in homes:
                os.close(home)
            return []
    return homes


def _divide(place: Path) -> None:
    """With version 2, lets the children of a cgroup have bounds of their own. Errors: OSError."""
    control = place / "cgroup.subtree_control"
    if not control.exists():
        return
    divided = cgroups.text(control).split()
    if "memory" not in divided:
        _write(str(control), "+memory")
    if "pids" not in divided:
        with contextlib.suppress(OSError):  # then the launcher counts
            _write(str(control), "+pids")


def _is_as_new(cell: Cell) -> bool:
    """Cache may stay in it, if that leaves the launcher room without any being given up."""
    usage = cell.usage_bytes()
    if usage <= _EMPTY_BYTES:
        return True
    return usage <= cell.bound_bytes // 2 and cell.held_bytes(usage) <= _EMPTY_BYTES


def _removed(path: str) -> bool:
    try:
        os.rmdir(path)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def _write(path: str, value: int | str) -> None:
    file = os.open(path, os.O_WRONLY)
    try:
        os.write(file, str(value).encode())
    finally:
        os.close(file)
