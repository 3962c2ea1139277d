"""What tasks leave in shared memory costs tasks only, and the worker says how much it is."""

import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from banyan.worker import cells, room
from banyan.worker.cell import Cell
from tests.worker.launched import Launched
from tests.worker.test_launcher_memory import HOARD, NEEDS_CGROUP, cells_of, limits

MIB = 1 << 20
SHARED = Path("/dev/shm")  # noqa: S108 - where the attack leaves something
GIVEN = {"all_memory_bytes": 300 * MIB}
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


def test_the_limits_of_this_machine_are_read() -> None:
    [machine, *_] = room._places()
    assert 0 < machine[1] < machine[0] <= 2 * os.sysconf("SC_PHYS_PAGES") * 4096
