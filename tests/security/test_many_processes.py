"""A task that starts processes without end is held to a number of them.

What bombs here is small: it gives up by itself after a few dozen.
"""

import uuid
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from banyan.cli.owner import owner_options
from banyan.worker import cells, cgroups, watching
from banyan.worker.endings import end_of
from banyan.worker.orphans import Orphans, Owners
from banyan.worker.process_reader import ProcessReader
from tests.harness import eventually
from tests.worker.launched import Launched, carrying
from tests.worker.test_launcher_memory import NEEDS_CGROUP, cells_of
from tests.worker.test_owner import given

MIB = 1 << 20
MOST, TRIED = 16, 60
BOMB = f"""
import os, sys, time
for number in range({TRIED}):
    try:
        if os.fork() == 0:
            time.sleep(1000)
            os._exit(0)
    except OSError as problem:
        print("refused", number, flush=True)
        sys.exit(3)
print("all", flush=True)
time.sleep(1000)
"""
ROOM = 120  # of a whole worker
# Fills each gap at once, and holds what it has.
GREEDY = """
import os, time
until = time.monotonic() + 30
while time.monotonic() < until:
    try:
        if os.fork() == 0:
            time.sleep(30)
            os._exit(0)
    except OSError:
        time.sleep(0.002)
"""
# Each of them leaves its session and its parent at once, with nothing to know it by.
SCATTERED = f"""
import os, time
for number in range({TRIED}):
    if os.fork() == 0:
        os.setsid()
        if os.fork():
            os._exit(0)
        os.execve("/bin/sleep", ["sleep", "1000"], {{"BOMB": os.environ["BOMB"]}})
    os.wait()
print("all", flush=True)
time.sleep(1000)
"""


def counted() -> bool:
    """Whether the kernel counts the processes of a cgroup here."""
    places = [*cgroups.own("pids")][:1]
    return any((place / "cgroup.procs").exists() for place in places)


def threads_move() -> bool:
    """Whether a thread may go into a cgroup that counts processes alone."""
    return all((place / "tasks").exists() for place in [*cgroups.own("pids")][:1])


KERNEL_COUNTS = pytest.mark.skipif(not counted(), reason="no cgroup that counts processes here")


def limits(by: str, memory_bytes: int = 256 * MIB) -> dict[str, object]:
    return {"memory_bytes": memory_bytes, "enforcement": by, "processes": MOST}


def test_too_many_are_the_end(launcher: Launched) -> None:
    attempt = launcher.start(["python3", "-c", BOMB], limits=limits("watch"))
    ended = launcher.ended(attempt)
    assert (ended["why"], ended["signal"]) == ("processes", 9)
    assert end_of(ended)["exit_status"] == "failure (SIGKILL)"
    assert end_of(ended)["reason"].endswith(f"a task may have {MOST} on this worker")
    assert carrying("BANYAN_ATTEMPT", attempt) == []


def test_too_many_that_nobody_can_place_are_ended_too(launcher: Launched) -> None:
    bomb = uuid.uuid4().hex
    other = launcher.shell("exec sleep 1000", limits=limits("watch"))
    attempt = launcher.start(
        ["python3", "-c", SCATTERED], limits=limits("watch"), env={"BOMB": bomb}
    )

    def is_over() -> bool:
        """All have started, or so many were seen below their leader that they are its end."""
        launcher.run("true")  # hears what there is to hear
        told = [each["is"] for each in launcher.heard if each.get("attempt") == attempt]
        return "ended" in told or b"all" in launcher.output(attempt)

    eventually(is_over)
    # So many may be the attempt's own, and as many in all of those that nobody can place.
    eventually(lambda: len(carrying("BOMB", bomb)) <= 2 * MOST)
    assert not any(each["is"] == "ended" and each["attempt"] == other for each in launcher.heard)
    for each in (attempt, other):
        launcher.stop(each, grace_seconds=0)
        launcher.ended(each)


@NEEDS_CGROUP
@KERNEL_COUNTS
@pytest.mark.parametrize("memory_bytes", [256 * MIB, 0])
def test_the_kernel_refuses_more(launcher: Launched, memory_bytes: int) -> None:
    """Also to a task that has asked for no memory, whose memory is not bounded."""
    for _ in range(2):  # a cgroup serves one attempt after another
        attempt = launcher.start(["python3", "-c", BOMB], limits=limits("cgroup", memory_bytes))
        assert launcher.ended(attempt)["code"] == 3
        assert MOST - 3 <= int(launcher.output(attempt).split()[1]) <= MOST
        assert carrying("BANYAN_ATTEMPT", attempt) == []
    assert launcher.hello["pid"] not in cells.Cell(f"{cells_of(launcher)}/1").pids()
    assert not Path(f"{cells_of(launcher)}/2").exists()
    roots = (launcher.state_directory / cells.NOTE).read_text().splitlines()
    launcher.end()
    assert not any(Path(each).exists() for each in roots)


