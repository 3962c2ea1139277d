"""How much memory and time a tree of processes uses, read from /proc.

Called by the launcher a few times a second for each attempt that lives so long. Standard
library only. What is held is what the kernel cannot give up: its own and shared memory, and not
the pages of files that are mapped, libraries among them. Pages that processes share are counted
once where that decides something. To count them so takes the kernel time for each page of each
process, and a process can keep others from it: `Looks` must never hold up the loop for longer than
one process takes, and that not often.
"""

import os
import re
import time
from collections.abc import Hashable, Iterable
from typing import NamedTuple

from banyan.worker import tree
from banyan.worker.process_reader import ANSWER_SECONDS, ProcessReader, Question

_TICKS = os.sysconf("SC_CLK_TCK")
_TURN_SECONDS = 0.05  # for looking at processes, in one turn of the loop
_REST = 4  # times as long as it took, before the next look
_GIANT_BYTES = 16 << 30  # of which one look may take a second
_BYTES_IN_A_SECOND = 4 << 30  # are looked at however slow the machine is


def resident_bytes(pids: Iterable[int]) -> int:
    """All that is resident, files too, what is shared counted for each process."""
    return sum(each.resident for each in map(_status, pids))


def held_bytes(pids: Iterable[int]) -> int:
    """What is held, without swap, what is shared counted for each: cheap, and never too little."""
    return sum(each.held for each in map(_status, pids))


def virtual_bytes(pids: Iterable[int]) -> int:
    """Address space."""
    return sum(each.virtual for each in map(_status, pids))


def largest_bytes(pids: Iterable[int]) -> tuple[int, int]:
    """The most that one of them holds, and the most that none but its family can share."""
    every = [*map(_status, pids)]
    held = max((each.held for each in every), default=0)
    return held, max((each.anonymous for each in every), default=0)


class Seen(NamedTuple):
    """What a tree holds, swap included, what is shared counted once; whole: of all of it."""

    size: int
    whole: bool


class Looks:
    """At the memory of trees, each over as many turns of the loop as it takes, in fair shares."""

    def __init__(self, reader: ProcessReader) -> None:
        self._reader = reader
        self._unfinished: dict[Hashable, _Look] = {}  # who is looked at next is first
        self._done: dict[Hashable, _Look] = {}
        self._asked: set[Hashable] = set()
        self._spent_seconds = 0.0
        self._rest_until = 0.0

    def begin_turn(self) -> None:
        """Goes on with what the last turn left, less those for whom nobody asked again."""
        if time.monotonic() >= self._rest_until:
            self._spent_seconds = 0.0
        self._done.clear()
        for key in self._unfinished.keys() - self._asked:
            del self._unfinished[key]
        self._asked.clear()
        self._go_on()

    def at(self, key: Hashable, pids: Iterable[int]) -> Seen:
        """What is seen of a tree by now.

        Once it has been seen whole this stands for the turn; in a later one it is looked at anew.
        """
        self._asked.add(key)
        if key not in self._unfinished and key not in self._done:
            self._unfinished[key] = _Look(pids, self._reader)
            self._go_on()
        whole = key in self._done
        return Seen((self._done if whole else self._unfinished)[key].size(), whole)

    def is_unfinished(self, key: Hashable) -> bool:
        """Whether one that was begun in an earlier turn goes on, or is only now done."""
        return key in self._unfinished or key in self._done

    def _go_on(self) -> None:
        while self._unfinished and self._spent_seconds < _TURN_SECONDS:
            began = time.monotonic()
            key = next(iter(self._unfinished))
            look = self._unfinished.pop(key)
            (self._unfinished if look.go_on() else self._done)[key] = look
            now = time.monotonic()
            self._spent_seconds += now - began
            self._rest_until = now + _REST * self._spent_seconds


class _Look:
    """At one tree.

    Of a process that cannot be read all counts that it holds, what it shares too: whoever
    closes its memory to others has the disadvantage. Where nobody can be asked at the moment, as
    others have closed theirs, a process is no worse off than a giant.
    """

    def __init__(self, pids: Iterable[int], reader: ProcessReader) -> None:
        self._reader = reader
        self._left = list(pids)
        self._found: dict[int, int] = {}
        self._unknown: list[int] = []  # giants, and those of whom nobody could be asked

    def go_on(self) -> bool:
        """Looks at one more process; False when there is none left."""
        if self._left:
            pid = self._left.pop()
            said = _status(pid)
            found = None
            if said.resident <= _GIANT_BYTES:
                found = _proportional_bytes(pid, said, self._reader)
            if found is None and self._reader.is_unreadable(pid):
                found = said.held
            if found is None:
                self._unknown.append(pid)
            else:
                self._found[pid] = found
        return bool(self._left)

    def size(self) -> int:
        """Of those looked at which live yet: who shared with one that has ended has more now.

        Of the unknown the largest counts alone: the others may share all with it.
        """
        known = sum(size for pid, size in self._found.items() if _status(pid).virtual)
        return known + largest_bytes(self._unknown)[0]


def cpu_seconds(pids: Iterable[int]) -> float:
    """Time used by these and by their children that have ended and were waited for."""
    total = 0
    for pid in pids:
        after_name = _read(pid, "stat").rpartition(b")")[2].split()
        total += sum(map(int, after_name[11:15]))
    return total / _TICKS


def _proportional_bytes(pid: int, said: "_Status", reader: ProcessReader) -> int | None:
    """None: nobody can be asked, or it cannot be read."""
    if not said.virtual:
        return 0
    seconds = ANSWER_SECONDS + said.resident / _BYTES_IN_A_SECOND
    answer = reader.ask(Question.PROPORTIONAL, pid, said.held + said.swapped, seconds)
    if answer is None:
        return None
    return int(answer) or said.anonymous  # no such file in old kernels


class _Status(NamedTuple):
    """Bytes of one process. Zeros where it is gone, has ended or has no memory.

    anonymous: its own, and nobody's but its family's; shmem: what it has mapped of shared memory.
    """

    virtual: int = 0
    resident: int = 0
    anonymous: int = 0
    shmem: int = 0
    swapped: int = 0

    @property
    def held(self) -> int:
        return self.anonymous + self.shmem


_NAMES = (b"VmSize", b"VmRSS", b"RssAnon", b"RssShmem", b"VmSwap")  # in the order of _Status
# From the beginning of a line: a process may give itself a name that looks like another line, but
# the kernel writes no newline of a name as it is.
_SIZES = re.compile(rb"\n(%s):\s*([0-9]+) kB" % b"|".join(_NAMES))


def _status(pid: int) -> _Status:
    """Of a process whose first thread has ended another thread tells; all share their memory."""
    said = _told_status(pid)
    if said is None or said.virtual:
        return said or _Status()
    others = map(_told_status, tree.other_threads(pid))
    return next((each for each in others if each and each.virtual), _Status())


def _told_status(pid: int) -> _Status | None:
    text = _read(pid, "status")
    if not text:
        return None
    said = dict(_SIZES.findall(text))
    said.setdefault(b"RssAnon", said.get(b"VmRSS", b"0"))  # where files are not told apart
    return _Status(*(1024 * int(said.get(name, 0)) for name in _NAMES))


def _read(pid: int, name: str) -> bytes:
    try:
        with open(f"/proc/{pid}/{name}", "rb", buffering=0) as file:
            return file.readall()
    except OSError:  # it has ended meanwhile
        return b""
