"""A cgroup for each attempt: bounds memory and processes, shares the processor, knows who is in it.

Used by the launcher, and by the agent where a launcher has died. Standard library only. Works
with version 2 where the worker may divide its own cgroup (systemd: `Delegate=memory pids cpu` and
`DelegateSubgroup=`), and with version 1 where the memory controller is writable; there further
ones bound the processes and share the processor, where those controllers are writable too. It
must never touch a cgroup that it did not make.
"""

import contextlib
import os
import time
from collections import deque
from collections.abc import Iterable
from pathlib import Path

from banyan.worker import cell_roots, cgroups, crowd, room, tree
from banyan.worker.cell import MODE, THREADS, Cell, count, weigh, write

NOTE = "launcher.cgroup"  # in the state directory: where the launcher's cells are
# Beside the memory's: the controller, and a file that tells that it is there.
_TWINS = {"pids": "pids.max", "cpu": "cpu.shares"}
_ROOMY_BYTES = 64 << 20  # a cell that the launcher may enter while it is bounded
_FREE_MAX = 64
_EMPTY_BYTES = 1 << 20  # a cell with no more in it holds nothing of its last attempt
_BOUND_SECONDS = 1.0
_ROOM_SECONDS = 0.01
_SHARE_SECONDS = 0.025  # of each look
_START_BYTES = room.ROOMY_BYTES // 2  # free for the launcher to start a task
_WORTH_BYTES = 1 << 20
_CLEAR_SECONDS = 5.0
_LOOK_AGAIN_SECONDS = 0.01
_CROWDED_PART = 8  # crowded when no more than one in so many is left to tasks


