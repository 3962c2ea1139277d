"""What a task leaves in memory is nobody else's, and to look at it holds nobody up."""

import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from banyan.worker import cells, memory, watching
from banyan.worker.limits import Limits
from banyan.worker.process_reader import ProcessReader
from tests.worker.launched import Launched
from tests.worker.test_launcher_memory import HOARD, NEEDS_CGROUP, cells_of, limits

MIB = 1 << 20
SHARED = Path("/dev/shm")  # noqa: S108 - where the attack leaves something
FILL = "head -c {} /dev/zero > {}"


@pytest.fixture
def left() -> Iterator[Path]:
    """A file in shared memory that a task may leave behind."""
    if not SHARED.is_dir():
        pytest.skip("no shared memory here")
    file = SHARED / f"banyan-test-{uuid.uuid4().hex}"
    yield file
    file.unlink(missing_ok=True)


# --- What is left in a cgroup ------------------------------------------------------------------


@NEEDS_CGROUP
def test_what_a_task_leaves_in_shared_memory_is_not_the_next_ones(
    launcher: Launched, left: Path
) -> None:
    for _ in range(3):
        ended, _ = launcher.run(FILL.format(50 * MIB, left), limits=limits("cgroup", 64))
        assert (ended["why"], ended["code"]) == (None, 0)
        hoard = HOARD.format(30).replace("time.sleep(1000)", "0")
        ended = launcher.ended(
            launcher.start(["python3", "-c", hoard], limits=limits("cgroup", 64))
        )
        assert (ended["why"], ended["code"]) == (None, 0)
    assert launcher.process.poll() is None
    [cell] = [path for path in cells_of(launcher).iterdir() if path.is_dir()]
    assert cells.Cell(str(cell)).usage_bytes() < 8 * MIB, "only an empty one is kept"


@NEEDS_CGROUP
def test_a_little_at_a_time_does_not_add_up(launcher: Launched, left: Path) -> None:
    for _ in range(12):
        ended, _ = launcher.run(
            f"head -c {MIB // 2} /dev/zero >> {left}", limits=limits("cgroup", 64)
        )
        assert (ended["why"], ended["code"]) == (None, 0)
    for path in cells_of(launcher).iterdir():
        if path.is_dir():
            assert cells.Cell(str(path)).usage_bytes() < 2 * MIB


@NEEDS_CGROUP
def test_cache_alone_lets_a_cgroup_serve_again(launcher: Launched, tmp_path: Path) -> None:
    """Or each task that writes a file would cost one."""
    file = tmp_path / "file"
    for _ in range(3):
        ended, _ = launcher.run(FILL.format(4 * MIB, file), limits=limits("cgroup", 64))
        assert ended["code"] == 0
    numbers = [int(path.name) for path in cells_of(launcher).iterdir() if path.is_dir()]
    assert numbers == [1]


@NEEDS_CGROUP
def test_one_with_somebody_in_it_does_not_serve_again(tmp_path: Path) -> None:
    own = cells.Cells(tmp_path)
    process = subprocess.Popen(["sleep", "1000"])
    try:
        cell = own.open(64 * MIB)
        assert cell
        cell.bound(64 * MIB)
        cell.add(process.pid)
        own.close(cell)
        following = own.open(64 * MIB)
        assert following
        assert following.path != cell.path
    finally:
        process.kill()
        process.wait()
        own.end()
    assert not Path(cell.path).exists()


# --- Looking at what is shared -----------------------------------------------------------------


# What /proc tells of one.
SMALL = b"Name:\tone\nVmSize:\t 36 kB\nVmRSS:\t 36 kB\nRssAnon:\t 36 kB\n"


