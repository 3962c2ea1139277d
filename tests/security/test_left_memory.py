"""What tasks leave in shared memory costs tasks only, and the worker says how much it is."""

import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from banyan.worker import cell, cells, cgroups, remains, room
from banyan.worker.cell import Cell
from tests.harness import eventually
from tests.worker.conftest import hurried as hurried
from tests.worker.crew import Crew
from tests.worker.launched import Launched
from tests.worker.test_launcher_memory import HOARD, NEEDS_CGROUP, cells_of, limits

MIB = 1 << 20
SHARED = Path("/dev/shm")  # noqa: S108 - where the attack leaves something
GIVEN = {"all_memory_bytes": 300 * MIB}
# Looks for files that are not there, until so much seems to be held in all cells together.
REMEMBERED = """
import os
def held():
    said = dict(line.split() for line in open("{cell}/memory.stat"))
    cache = int(said["total_active_file"]) + int(said["total_inactive_file"])
    return int(open("{cell}/memory.usage_in_bytes").read()) - cache
number = 0
while number % 500 or held() < {most}:
    os.access("{directory}/%d" % number + "x" * 180, 0)
    number += 1
"""
FILL = "head -c {} /dev/zero > {}"


@pytest.fixture
def left() -> Iterator[str]:
    """The beginning of the names of files in shared memory that tasks may leave behind."""
    if not SHARED.is_dir():
        pytest.skip("no shared memory here")
    name = f"banyan-test-{uuid.uuid4().hex}"
    yield f"{SHARED}/{name}"
    for path in SHARED.glob(f"{name}*"):
        path.unlink()


def bound_of_all(launcher: Launched) -> int:
    return int((cells_of(launcher) / "memory.limit_in_bytes").read_text())


# --- All tasks together ------------------------------------------------------------------------


@NEEDS_CGROUP
def test_what_tasks_leave_has_a_bound_and_then_none_is_started(
    launcher: Launched, left: str
) -> None:
    told = []
    for number in range(6):
        script = FILL.format(110 * MIB, f"{left}-{number}")
        told.append(launcher.run(script, limits=limits("cgroup", 150), **GIVEN)[0])
    assert [each["why"] for each in told[:2]] == [None, None]
    assert told[-1]["why"] == "not_started", "it may run elsewhere"
    assert "left it in shared memory" in told[-1]["reason"]
    assert Cell(str(cells_of(launcher))).usage_bytes() <= bound_of_all(launcher)
    assert bound_of_all(launcher) <= 300 * MIB + room.ROOMY_BYTES
    for path in SHARED.glob(f"{Path(left).name}*"):
        path.unlink()
    ended, _ = launcher.run("true", limits=limits("cgroup", 150), **GIVEN)
    assert ended["code"] == 0


@NEEDS_CGROUP
def test_who_ends_for_all_is_told_so(launcher: Launched, left: str) -> None:
    """The one with most, even where it is within its own bound."""
    small = launcher.shell("exec sleep 1000", limits=limits("cgroup", 64), **GIVEN)
    launcher.until("started", small)
    ended, _ = launcher.run(FILL.format(200 * MIB, left), limits=limits("cgroup", 250), **GIVEN)
    assert ended["code"] == 0
    hoard = ["python3", "-c", HOARD.format(250)]
    for asked in (0, 280):
        ended = launcher.ended(launcher.start(hoard, limits=limits("cgroup", asked), **GIVEN))
        assert (ended["why"], ended["signal"]) == ("oom", 9)
        assert "the tasks of this worker together" in ended["reason"]
    ended = launcher.ended(launcher.start(hoard, limits=limits("cgroup", 64), **GIVEN))
    assert "it used more than the 64 MiB" in ended["reason"]
    assert launcher.process.poll() is None
    launcher.stop(small, grace_seconds=0)
    assert launcher.ended(small)["why"] == "cancelled"


@NEEDS_CGROUP
def test_what_the_kernel_keeps_of_files_ends_nobody(launcher: Launched, tmp_path: Path) -> None:
    for number in range(3):
        script = FILL.format(150 * MIB, tmp_path / str(number))
        ended, _ = launcher.run(script, limits=limits("cgroup", 100), **GIVEN)
        assert (ended["why"], ended["code"]) == (None, 0)
    hoard = HOARD.format(150).replace("time.sleep(1000)", "0")
    attempt = launcher.start(["python3", "-c", hoard], limits=limits("cgroup", 200), **GIVEN)
    assert (launcher.ended(attempt)["why"], launcher.ended(attempt)["code"]) == (None, 0)


