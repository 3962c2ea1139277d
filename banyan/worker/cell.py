"""The cgroup of one attempt: its bounds, its share of the processor, its processes, its end.

Made by `cells.Cells`. Standard library only. With version 1 each controller has a hierarchy of its
own: a cell is then a cgroup in each, and its memory's is the one that knows its processes. Only
who stays for a while comes into the processor's: a launcher that stood in there would lose its turn
at each start.
"""

import contextlib
import os
import resource
import signal
import time
from collections.abc import Mapping

from banyan.worker import cgroups

THREADS = "tasks"  # of version 1; the number 0 is who writes it
MODE = 0o755  # whatever the umask: in a group of its own making a task would be out of sight
SHARES, WEIGHT = 1024, 100  # of one core, in version 1 and 2
SHARES_MAX, WEIGHT_MAX = 1 << 18, 10_000
# So many that each of thousands of cells may keep its own open, to be entered sooner the next time.
_HAS_MANY_FILES = resource.getrlimit(resource.RLIMIT_NOFILE)[1] >= 8192
_SAID_BYTES_MAX = 1 << 14
_NEXT_BYTES = 1 << 20  # more than what the kernel could not add any more
# Pages of files that the kernel gives up before it kills, in version 1 and 2.
_CACHE = (b"total_active_file", b"total_inactive_file", b"active_file", b"inactive_file")
# Those of files in memory, some of which version 1 may have swapped out.
_SHARED = (b"total_shmem", b"total_swap", b"shmem", b"swap")