class Clock:
    """Time that goes on only while memory is looked at."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, each_seconds: float) -> None:
        self.now = 0.0
        self.looked_at: list[int] = []
        self._each_seconds = each_seconds
        monkeypatch.setattr(memory, "time", SimpleNamespace(monotonic=lambda: self.now))
        monkeypatch.setattr(memory, "_proportional_bytes", self._look)
        monkeypatch.setattr(memory, "_read", lambda pid, name: SMALL)

    def _look(self, pid: int, said: Any, reader: ProcessReader) -> int:
        self.now += self._each_seconds
        self.looked_at.append(pid)
        return 10


def running(attempt: str, **more: Any) -> Any:
    bound = Limits(memory_bytes=3000, enforcement="watch")
    known = {"limits": bound, "cell": None, "peak_bytes": 0, "looked_at_bytes": 0}
    return SimpleNamespace(attempt=attempt, **{**known, **more})


def turn(looks: memory.Looks, clock: Clock) -> None:
    clock.now += watching.LOOK_SECONDS
    clock.looked_at.clear()
    looks.begin_turn()


def test_one_turn_looks_at_a_few_and_the_next_ones_at_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock, looks = Clock(monkeypatch, 0.04), memory.Looks(ProcessReader())
    pids, other = list(range(100, 200)), [7, 8]
    seen: dict[str, list[int]] = {"all": [], "other": []}
    for _ in range(400):
        turn(looks, clock)
        for key, asked in (("all", pids), ("other", other)):
            size, whole = looks.at(key, asked)
            if whole:
                seen[key].append(size)
        assert len(clock.looked_at) <= 2
    assert set(seen["all"]) == {1000}
    assert set(seen["other"]) == {20}
    assert len(seen["other"]) >= 10, "who has few does not wait for who has many"


def test_a_very_slow_look_is_followed_by_a_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, looks = Clock(monkeypatch, 1.0), memory.Looks(ProcessReader())
    looked = 0
    for _ in range(100):
        turn(looks, clock)
        looks.at("all", range(100, 200))
        looked += len(clock.looked_at)
    assert 4 <= looked <= clock.now / 4


def test_too_much_is_seen_at_once_however_long_the_look_takes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock, looks = Clock(monkeypatch, 1.0), memory.Looks(ProcessReader())
    one = running("a", limits=Limits(memory_bytes=4096, enforcement="watch"))
    reason = watching.too_large(one, list(range(100, 200)), looks)
    assert reason
    assert len(clock.looked_at) == 1


def test_who_has_ended_is_not_counted_on(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, looks = Clock(monkeypatch, 0.06), memory.Looks(ProcessReader())
    gone: set[int] = set()
    monkeypatch.setattr(memory, "_read", lambda pid, name: b"" if pid in gone else SMALL)
    turn(looks, clock)
    assert looks.at("all", [1, 2, 3]) == (10, False)
    gone.update(clock.looked_at)
    for _ in range(2):
        turn(looks, clock)
        seen = looks.at("all", [1, 2, 3])
    assert seen == (20, True)
    turn(looks, clock)
    turn(looks, clock)
    assert not looks.is_unfinished("all"), "nobody has asked for it"


@NEEDS_CGROUP
def test_of_a_cgroup_no_process_is_looked_at(
    launcher: Launched, left: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what it has in shared memory counts, mapped or not."""
    script = f"{FILL.format(20 * MIB, left)}; echo full; exec sleep 1000"
    attempt = launcher.shell(script, limits=limits("cgroup", 64))
    launcher.says(attempt, b"full")
    clock = Clock(monkeypatch, 0.0)
    [path] = [path for path in cells_of(launcher).iterdir() if path.is_dir()]
    cell = cells.Cell(str(path))
    cell.bound_bytes = 64 * MIB
    one = running(attempt, cell=cell)
    assert watching.too_large(one, cell.pids(), memory.Looks(ProcessReader())) is None
    assert 20 * MIB < one.peak_bytes < 40 * MIB
    assert clock.looked_at == []
    said = launcher.until("sample", attempt)
    assert said["resident_memory_bytes"] > 20 * MIB
    launcher.stop(attempt, grace_seconds=0)
    launcher.ended(attempt)