@NEEDS_CGROUP
def test_what_the_kernel_remembers_of_names_stops_nobody(
    launcher: Launched, tmp_path: Path
) -> None:
    """It is charged like what is held, and given up only when somebody asks for memory."""
    launcher.run("true", limits=limits("cgroup", 64), **GIVEN)
    all_cells = Cell(str(cells_of(launcher)))
    most = 300 * MIB + room.ROOMY_BYTES - 20 * MIB
    code = REMEMBERED.format(directory=tmp_path, cell=all_cells.path, most=most)
    ended, _ = launcher.run(f"exec python3 -c '{code}'", limits=limits("cgroup", 400), **GIVEN)
    assert (ended["why"], ended["code"]) == (None, 0)
    assert all_cells.held_bytes_now() > most - 10 * MIB, "there is no room now"

    def starts() -> bool:
        return bool(launcher.run("true", limits=limits("cgroup", 64), **GIVEN)[0]["code"] == 0)

    eventually(starts)
    assert all_cells.held_bytes_now() < most
    assert bound_of_all(launcher) == 300 * MIB + room.ROOMY_BYTES


def test_to_make_room_in_vain_is_not_tried_again_at_once() -> None:
    tried: list[int] = []
    full: Any = SimpleNamespace(make_room=lambda size: bool(tried.append(size)))
    making = room.Making()
    making.begin(full, 5)
    eventually(lambda: not making.is_under_way)
    making.begin(full, 5)
    assert not making.is_under_way
    assert tried == [5]


def test_no_room_is_made_in_a_cgroup_removed_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bound = tmp_path / "memory.limit_in_bytes"
    bound.touch()
    write = cell.write

    def write_and_remove(path: str, value: int | str) -> None:
        write(path, value)
        bound.unlink()

    monkeypatch.setattr(cell, "write", write_and_remove)
    assert not Cell(str(tmp_path)).make_room(1)


@NEEDS_CGROUP
def test_room_is_made_in_as_far_as_the_kernel_can(launcher: Launched, left: str) -> None:
    launcher.run(FILL.format(100 * MIB, left), limits=limits("cgroup", 200), **GIVEN)
    all_cells = Cell(str(cells_of(launcher)))
    all_cells.bound_bytes = bound_of_all(launcher)
    assert all_cells.make_room(200 * MIB)
    assert not all_cells.make_room(300 * MIB)
    assert bound_of_all(launcher) == all_cells.bound_bytes


@NEEDS_CGROUP
def test_the_bound_follows_what_is_given(tmp_path: Path) -> None:
    own = cells.Cells(tmp_path)
    try:
        own.give(1 << 30)
        assert own.open(64 * MIB)
        for given in (1 << 30, 1 << 31, 1 << 29):
            own.give(given)
            assert own._all
            assert own._all.bound_bytes == given + room.ROOMY_BYTES
            said = Path(own._all.path, "memory.limit_in_bytes")
            assert not said.exists() or int(said.read_text()) == given + room.ROOMY_BYTES
    finally:
        own.end()


@pytest.mark.parametrize(
    ("places", "bound"),
    [
        ([], 1024 + 64),
        ([(0, 5)], 1024 + 64),
        ([(2000 * MIB, 300 * MIB)], 1024 + 64),
        ([(1200 * MIB, 300 * MIB)], 1200 - 200 - 75),  # of the 300 the tasks have 100
        ([(8000 * MIB, 7800 * MIB)], 1000),
        ([(800 * MIB, 790 * MIB)], 100),
        ([(400 * MIB, 390 * MIB)], 100),  # what they have they keep
    ],
)
def test_it_leaves_to_others_what_they_have(
    monkeypatch: pytest.MonkeyPatch, places: list[tuple[int, int]], bound: int
) -> None:
    monkeypatch.setattr(room, "_places", lambda: places)
    root: Any = SimpleNamespace(usage_bytes=lambda: 150 * MIB, held_bytes=lambda usage: 100 * MIB)
    assert room.bytes_for(root, 1024 * MIB) == bound * MIB


def test_the_table_of_mounts_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its lock is the whole kernel's: anybody who mounts may keep the launcher waiting for it."""
    read: list[Path] = []
    text = cgroups.text
    monkeypatch.setattr(cgroups, "text", lambda path: read.append(path) or text(path))
    cgroups._mounts.cache_clear()
    for _ in range(3):
        room._places()
    assert [path.name for path in read].count("mountinfo") == 1
    assert [path.name for path in read].count("cgroup") == 3


def test_the_limits_of_this_machine_are_read() -> None:
    [machine, *_] = room._places()
    assert 0 < machine[1] < machine[0] <= 2 * os.sysconf("SC_PHYS_PAGES") * 4096


# --- What is left is offered to nobody ---------------------------------------------------------


class Cgroups:
    """Stand-ins for the cgroups of a launcher: files that say what the kernel would."""

    def __init__(self, place: Path, version: int, monkeypatch: pytest.MonkeyPatch) -> None:
        self.place = place
        self._version = version
        self.read: list[str] = []
        self.told: list[int] = []
        self.has_room = True
        self.now = 1000.0
        read = cgroups.read
        monkeypatch.setattr(cgroups, "read", lambda path: self.read.append(path) or read(path))
        monkeypatch.setattr(remains, "now", lambda: self.now)
        own: Any = SimpleNamespace(whole=self.cell("", 0), have_room=lambda: self.has_room)
        self.remains = remains.Remains(
            own, lambda message: self.told.append(message["memory_bytes"])
        )

    def cell(self, name: str, shared_bytes: int, other_bytes: int = 0) -> Cell:
        place = self.place / name
        place.mkdir(exist_ok=True)
        total = "total_" if self._version == 1 else ""
        said = (
            f"shmem {0 if total else shared_bytes}\n{total}shmem {shared_bytes}\ninactive_file 7\n"
        )
        (place / "memory.stat").write_text(said)
        file = "memory.usage_in_bytes" if self._version == 1 else "memory.current"
        (place / file).write_text(str(shared_bytes + other_bytes + 7))
        return Cell(str(place))

    def look(self, *running: Cell) -> bool:
        self.now += 1
        return self.remains.look([running_in(each) for each in running])