class Cells:
    """All cells of one launcher, below one cgroup that it makes when the first is wanted."""

    def __init__(self, state_directory: Path) -> None:
        self._note = state_directory / NOTE
        self._root: Path | None = None
        self._all: Cell | None = None  # the root as one
        self._twins: dict[str, Path] = {}  # with version 1, by controller, the other roots
        self._homes: list[int] = []  # open files through which a thread leaves a cell again
        self._looked = False
        self._count = 0
        self._processes_max = 0  # of all cells together; 0: not bounded
        self._given_bytes = 0  # memory of all cells together; 0: as much as there is
        self._bound_again = 0.0
        self._room_until = 0.0  # for so long there is believed to be room
        self._making = room.Making()
        self._share_turn = 0
        self._free: list[Cell] = []  # empty and bounded: to make one costs more than to keep it
        self._emptied: list[Cell] = []

    def open(self, memory_bytes: int, processes: int = 0, cores: float = 1.0) -> Cell | None:
        """An empty cell with these bounds, or with none of memory yet; see `bound_bytes`.

        cores: its share of a busy processor. None where the machine does not let us have one.
        """
        if not self._looked:
            self._look()
        if not self._root:
            return None
        cell = self._reused(memory_bytes, processes) or self._made(processes)
        if cell:
            cell.weigh(cores)
        return cell

    def _reused(self, memory_bytes: int, processes: int) -> Cell | None:
        for cell in self._free:
            if cell.bound_bytes == memory_bytes and cell.wanted_processes == processes:
                self._free.remove(cell)
                return cell
        return None

    def _made(self, processes: int) -> Cell | None:
        self._count += 1
        twins = {name: f"{root}/{self._count}" for name, root in self._twins.items()}
        cell = Cell(f"{self._root}/{self._count}", twins)
        try:
            cell.make()
        except OSError:
            cell.remove()
            return None
        cell.bound_count(processes)
        return cell

    def _look(self) -> None:
        self._looked = True
        self._root = make_root(cell_roots.name_of(os.getpid()))
        if self._root:
            self._twins = _make_twins(self._root)
            self.note()
            self._all = Cell(str(self._root))
            self._homes = _homes(["memory", *(name for name in self._twins if name != "cpu")])
            self._share()

    def note(self) -> None:
        """Says in the state directory where they are, if there are any. Errors: OSError."""
        if self._root:
            self._keep_note([str(path) for path in self._roots()])

    def _roots(self) -> list[Path]:
        return list(dict.fromkeys([*([self._root] if self._root else []), *self._twins.values()]))

    def _root_of(self, controller: str) -> str:
        return str(self._twins.get(controller, self._root))

    def _share(self) -> None:
        """Leaves processes, and a part of the processor, to all that is no task's.

        All tasks together weigh as much as one process on each core would that is in no cell.
        """
        with contextlib.suppress(OSError):
            weigh(self._root_of("cpu"), len(os.sched_getaffinity(0)))
        with contextlib.suppress(OSError, ValueError, IndexError):  # what /proc says may be no use
            most = crowd.processes_left()
            write(f"{self._root_of('pids')}/pids.max", most)
            self._processes_max = most

    def give(self, memory_bytes: int) -> None:
        """How much memory tasks may have together, with what earlier ones have left; 0: any."""
        if memory_bytes != self._given_bytes:
            self._given_bytes = memory_bytes
            self._bound_again = 0.0
        self.bound_all()

    def bound_all(self) -> None:
        """Sets the bound of all cells together, now and then: what others leave changes."""
        if not self._all or not self._given_bytes or time.monotonic() < self._bound_again:
            return
        if self._making.is_under_way:  # by the same file of the kernel, which would have us wait
            return
        self._bound_again = time.monotonic() + _BOUND_SECONDS
        wanted = room.bytes_for(self._all, self._given_bytes)
        if abs(wanted - self._all.bound_bytes) >= _WORTH_BYTES:
            with contextlib.suppress(OSError):  # they have more already, and keep it
                self._all.bound(wanted, all_at_once=False)

    def share(self, running: Iterable[Cell]) -> None:
        """Lets those that have stayed for a while share the processor; for a bounded time in all.

        A move waits for forks that are under way, and keeps others waiting. Each time another one
        is the first, as of some there is always more to move.
        """
        until = time.monotonic() + _SHARE_SECONDS
        waiting = deque(cell for cell in running if not cell.shares)
        self._share_turn += 1
        waiting.rotate(self._share_turn)
        for cell in waiting:
            if time.monotonic() > until:
                return
            cell.share(until)

    @property
    def whole(self) -> Cell | None:
        """All of them as one; None where there are none."""
        return self._all

    def have_room(self) -> bool:
        """Whether a task can be started in one: the launcher stands among them while it does that.

        With a little room only it would be the one whom the kernel chooses.
        """
        if not self._all or not self._all.bound_bytes or time.monotonic() < self._room_until:
            return True
        most = self._all.bound_bytes - _START_BYTES
        usage = self._all.usage_bytes()
        found = usage <= most or self._all.held_bytes(usage) <= most
        self._room_until = time.monotonic() + _ROOM_SECONDS * found
        if not found:
            self._making.begin(self._all, _START_BYTES)
        return found

    def are_crowded(self) -> bool:
        """Whether so many processes are in all of them that others may soon not be startable."""
        most = self._processes_max
        return most > 0 and count(self._root_of("pids")) > most - most // _CROWDED_PART

    def _keep_note(self, roots: list[str]) -> None:
        self._note.unlink(missing_ok=True)
        with self._note.open("xb") as note:  # a new file: no link that is there is followed
            note.write(os.fsencode("\n".join(roots)))

    def enter(self, cell: Cell | None) -> None:
        """What the calling thread starts until `leave` is born in the cell, where that can be.

        To move a thread costs microseconds; to move a process once it is there waits for the
        whole kernel to agree (milliseconds), and what it has forked must be looked for. A
        narrow cell must have no bound yet: the thread that would be in the way is our own.
        """
        if cell and self._homes:
            with contextlib.suppress(OSError):
                cell.enter()

    def leave(self, cell: Cell | None) -> None:
        """Goes back to where the launcher is at home, also where `enter` came only half way."""
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

    def close(self, cell: Cell, is_clean: bool = False) -> None:
        """Keeps an emptied cell for the next attempt with its bound, or removes it.

        is_clean: it is known that no process is left in it, and none was killed by the kernel.

        One in which the kernel has killed would go on saying so. One in which something is left
        (a file in /dev/shm) would charge the next attempt for it, and have no room for the launcher
        while that stands in it. A process that is left (it cannot go) would be the next attempt's.
        What cannot be removed at once is when the kernel is done with it.
        """
        is_clean = is_clean or (not cell.oom_kills() and not cell.pids())
        if is_clean and _is_roomy(cell) and _is_as_new(cell):
            cell.renew()
            self._free.append(cell)
            if len(self._free) <= _FREE_MAX:
                return
            cell = self._free.pop(0)
        self._emptied = [each for each in [*self._emptied, cell] if not each.remove()]

    def end(self) -> None:
        """Removes all, at the end of the launcher; what is left in them keeps the note, too."""
        cleared = [_clear(root) for root in self._roots()]
        if self._root and all(cleared) and str(self._root) in _noted(self._note):
            self._note.unlink(missing_ok=True)


