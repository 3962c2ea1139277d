"""Who descends from whom, read from /proc.

Used by the launcher and, when a launcher has died, by the agent. Standard library only.
What it reads may be out of date when it returns: callers look again until nothing is left.
"""

import functools
import os
import signal
import threading
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from banyan.worker import cgroups

ATTEMPT_VARIABLE = "BANYAN_ATTEMPT"
WORKER_VARIABLE = "BANYAN_WORKER_ID"

ENVIRONMENT_BYTES_MAX = 6 << 20  # the kernel starts no process with more

_FOUND_MAX = 1 << 15
_PART_BYTES = 1 << 16
_VARIABLE_BYTES_MAX = 512  # longer than any mark, with its name
_PF_EXITING = 0x4  # of the kernel's flags of a thread
_SIGKILL_BIT = 1 << (signal.SIGKILL - 1)
_HAS_CHILDREN_FILE = os.path.exists(f"/proc/self/task/{threading.get_native_id()}/children")


def children(pid: int) -> list[int]:
    """The processes whose parent is `pid` (a subreaper's adopted ones too), zombies included."""
    return _children_listed(pid) if _HAS_CHILDREN_FILE else _children_by_scan(pid)


def own_children() -> list[int]:
    """The same of the calling process. Its first thread must have all, where that one calls."""
    thread = threading.get_native_id()
    if not _HAS_CHILDREN_FILE or thread != os.getpid():
        return children(os.getpid())
    file, said = _own_children_file(thread), b""
    while part := os.pread(file, _PART_BYTES, len(said)):
        said += part
    return [int(pid) for pid in said.split()]


@functools.cache
def _own_children_file(thread: int) -> int:
    """It stays open, as the launcher looks at it at the end of each task."""
    return os.open(f"/proc/self/task/{thread}/children", os.O_RDONLY | os.O_CLOEXEC)


def descendants(roots: Iterable[int]) -> list[int]:
    """The given processes and everything below them, parents first.

    A tree that grows faster than it is walked is cut at some ten thousands.
    """
    found = list(dict.fromkeys(roots))
    seen = set(found)
    for pid in found:  # grows while it is walked
        if len(found) > _FOUND_MAX:
            break
        for child in children(pid):
            if child not in seen:
                seen.add(child)
                found.append(child)
    return found


class Birth(NamedTuple):
    """A process, told from a later one of the same number by when it was started."""

    group: int
    session: int
    ticks: int


def birth_of(pid: int) -> Birth:
    """Its process group, its session and its start; zeros where it is gone."""
    fields = _stat(pid)
    return Birth(int(fields[2]), int(fields[3]), int(fields[19])) if fields else Birth(0, 0, 0)


def user_group_of(pid: int) -> int:
    """The group as which it acts (not its process group); 0 where it is gone."""
    return _acts_as(pid, b"\nGid:")


def user_of(pid: int) -> int:
    """The user as whom it acts; 0 where it is gone."""
    return _acts_as(pid, b"\nUid:")


def room_for_files(pid: int) -> int:
    """For how many open files its table has room; 0 where it is gone."""
    return _status(pid, b"\nFDSize:", 0)


def _acts_as(pid: int, name: bytes) -> int:
    return _status(pid, name, 1)


def _status(pid: int, name: bytes, place: int) -> int:
    """A number of a line; 0 where the process is gone."""
    try:
        with open(f"/proc/{pid}/status", "rb", buffering=0) as status:
            return int(status.readall().partition(name)[2].split()[place])
    except (OSError, IndexError):
        return 0


def ended(pid: int) -> bool:
    """True where it is gone, or a zombie that only waits for its parent.

    One whose first thread alone has ended looks like a zombie, and lives.
    """
    fields = _stat(pid)
    return not fields or _is_over(fields)


def spent(pid: int) -> bool:
    """True where it is gone, or has given back all that it had, and waits for others to go.

    A zombie waits for whoever traces it. The first process of a PID namespace waits for all that
    are in there, whosever they are and wherever they came from. Who still frees memory or closes a
    device does not look like that: it works, or cannot be interrupted.
    """
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return True
    return all(_has_nothing(_stat(int(thread))) for thread in threads)


def cannot_be_interrupted(pid: int) -> bool:
    """Whether it waits in the kernel for something to come."""
    return _stat(pid)[:1] == [b"D"]