@pytest.fixture(params=[1, 2])
def faked(request: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cgroups:
    return Cgroups(tmp_path, request.param, monkeypatch)


def running_in(cell: Cell) -> Any:
    return SimpleNamespace(cell=cell)


def test_what_is_left_is_told_when_it_was_seen_twice(faked: Cgroups) -> None:
    runs = faked.cell("1", 100 * MIB)
    faked.cell("", 150 * MIB)
    faked.look(runs)
    assert faked.told == []
    assert faked.look(runs)
    assert faked.told == [50 * MIB]
    for more in (5, 10, 15):
        faked.cell("", (150 + more) * MIB)
        faked.look(runs)
    assert faked.told == [50 * MIB], "it is not much more"
    faked.cell("", 100 * MIB)
    faked.look(runs)
    assert faked.told == [50 * MIB, 0]


def test_where_nothing_is_left_no_attempt_is_read_for_it(faked: Cgroups) -> None:
    runs = faked.cell("1", 0, 200 * MIB)
    faked.cell("", 10 * MIB, 200 * MIB)
    for _ in range(3):
        assert not faked.look(runs)
        faked.remains.look([running_in(runs)])  # within the same second
    assert faked.read == [f"{faked.place}/memory.stat"] * 3
    assert faked.told == []


def test_memory_of_the_kernel_counts_only_where_there_is_no_room(faked: Cgroups) -> None:
    runs = faked.cell("1", 0, 200 * MIB)
    faked.cell("", 0, 260 * MIB)
    faked.look(runs)
    faked.look(runs)
    assert faked.told == []
    faked.has_room = False
    faked.look(runs)
    faked.look(runs)
    assert faked.told == [60 * MIB]


def test_it_is_looked_at_until_it_is_gone(faked: Cgroups) -> None:
    assert not faked.look()
    assert faked.remains.look([]), "an attempt may have ended within this second"
    assert not faked.look()
    faked.cell("", 50 * MIB)
    assert faked.look()
    assert faked.look()
    faked.cell("", 0)
    assert not faked.look()
    assert faked.told == [50 * MIB, 0]


@NEEDS_CGROUP
def test_the_agent_and_the_next_one_are_told(launcher: Launched, left: str) -> None:
    other = launcher.shell("exec sleep 1000", limits=limits("cgroup", 64), **GIVEN)
    ended, _ = launcher.run(FILL.format(110 * MIB, left), limits=limits("cgroup", 150), **GIVEN)
    assert ended["code"] == 0
    told = launcher.until("left")["memory_bytes"]
    assert 110 * MIB <= told < 115 * MIB
    launcher.hang_up()
    assert launcher.call_again()["left_bytes"] == told
    Path(left).unlink()
    assert launcher.until("left")["memory_bytes"] == 0
    launcher.stop(other, grace_seconds=0)
    launcher.ended(other)


@NEEDS_CGROUP
def test_a_task_that_does_not_fit_beside_it_waits_unclaimed(hurried: Crew, left: str) -> None:
    crew = hurried
    crew.worker("one", "--cores", "2", "--memory", "300 MiB")
    asked = {"requested_resources": {"cores": 1, "memory": "150 MiB"}}
    leaves = crew.submit(FILL.format(110 * MIB, left), **asked)
    assert crew.ended(leaves)["outcome"] == "success"
    worker = f"workers/{crew.registered()}"
    provider = crew.server.provider
    used = lambda: provider.get(worker).json()["used"].get("stuck", {})  # noqa: E731
    eventually(lambda: used().get("memory_bytes", 0) >= 110 * MIB)
    assert (used()["cores"], used()["gpu_count"]) == (0, 0)
    large = crew.submit("true", requested_resources={"cores": 1, "memory": "250 MiB"})
    fits = [crew.submit("true", **asked) for _ in range(3)]
    assert [crew.ended(task)["outcome"] for task in fits] == ["success"] * 3
    assert crew.attempts(large) == []
    cause = provider.get(f"tasks/{large}/explain").json()["causes"][0]
    assert cause["cause"] == "waiting"
    assert cause["lacking"]["memory_bytes"]["wanted"] == 250 * MIB
    assert "ended tasks still take 110" in cause["message"]
    assert "of 300 MiB of memory there" in cause["message"]
    assert provider.get(worker).json()["reserved"]["memory_bytes"] >= 110 * MIB
    Path(left).unlink()
    assert crew.ended(large)["outcome"] == "success"
    assert len(crew.attempts(large)) == 1
    eventually(lambda: not used())
