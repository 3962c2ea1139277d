"""Tasks that keep the processors busy slow down neither other tasks nor who looks after them.

What storms here is small, and gives up by itself after a few seconds.
"""

import os
import signal
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from banyan.worker import agent, cell, cells, cgroups, orphans, running, tree, wire
from banyan.worker.link import Link
from banyan.worker.process_reader import ProcessReader
from banyan.worker.running import Running
from banyan.worker.timers import Timers, now
from tests.harness import eventually
from tests.worker.launched import Launched, carrying
from tests.worker.test_launcher_memory import NEEDS_CGROUP

MIB = 1 << 20
SECONDS = 20
# Processes that fork the next and end, and one that stays: what kills them must be faster.
CHAINS = f"""
import os, time
until = time.monotonic() + {SECONDS}
for _ in range(20):
    if os.fork() == 0:
        os.setsid()
        while time.monotonic() < until:
            try:
                if os.fork():
                    os._exit(0)
            except OSError:
                time.sleep(0.001)
        os._exit(0)
os.write(1, b"all")
time.sleep({SECONDS})
"""
# Its first thread ends alone.
THREADS = f"""
import ctypes, os, threading, time
for _ in range(3):
    threading.Thread(target=time.sleep, args=({SECONDS},)).start()
os.write(1, b"all")
ctypes.CDLL(None).pthread_exit(None)
"""


def shares() -> bool:
    """Whether the kernel shares the processor among cgroups that we may make here."""
    places = [*cgroups.own("cpu")][:1]
    return any((place / "cpu.shares").exists() and os.access(place, os.W_OK) for place in places)


KERNEL_SHARES = pytest.mark.skipif(not shares(), reason="no cgroup that shares the processor here")


def limits(cores: float = 1.0) -> dict[str, object]:
    return {
        "memory_bytes": 256 * MIB,
        "enforcement": "cgroup",
        "processes": 200,
        "cores": cores,
    }


def of_processor(thread: int) -> list[Path]:
    """The one that it is in; none where it has ended."""
    return [*cgroups.own("cpu", Path(f"/proc/{thread}"))][:1]


def place_of(launcher: Launched, cell_number: int = 1) -> Path:
    """The cgroup in which all threads of one cell share the processor, once they do."""
    root = (launcher.state_directory / cells.NOTE).read_text().splitlines()[0]

    def found() -> set[Path]:
        threads = Path(f"{root}/{cell_number}/tasks").read_text().split()
        places = {place for each in threads for place in of_processor(int(each))}
        assert next(cgroups.own("cpu")) not in places
        return places

    [place] = eventually(found)
    return place


def shares_of(place: Path) -> int:
    return int((place / "cpu.shares").read_text())


# --- Shares of the processor -------------------------------------------------------------------


@NEEDS_CGROUP
@KERNEL_SHARES
def test_many_processes_of_a_task_share_what_one_of_another_has(launcher: Launched) -> None:
    crowd = "for i in 1 2 3 4 5 6 7 8; do sleep 1000 & done; echo all; wait"
    attempts = [launcher.shell(crowd, limits=limits()) for _ in range(2)]
    for each in attempts:
        launcher.says(each, b"all")
    one, other = place_of(launcher, 1), place_of(launcher, 2)
    assert one != other
    assert shares_of(one) == shares_of(other) == cell.SHARES
    assert one.parent == other.parent
    assert shares_of(one.parent) == len(os.sched_getaffinity(0)) * cell.SHARES
    for thread in os.listdir(f"/proc/{launcher.process.pid}/task"):
        own = of_processor(int(thread))
        assert own == [one.parent.parent], "who looks after them is not among them"
    for each in attempts:
        launcher.stop(each, grace_seconds=0)
        launcher.ended(each)
    launcher.end()
    assert not one.parent.exists()


@NEEDS_CGROUP
@KERNEL_SHARES
def test_a_share_goes_by_the_cores_and_is_one_cores_at_least(launcher: Launched) -> None:
    for cores, share in ((3.0, 3 * cell.SHARES), (0.0, cell.SHARES), (0.1, cell.SHARES)):
        attempt = launcher.shell("exec sleep 1000", limits=limits(cores))
        launcher.until("started", attempt)
        place = place_of(launcher)
        assert place.name == "1", "a cgroup serves one after another"
        assert shares_of(place) == share
        launcher.stop(attempt, grace_seconds=0)
        launcher.ended(attempt)