@NEEDS_CGROUP
@KERNEL_COUNTS
def test_the_kernel_counts_what_nobody_can_place(launcher: Launched) -> None:
    bomb = uuid.uuid4().hex
    attempt = launcher.start(
        ["python3", "-c", SCATTERED], limits=limits("cgroup"), env={"BOMB": bomb}
    )
    launcher.says(attempt, b"all", seconds=60)
    assert 1 < len(carrying("BOMB", bomb)) <= MOST
    launcher.stop(attempt, grace_seconds=0)
    launcher.ended(attempt)
    assert carrying("BOMB", bomb) == []


@NEEDS_CGROUP
def test_without_a_bound_none_is_set(launcher: Launched) -> None:
    more = {**limits("cgroup"), "processes": 0}
    attempt = launcher.start(["python3", "-c", BOMB], limits=more)
    launcher.says(attempt, b"all")
    launcher.stop(attempt, grace_seconds=0)
    launcher.ended(attempt)


# --- Many tasks, each within its bound ---------------------------------------------------------


@pytest.fixture
def narrow(tmp_path: Path) -> Iterator[Launched]:
    """A launcher in a cgroup that allows few processes."""
    home = next(cgroups.own("pids"))
    place = home / f"test-{uuid.uuid4().hex}"
    place.mkdir()
    try:
        (place / "pids.max").write_text(str(ROOM))
        (place / "tasks").write_text("0")
        try:
            launched = Launched(tmp_path)
        finally:
            (home / "tasks").write_text("0")
        try:
            yield launched
        finally:
            launched.end()
    finally:
        eventually(lambda: not (place / "cgroup.procs").read_text())
        place.rmdir()


@NEEDS_CGROUP
@KERNEL_COUNTS
@pytest.mark.skipif(not threads_move(), reason="version 1 alone moves a thread")
def test_who_has_most_ends_before_others_find_no_room(narrow: Launched) -> None:
    """And the launcher has room, whatever the tasks do."""
    more = {**limits("cgroup"), "processes": 1000}
    small = narrow.shell("exec sleep 1000", limits=more)
    narrow.until("started", small)
    greedy = [narrow.start(["python3", "-c", GREEDY], limits=more) for _ in range(3)]
    root = Path((narrow.state_directory / cells.NOTE).read_text().splitlines()[1])
    assert 0 < int((root / "pids.max").read_text()) < ROOM
    ended = narrow.until("ended", None, having=lambda told: told["attempt"] in greedy)
    assert (ended["why"], ended["signal"]) == ("processes", 9)
    assert "all tasks of this worker" in ended["reason"]
    served = eventually(lambda: narrow.run("echo hello", limits=more)[1] == b"hello\n", 60)
    assert served
    assert not any(each["is"] == "ended" and each["attempt"] == small for each in narrow.heard)


def test_short_tasks_in_between_make_no_further_bounds() -> None:
    """What comes while one of them runs may be of that one, too."""
    orphans = Orphans(lambda pid: None, ProcessReader())
    for pid in range(3):
        orphans._owners[pid] = Owners(frozenset(["long", f"short {pid}"]), False)
    assert orphans.unsure(["long"]) == [(frozenset(["long"]), [0, 1, 2])]


class Counted:
    """An attempt as `crowding` sees it."""

    def __init__(self, number: int) -> None:
        self.cell = SimpleNamespace(count=lambda: number)
        self.is_being_killed = self.told_ended = False


def test_nobody_ends_in_the_place_of_one_that_cannot() -> None:
    """Not even when it has been told as ended: its processes count as before."""
    crowded: Any = SimpleNamespace(are_crowded=lambda: True, bound_all=lambda: None)
    few, most = Counted(1), Counted(1000)
    both: Any = [few, most]
    ending = watching.crowding(crowded, both)
    assert ending
    assert ending[0] is both[1]
    most.is_being_killed = most.told_ended = True
    assert watching.crowding(crowded, both) is None


@pytest.mark.parametrize("said", ["", "0.1 0.2 0.3 x/y 7", "nonsense"])
def test_a_kernel_that_says_nothing_of_use_is_no_trouble(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, said: str
) -> None:
    monkeypatch.setattr(cgroups, "text", lambda path: said)
    own = cells.Cells(tmp_path)
    own._share()
    assert not own.are_crowded()


def test_the_owner_sets_the_bound() -> None:
    assert owner_options(given())["max_processes"] == 4096
    assert owner_options(given(max_processes=0))["max_processes"] == 0
    assert owner_options(given(max_processes=7))["max_processes"] == 7
