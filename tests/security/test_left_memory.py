"""What tasks leave in shared memory costs tasks only, and what is an attempt's goes with it."""

import ctypes
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from banyan.worker import cells, groups, leftovers, room
from banyan.worker.cell import Cell
from banyan.worker.leftovers import Leftovers
from tests.harness import eventually
from tests.security.others import NOBODY
from tests.worker.launched import Launched
from tests.worker.test_launcher_memory import HOARD, NEEDS_CGROUP, cells_of, limits
from tests.worker.test_run_as import needs_root, nobody

MIB = 1 << 20
SHARED = Path("/dev/shm")  # noqa: S108 - where the attack leaves something
GIVEN = {"all_memory_bytes": 300 * MIB}
FILL = "head -c {} /dev/zero > {}"
# Everything that outlives a process, in /dev/shm under this name, and of System V.
LEAVE = """
import ctypes, os, sys
place = sys.argv[1]
open(place + "-file", "w").write("x")
os.symlink("/etc/passwd", place + "-link")
os.makedirs(place + "-tree/a/b/c")
open(place + "-tree/a/b/c/file", "w").write("x")
os.chmod(place + "-tree/a", 0)
open(place + "-kept", "w").write("x")
os.chown(place + "-kept", -1, int(sys.argv[2]))
libc = ctypes.CDLL(None)
print(libc.shmget(0, 4096, 0o1600), libc.msgget(0, 0o1600), libc.semget(0, 1, 0o1600), flush=True)
"""


@pytest.fixture
def left() -> Iterator[str]:
    """The beginning of the names of files in shared memory that tasks may leave behind."""
    if not SHARED.is_dir():
        pytest.skip("no shared memory here")
    name = f"banyan-test-{uuid.uuid4().hex}"
    yield f"{SHARED}/{name}"
    for path in SHARED.glob(f"{name}*"):
        for each in [*path.rglob("*")][::-1] if path.is_dir() else []:
            each.rmdir() if each.is_dir() else each.unlink()
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()


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


# --- What has the group of an attempt ----------------------------------------------------------


def objects() -> dict[str, set[str]]:
    """The numbers of those of System V."""
    place = Path("/proc/sysvipc")
    return {
        kind: {line.split()[1] for line in (place / kind).read_text().splitlines()[1:]}
        for kind in ("shm", "msg", "sem")
    }


@needs_root
def test_it_goes_with_the_attempt_and_nothing_else_does(launcher: Launched, left: str) -> None:
    user = nobody()
    of_root, of_the_user = Path(f"{left}-root"), Path(f"{left}-user")
    for path in (of_root, of_the_user):
        path.write_text("x")
    os.chown(of_the_user, user["uid"], user["gid"])
    other = launcher.shell(f"echo x > {left}-other; echo made; sleep 1000", user=user)
    launcher.says(other, b"made")
    argv = ["python3", "-c", LEAVE, left, str(user["gid"])]
    attempt = launcher.start(argv, user=user)
    assert launcher.ended(attempt)["code"] == 0, launcher.output(attempt)
    names = {path.name.rpartition("-")[2] for path in SHARED.glob(f"{Path(left).name}-*")}
    assert names == {"root", "user", "other", "kept"}
    made = launcher.output(attempt).decode().split()
    assert len(made) == 3
    assert "-1" not in made
    for kind, number in zip(("shm", "msg", "sem"), made, strict=True):
        assert number not in objects()[kind], kind
    launcher.stop(other, grace_seconds=0)
    launcher.ended(other)
    assert not Path(f"{left}-other").exists()


@needs_root
def test_it_goes_also_where_the_attempt_is_stopped(launcher: Launched, left: str) -> None:
    script = f"echo x > {left}-file; echo made; sleep 1000"
    attempt = launcher.shell(script, user=nobody(), timeout_seconds=1, grace_seconds=0)
    assert launcher.ended(attempt)["why"] == "timeout"
    assert not Path(f"{left}-file").exists()


@needs_root
def test_what_takes_long_is_gone_on_with_after_the_next(
    left: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    group = groups.FIRST + 11
    paths = [Path(f"{left}-{number}") for number in range(5)]
    for path in paths:
        path.write_text("x")
        os.chown(path, NOBODY, group)
    own = Leftovers()
    monkeypatch.setattr(leftovers, "_SECONDS", -1.0)
    own.clear(group)
    assert sum(path.exists() for path in paths) == 4, "it is late after each"
    monkeypatch.setattr(leftovers, "_SECONDS", 60.0)
    own.clear(groups.FIRST + 12)
    assert sum(path.exists() for path in paths) == 4, "it rests"
    monkeypatch.setattr(own, "_rest_until", 0.0)
    own.clear(groups.FIRST + 12)
    assert not any(path.exists() for path in paths)


@needs_root
def test_names_without_number_are_not_read_in_one_go(
    left: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Anybody may fill the place: the launcher would stand still after each attempt."""
    group = groups.FIRST + 15
    place = Path(f"{left}-place")
    place.mkdir()
    os.chown(place, NOBODY, group)
    for number in range(50):
        (place / f"{number}").touch()
        os.chown(place / f"{number}", NOBODY, group)
    looked_at: list[str] = []
    names = leftovers._names
    monkeypatch.setattr(
        leftovers, "_names", lambda of: (looked_at.append(one) or one for one in names(of))
    )
    own = Leftovers()
    monkeypatch.setattr(leftovers, "_SECONDS", -1.0)
    monkeypatch.setattr(leftovers, "_REST", -1)
    calls = 0
    while place.exists():
        before = len(looked_at)
        own.clear(group)
        assert len(looked_at) <= before + 2, "one step, and perhaps the begin of the next"
        calls += 1
    assert calls >= 50


@needs_root
def test_what_is_exchanged_meanwhile_is_not_removed(
    left: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Just after it was looked at, the name is somebody else's file, or a link to a directory."""
    group = groups.FIRST + 13
    file, link, place = Path(f"{left}-file"), Path(f"{left}-link"), Path(f"{left}-place")
    place.mkdir()
    for path in (file, place / "inner"):
        path.write_text("x")
    link.symlink_to(place)
    seen = {file.name: 0o100600, link.name: 0o40700, "inner": 0o100600}
    stat = os.stat

    def before(name: Any, **how: Any) -> Any:
        if name not in seen:
            return stat(name, **how)
        return SimpleNamespace(st_gid=group, st_uid=NOBODY, st_mode=seen[name])

    monkeypatch.setattr(os, "stat", before)
    Leftovers().clear(group)
    monkeypatch.undo()
    assert file.exists()
    assert link.is_symlink()
    assert (place / "inner").exists()


@needs_root
def test_the_launcher_is_root_again_afterwards(left: str, tmp_path: Path) -> None:
    group = groups.FIRST + 14
    path = Path(f"{left}-file")
    path.write_text("x")
    os.chown(path, NOBODY, group)
    Leftovers().clear(group)
    assert not path.exists()
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    (closed / "file").write_text("x")
    assert ctypes.CDLL(None).setfsuid(-1) == 0


def test_tasks_without_groups_pay_nothing(
    launcher: Launched, left: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended, _ = launcher.run(f"echo x > {left}-file")
    assert ended["code"] == 0
    assert eventually(lambda: Path(f"{left}-file").exists())