@NEEDS_CGROUP
@KERNEL_SHARES
@pytest.mark.parametrize("script", [THREADS, CHAINS])
def test_what_is_hard_to_move_comes_to_share_it_too(launcher: Launched, script: str) -> None:
    attempt = launcher.start([sys.executable, "-c", script], limits=limits())
    launcher.says(attempt, b"all")
    assert place_of(launcher).name == "1"
    launcher.stop(attempt, grace_seconds=0)
    launcher.ended(attempt)


@NEEDS_CGROUP
@KERNEL_SHARES
def test_the_launcher_itself_never_stands_among_tasks(launcher: Launched) -> None:
    """It would lose its turn with each start."""
    opened = [
        os.readlink(f"/proc/{launcher.process.pid}/fd/{file}")
        for _ in range(2)
        if launcher.ended(launcher.shell("true", limits=limits()))
        for file in os.listdir(f"/proc/{launcher.process.pid}/fd")
    ]
    assert [each for each in opened if each.startswith("/sys/fs/cgroup/memory")]
    assert not [each for each in opened if each.startswith("/sys/fs/cgroup/cpu/")]


# --- Ending thousands --------------------------------------------------------------------------


@NEEDS_CGROUP
def test_chains_are_ended_at_once_and_their_cgroup_serves_again(launcher: Launched) -> None:
    for _ in range(2):
        over = time.monotonic() + SECONDS  # not before then
        attempt = launcher.start(["python3", "-c", CHAINS], limits=limits())
        launcher.says(attempt, b"all")
        launcher.stop(attempt, grace_seconds=0)
        assert launcher.ended(attempt)["signal"] == signal.SIGKILL
        assert time.monotonic() < over, "they ended by themselves"
        assert carrying("BANYAN_ATTEMPT", attempt) == []
        assert launcher.run("sh -c 'echo hello'; exit 4", limits=limits())[1] == b"hello\n"


class Inside(cell.Cell):
    """One with many in it, which forbids further ones or not."""

    def __init__(self, seals: bool) -> None:
        super().__init__("/nowhere")
        self._seals = seals

    def _bound_count(self, most: int | str) -> bool:
        return self._seals

    def pids(self) -> list[int]:
        return list(range(1 << 29, (1 << 29) + 5000))


@pytest.mark.parametrize(
    ("seals", "sent"), [(True, [signal.SIGKILL]), (False, [signal.SIGSTOP, signal.SIGKILL])]
)
def test_no_tree_is_walked_of_what_is_in_a_cgroup(
    monkeypatch: pytest.MonkeyPatch, seals: bool, sent: list[int]
) -> None:
    """5,000 are signalled once where no further ones can come."""
    heard: list[int] = []
    monkeypatch.setattr(os, "kill", lambda pid, number: heard.append(number))
    monkeypatch.setattr(running, "send_to_group", lambda group, number: None)
    monkeypatch.setattr(tree, "children", lambda pid: pytest.fail("a tree is walked"))
    inside = Inside(seals)
    one: Any = SimpleNamespace(cell=inside, leader_ended=False, pid=1 << 29, give_up_at=None)
    one._in_group = lambda pid: True
    Running.kill(one, inside.pids())
    assert heard == [number for number in sent for _ in range(5000)]
    Running.terminate(one, inside.pids())


def test_of_thousands_that_come_a_number_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where each attempt has a cgroup, which knows who is of it."""
    looked: list[int] = []
    monkeypatch.setattr(tree, "own_children", lambda: list(range(1 << 29, (1 << 29) + 5000)))
    found = orphans.Orphans(lambda pid: looked.append(pid) or "a", ProcessReader())
    found.look({}, ["a"], all_confined=True)
    assert 0 < len(looked) < 1000
    found.look({}, ["a"], all_confined=False)
    assert len(looked) == 5000, "no other place tells whose they are"


# --- A launcher that is slow, and one that is frozen -------------------------------------------


def test_a_slow_launcher_has_half_of_the_lease_and_a_frozen_one_no_more(tmp_path: Path) -> None:
    slow = object.__new__(agent.Agent)
    slow._timers, slow._link = Timers(), Link(tmp_path)
    slow._registration = SimpleNamespace(lease_seconds=60)  # type: ignore[assignment]
    slow._look_after_launcher()
    assert slow._timers.next() is None, "nothing is owed"
    slow._link._asked_at = now() - 20
    slow._look_after_launcher()
    due = slow._timers.next()
    assert due is not None
    assert due < slow._link._asked_at + 31, "it is asked in time, also without a further beat"
    slow._link._asked_at = now() - 32
    with pytest.raises(wire.Gone):
        slow._look_after_launcher()