class Cell:
    """The cgroup of one attempt."""

    def __init__(self, path: str, twins: Mapping[str, str] | None = None) -> None:
        """twins: with version 1, by controller, where else it is to be."""
        self.path = path
        self._twins = twins or {}
        self._paths = list(dict.fromkeys([path, *self._twins.values()]))
        first = [path, *(each for name, each in self._twins.items() if name != "cpu")]
        self._first_paths = list(dict.fromkeys(first))  # those that processes are born in
        self._doors: list[int] = []  # open files through which a thread comes in
        self._windows: dict[str, int] = {}  # by path, open files through which is looked in
        self._keeps_open = False
        self.entered = False  # what the launcher started was born in it
        self.bound_bytes = 0  # of its memory; 0: none
        self.wanted_processes = 0
        self.bound_processes = 0  # threads included; 0: none
        self._is_sealed = False
        self._cores = 1.0
        self.shares = self._paths == self._first_paths  # the processor, with all that is in it

    def make(self) -> None:
        """Makes it. Errors: OSError."""
        for path in self._paths:
            os.mkdir(path, MODE)
        self._keeps_open = _HAS_MANY_FILES  # until it is removed

    def bound_count(self, processes: int) -> None:
        """Bounds the number of processes and threads, where that can be: they can't fork then.

        The launcher's thread is among them while it starts the first.
        """
        self.wanted_processes = processes
        if processes and self._bound_count(max(processes, 2)):
            self.bound_processes = processes

    def _bound_count(self, most: int | str) -> bool:
        with contextlib.suppress(OSError):
            write(f"{self._twins.get('pids', self.path)}/pids.max", most)
            return True
        return False

    def weigh(self, cores: float) -> None:
        """Gives it its share of a busy processor, where that can be: never less than one core's."""
        cores = max(cores, 1.0)
        if cores != self._cores:
            with contextlib.suppress(OSError):
                weigh(self._twins.get("cpu", self.path), cores)
                self._cores = cores

    def bound(self, memory_bytes: int, all_at_once: bool = True) -> None:
        """Bounds memory and swap together. Errors: OSError, also where it holds more already.

        all_at_once: the kernel, where it can, kills all in it when it kills one.
        """
        try:
            if 0 < self.bound_bytes < memory_bytes:
                self._bound_with_swap(memory_bytes)  # never less than without
            write(f"{self.path}/memory.limit_in_bytes", memory_bytes)
        except FileNotFoundError:
            self._bound_version_2(memory_bytes, all_at_once)
        else:
            self._bound_with_swap(memory_bytes)
        self.bound_bytes = memory_bytes

    def _bound_with_swap(self, memory_bytes: int) -> None:
        with contextlib.suppress(OSError):  # a kernel without swap has no such file
            write(f"{self.path}/memory.memsw.limit_in_bytes", memory_bytes)

    def make_room(self, size_bytes: int) -> bool:
        """Has the kernel give up caches until so much of the bound is free; whether it could.

        It keeps what a task has looked for in directories, also where there was nothing, and
        does not tell that from what it cannot give up. Takes it seconds at worst.
        """
        try:
            write(f"{self.path}/memory.limit_in_bytes", self.bound_bytes - size_bytes)
            write(f"{self.path}/memory.limit_in_bytes", self.bound_bytes)
        except FileNotFoundError:  # also where it has been removed meanwhile
            return self._make_room_version_2(size_bytes)
        except OSError:
            return False
        return True

    def _make_room_version_2(self, size_bytes: int) -> bool:
        wanted = self.usage_bytes() + size_bytes - self.bound_bytes
        try:
            write(f"{self.path}/memory.reclaim", max(wanted, 0))
        except OSError:
            return False
        return True

    def enter(self) -> None:
        """Moves the calling thread in, which only version 1 lets it do alone. Errors: OSError.

        Not to where it shares the processor: see `share`.
        """
        for path in self._first_paths[len(self._doors) :]:
            self._doors.append(os.open(f"{path}/{THREADS}", os.O_WRONLY | os.O_CLOEXEC))
        for door in self._doors:
            os.write(door, b"0")
        self.entered = True
        if not _HAS_MANY_FILES:
            self._close_doors()

    def share(self, until: float) -> None:
        """Moves all that is in it to where it shares the processor; to be called until it `shares`.

        The first of some moves waits for the kernel (ten milliseconds), the others hardly do, as
        long as few processes are forked. What is forked meanwhile by what has not been moved comes
        next.
        until: when to leave the others to the next call, by `time.monotonic`.
        """
        path = self._twins["cpu"]
        there = set(_threads(path))
        left = [thread for thread in _threads(self.path) if thread not in there]
        for thread in left:
            if time.monotonic() > until:
                return
            with contextlib.suppress(OSError):  # it has ended
                write(f"{path}/{THREADS}", thread.decode())
        self.shares = not left

    def _said(self, path: str) -> bytes:
        """What one of its files says that each attempt is asked for: to open it costs most."""
        if not self._keeps_open:
            return cgroups.read_short(path)
        try:
            if path not in self._windows:
                self._windows[path] = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            return os.pread(self._windows[path], _SAID_BYTES_MAX, 0)
        except OSError:
            return b""

    def _close_doors(self) -> None:
        while self._doors:
            os.close(self._doors.pop())

    def _bound_version_2(self, memory_bytes: int, all_at_once: bool) -> None:
        write(f"{self.path}/memory.max", memory_bytes)
        for name, value in (("memory.swap.max", 0), ("memory.oom.group", int(all_at_once))):
            with contextlib.suppress(OSError):
                write(f"{self.path}/{name}", value)

    def add(self, pid: int) -> None:
        """Takes a process in, unless it has ended. Errors: OSError."""
        with contextlib.suppress(ProcessLookupError):
            for path in self._paths:
                write(f"{path}/cgroup.procs", pid)

    def pids(self) -> list[int]:
        """All that is in it; zombies are not."""
        if self._counted() == b"0\n":
            return []  # most often, when it is asked
        return [int(pid) for pid in cgroups.read(f"{self.path}/cgroup.procs").split()]

    def count(self) -> int:
        """How many processes and threads are in it; 0 where the kernel does not count them."""
        return int(self._counted() or 0)

    def _counted(self) -> bytes:
        return self._said(f"{self._twins.get('pids', self.path)}/pids.current")

    def usage_bytes(self) -> int:
        """Memory and swap that are charged to it: cheap, and never too little."""
        said = (
            self._said(f"{self.path}/memory.memsw.usage_in_bytes")
            or self._said(f"{self.path}/memory.usage_in_bytes")  # a kernel without swap
            or self._said(f"{self.path}/memory.current")
        )
        return int(said or 0)

    def held_bytes(self, usage_bytes: int) -> int:
        """How much of this usage the kernel cannot take back; what is shared counts once.

        Counts files in shared memory that no process has mapped.
        """
        return max(usage_bytes - self._sum_of(_CACHE), 0)

    def held_bytes_now(self) -> int:
        """The same of its present usage."""
        return self.held_bytes(self.usage_bytes())

    def shared_bytes(self) -> int:
        """What files in memory take, mapped or not; with version 1 also all that is in swap."""
        return self._sum_of(_SHARED)

    def _sum_of(self, names: tuple[bytes, ...]) -> int:
        """As the kernel tells of it: with version 1 the first half has what is below, too."""
        lines = map(bytes.split, cgroups.read(f"{self.path}/memory.stat").splitlines())
        said = {name: int(value) for name, value in lines if name in names}
        return sum(said.get(name, said.get(name[6:], 0)) for name in names[: len(names) // 2])

    def has_hit_bound(self) -> bool:
        """Whether its own bound of memory was reached; else the one of a cgroup above was."""
        events = cgroups.read_short(f"{self.path}/memory.events")
        if events:
            return int(events.partition(b"\noom ")[2].partition(b"\n")[0] or 0) > 0
        limit = int(cgroups.read_short(f"{self.path}/memory.limit_in_bytes") or 0)
        peaks = [
            int(cgroups.read_short(f"{self.path}/{name}.max_usage_in_bytes") or 0)
            for name in ("memory", "memory.memsw")
        ]
        return 0 < limit <= max(peaks) + _NEXT_BYTES

    def oom_kills(self) -> int:
        """How many of its processes the kernel has killed for want of memory."""
        version_1 = self._said(f"{self.path}/memory.oom_control")
        said = version_1 or self._said(f"{self.path}/memory.events")
        after = said.partition(b"oom_kill ")[2].split()
        return int(after[0]) if after else 0

    def kill(self) -> None:
        """SIGKILL to all that is in it, at one stroke or so that none forks away: see `renew`."""
        try:
            write(f"{self.path}/cgroup.kill", 1)
        except OSError:
            self._is_sealed = self._is_sealed or self._bound_count(0)
            for number in (signal.SIGSTOP, signal.SIGKILL)[self._is_sealed :]:
                for pid in self.pids():
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, number)

    def renew(self) -> None:
        """Once it is empty: there may be processes in it again, also after `kill`."""
        self.entered = False
        self.shares = self._paths == self._first_paths
        if self._is_sealed:
            self._bound_count(max(self.wanted_processes, 2) if self.wanted_processes else "max")
            self._is_sealed = False

    def remove(self) -> bool:
        """Removes it, if it is empty."""
        self._close_doors()
        self._keeps_open = False
        while self._windows:
            os.close(self._windows.popitem()[1])
        return all(_removed(path) for path in self._paths)


def _threads(path: str) -> list[bytes]:
    return cgroups.read(f"{path}/{THREADS}").split()


def weigh(path: str, cores: float) -> None:
    """The share of a cgroup in a busy processor. Errors: OSError."""
    try:
        write(f"{path}/cpu.shares", min(int(cores * SHARES), SHARES_MAX))
    except FileNotFoundError:
        write(f"{path}/cpu.weight", min(int(cores * WEIGHT), WEIGHT_MAX))


def count(path: str) -> int:
    """The processes and threads in a cgroup and below; 0 where the kernel does not count them."""
    return int(cgroups.read_short(f"{path}/pids.current") or 0)


def write(path: str, value: int | str) -> None:
    """To a file of the kernel. Errors: OSError."""
    file = os.open(path, os.O_WRONLY)
    try:
        os.write(file, str(value).encode())
    finally:
        os.close(file)


def _removed(path: str) -> bool:
    try:
        os.rmdir(path)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True