def available() -> bool:
    """Whether a launcher started from here could have cells."""
    root = make_root(f"try-{cell_roots.name_of(os.getpid())}")
    return root is not None and _clear(root)


def make_root(name: str) -> Path | None:
    """A cgroup below our own whose children can bound memory; None where that is not allowed."""
    for place in _places():
        root = place / f"{cell_roots.PREFIX}{name}"
        trial = Cell(f"{root}/trial")
        try:
            _divide(place)
            root.mkdir(MODE)
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
    """Kills all that a dead launcher's cells hold, and removes them; whether nothing is left.

    What may be of one that lives stays, and so does the note.
    """
    note = state_directory / NOTE
    roots = [root for root in map(Path, _noted(note)) if root.is_dir()]
    if not all(cell_roots.is_of_dead(root.name) for root in roots):
        return False
    for root in roots:
        with contextlib.suppress(OSError):  # none of them forks away then
            write(f"{root}/pids.max", 0)
    for root in roots:
        if not _clear(root):
            return False
    note.unlink(missing_ok=True)
    return True


def _noted(note: Path) -> list[str]:
    """The roots that it names; none where it is a link, as whoever made that could name any."""
    with contextlib.suppress(OSError):
        file = os.open(note, os.O_RDONLY | os.O_NOFOLLOW)
        with os.fdopen(file, "rb") as noted:
            return list(filter(None, os.fsdecode(noted.read()).split("\n")))
    return []


def clear_forsaken() -> None:
    """Removes the empty cgroups of launchers that are dead, whose directories nobody uses again.

    Where one still holds a process it stays: whose that is only its state directory tells.
    """
    for place in dict.fromkeys([*_places(), *_twin_places().values()]):
        for root in place.glob(f"{cell_roots.PREFIX}*"):
            if not cell_roots.is_of_dead(root.name):
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


def _twin_places() -> dict[str, Path]:
    """With version 1, our own cgroups by further controllers, where those are not `_places`."""
    places = {name: place for name in _TWINS for place in list(cgroups.own(name))[:1]}
    return {name: place for name, place in places.items() if place not in _places()}


def _make_twins(root: Path) -> dict[str, Path]:
    """The same root for further controllers; none where they are the same, or not allowed."""
    if (root / "cgroup.controllers").exists():
        return {}  # version 2 has all in the cell itself
    found = {}
    for name, place in _twin_places().items():
        twin = place / root.name
        with contextlib.suppress(OSError):
            twin.mkdir(MODE, exist_ok=True)
            if (twin / _TWINS[name]).exists() and (twin / THREADS).exists():
                found[name] = twin
            else:
                twin.rmdir()
    return found


def _homes(controllers: list[str]) -> list[int]:
    """Where a thread of this process comes back to; empty where threads can't be moved alone."""
    homes: list[int] = []
    places = [place for name in controllers for place in list(cgroups.own(name))[:1]]
    for place in dict.fromkeys(places):
        try:
            homes.append(os.open(f"{place}/{THREADS}", os.O_WRONLY | os.O_CLOEXEC))
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
        write(str(control), "+memory")
    for name in _TWINS:
        if name not in divided:
            with contextlib.suppress(OSError):  # then the launcher counts, and nobody shares
                write(str(control), f"+{name}")


def _is_roomy(cell: Cell) -> bool:
    return not cell.bound_bytes or cell.bound_bytes >= _ROOMY_BYTES


def _is_as_new(cell: Cell) -> bool:
    """Cache may stay in it, if that leaves the launcher room without any being given up."""
    usage = cell.usage_bytes()
    if usage <= _EMPTY_BYTES:
        return True
    bound = cell.bound_bytes or 2 * usage
    return usage <= bound // 2 and cell.held_bytes(usage) <= _EMPTY_BYTES