def is_killed(pid: int) -> bool:
    """Whether it only lives on for as long as the kernel holds it: it ends, or SIGKILL waits."""
    fields = _stat(pid)
    if fields and int(fields[6]) & _PF_EXITING:
        return True
    try:
        with open(f"/proc/{pid}/status", "rb", buffering=0) as status:
            said = status.readall()
    except OSError:
        return False
    pending = [said.partition(name)[2].split(b"\n")[0] for name in (b"\nSigPnd:", b"\nShdPnd:")]
    return any(int(each or b"0", 16) & _SIGKILL_BIT for each in pending)


def _has_nothing(stat: list[bytes]) -> bool:
    """Whether a thread has let go of its memory, and of all else."""
    if not stat or stat[0] in (b"Z", b"X"):
        return True
    exiting = bool(int(stat[6]) & _PF_EXITING)
    return exiting and stat[0] == b"S" and int(stat[20]) == 0


def other_threads(pid: int) -> list[int]:
    """Where the first thread of a process has ended: the others, the newest first.

    The kernel shows neither memory nor environment nor open files below /proc/<pid> then, but
    below /proc/<thread>. Empty for all other processes, of which nothing but the state is read.
    """
    fields = _stat(pid)
    if not fields or fields[0] != b"Z" or _is_over(fields):
        return []
    try:
        return sorted((int(thread) for thread in os.listdir(f"/proc/{pid}/task")), reverse=True)
    except OSError:
        return []


def variables_of(
    pid: int, names: Sequence[str], most: int = ENVIRONMENT_BYTES_MAX
) -> tuple[dict[str, bytes], int]:
    """Of these variables those with which the process was started; how many bytes were read.

    most: so many are read at most. Values that are long are left out. What is read is memory of the
    process's choice, and may let whoever reads it wait for ever: see `process_reader`.
    """
    found, spent = _variables_of(pid, names, most)
    for thread in other_threads(pid) if not spent else ():
        found, spent = _variables_of(thread, names, most)
        if spent:
            break
    return found, spent


def _variables_of(pid: int, names: Sequence[str], most: int) -> tuple[dict[str, bytes], int]:
    left = {name: f"\0{name}=".encode() for name in names}
    found: dict[str, bytes] = {}
    spent, window = 0, b"\0"
    for part in _environment(pid, min(most, ENVIRONMENT_BYTES_MAX)):
        spent += len(part)
        window = window[-_VARIABLE_BYTES_MAX:] + (part or b"\0")
        for name, prefix in list(left.items()):
            _, here, after = window.partition(prefix)
            value, ends, _ = after.partition(b"\0")
            if here and ends:
                del left[name]
                if len(value) < _VARIABLE_BYTES_MAX:
                    found[name] = value
        if not left:
            break
    return found, spent


def _environment(pid: int, most: int) -> Iterator[bytes]:
    """In parts; empty is the last one, where it was read to its end."""
    try:
        with open(f"/proc/{pid}/environ", "rb", buffering=0) as environment:
            while most > 0:
                part = environment.read(min(most, _PART_BYTES)) or b""
                most -= len(part)
                yield part
                if not part:
                    break
    except OSError:
        return


def everybody() -> list[int]:
    """All processes of the machine that can be seen from here."""
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def _children_listed(pid: int) -> list[int]:
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return []
    found: list[int] = []
    for thread in threads:
        found += _listed(f"/proc/{pid}/task/{thread}/children")
    return found


def _listed(path: str) -> list[int]:
    return [int(pid) for pid in cgroups.read(path).split()]


def _children_by_scan(pid: int) -> list[int]:
    """The same for a kernel that keeps no list."""
    wanted = str(pid).encode()
    return [other for other in everybody() if (fields := _stat(other)) and fields[1] == wanted]


def _is_over(stat: list[bytes]) -> bool:
    """Whether a process has ended with all its threads; the ended first one is counted."""
    return stat[0] in (b"Z", b"X") and int(stat[17]) <= 1


def _stat(pid: int) -> list[bytes]:
    """The fields of /proc/<pid>/stat after the name: state, parent, group, session, ..."""
    try:
        with open(f"/proc/{pid}/stat", "rb", buffering=0) as stat:
            return stat.readall().rpartition(b")")[2].split()
    except OSError:
        return []
