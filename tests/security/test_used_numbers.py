"""The number of a dead launcher that another process has by now: nothing of that one is touched.

What a killed launcher has noted of its cgroups stays, until the next worker of its state directory
kills what is in them. By then the number may be another launcher's, with everybody's tasks.
"""

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from banyan.worker import cell_roots, cells, tree
from tests.harness import eventually
from tests.worker.launched import Launched, alive
from tests.worker.test_launcher_memory import NEEDS_CGROUP, cells_of, limits
from tests.worker.test_stuck import freeze as freeze

NOBODYS = 99_999_999  # larger than any number of a process


@pytest.fixture
def living() -> Iterator["subprocess.Popen[bytes]"]:
    """A process that has come by a number."""
    process = subprocess.Popen(["sleep", "1000"])
    yield process
    process.kill()
    process.wait()


@pytest.fixture
def cleared(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was cleared, where directories stand for cgroups."""
    names: list[str] = []
    monkeypatch.setattr(cells, "_clear", lambda root: not names.append(root.name))
    return names


def noted(directory: Path, *names: str) -> Path:
    """A note of these roots, which are there."""
    for name in names:
        (directory / name).mkdir()
    note = directory / cells.NOTE
    note.write_text("\n".join(str(directory / name) for name in names))
    return note


def of(pid: int, ticks: int | None = None, boot: str = "") -> str:
    """The name of a launcher's cgroup; ticks: of another, that has had the number before."""
    now, own, _ = cell_roots.name_of(pid).split("-")
    return f"{cell_roots.PREFIX}{boot or now}-{own if ticks is None else ticks}-{pid}"


def test_a_note_of_before_is_not_believed_where_a_process_has_the_number(
    tmp_path: Path, cleared: list[str], living: "subprocess.Popen[bytes]"
) -> None:
    note = noted(tmp_path, f"banyan-{living.pid}")
    assert not cells.clear(tmp_path)
    assert cleared == []
    assert note.exists()
    living.kill()
    eventually(lambda: tree.ended(living.pid))  # which nobody has reaped
    assert cells.clear(tmp_path)
    assert cleared == [f"banyan-{living.pid}"]
    assert not note.exists()


def test_a_launcher_that_lives_keeps_what_it_has(
    tmp_path: Path, cleared: list[str], living: "subprocess.Popen[bytes]"
) -> None:
    names = [of(living.pid), of(NOBODYS)]
    note = noted(tmp_path, *names)
    assert not cells.clear(tmp_path)
    assert (cleared, note.exists()) == ([], True)
    living.kill()
    living.wait()
    assert cells.clear(tmp_path)
    assert cleared == names


def test_what_an_earlier_one_of_that_number_had_is_cleared(
    tmp_path: Path, cleared: list[str], living: "subprocess.Popen[bytes]"
) -> None:
    earlier = of(living.pid, ticks=1)
    assert earlier != of(living.pid)
    noted(tmp_path, earlier)
    assert cells.clear(tmp_path)
    assert cleared == [earlier]


def test_a_note_of_another_machine_or_start_means_nothing_here(
    tmp_path: Path, cleared: list[str], living: "subprocess.Popen[bytes]"
) -> None:
    other = of(living.pid, ticks=1, boot="0" * 32)
    noted(tmp_path, other)
    assert not cells.clear(tmp_path)
    (tmp_path / other).rmdir()
    assert cells.clear(tmp_path), "as it is where the machine was started anew"
    assert cleared == []


@pytest.mark.parametrize("name", ["other-1", "banyan-", "banyan-one", "banyan-1x", "banyan-a-b-1"])
def test_what_no_launcher_has_made_is_left(tmp_path: Path, cleared: list[str], name: str) -> None:
    noted(tmp_path, name)
    assert not cells.clear(tmp_path)
    assert cleared == []


@NEEDS_CGROUP
def test_a_living_launcher_of_the_same_number_keeps_its_tasks(
    launcher: Launched, tmp_path: Path
) -> None:
    """The note of a dead one names its number; and so does one that was copied."""
    attempt = launcher.shell("exec sleep 1000", limits=limits("cgroup", 64))
    pid = launcher.until("started", attempt)["pid"]
    root, number = cells_of(launcher), launcher.process.pid
    assert root.name == of(number)
    dead = tmp_path / "dead"
    dead.mkdir()
    for name in (f"banyan-{number}", of(number, ticks=1), root.name):
        (dead / cells.NOTE).write_text(str(root.with_name(name)))
        cells.clear(dead)
        cells.clear_forsaken()
    assert alive(pid)
    assert root.is_dir()
    assert launcher.run("echo hello", limits=limits("cgroup", 64))[1] == b"hello\n"


@NEEDS_CGROUP
def test_what_is_left_under_a_number_of_before_does_not_become_a_later_ones(
    launcher: Launched,
) -> None:
    """A root by the number alone may hold tasks of a dead launcher: none goes in beside them."""
    place = next(iter(cells._places()))
    left = place / f"banyan-{launcher.process.pid}"
    left.mkdir()
    try:
        launcher.run("true", limits=limits("cgroup", 64))
        assert cells_of(launcher) != left
        assert [path for path in left.iterdir() if path.is_dir()] == []
    finally:
        left.rmdir()


@NEEDS_CGROUP
def test_a_note_that_is_another_launchers_by_now_stays(launcher: Launched) -> None:
    launcher.run("true", limits=limits("cgroup", 64))
    root = cells_of(launcher)
    note = launcher.state_directory / cells.NOTE
    note.write_text(str(root.with_name("banyan-of-another")))
    launcher.end()
    assert not root.exists()
    assert note.read_text().endswith("banyan-of-another")


def test_who_is_killed_and_cannot_go_is_dead_to_others(
    living: "subprocess.Popen[bytes]", freeze: object
) -> None:
    """Its tasks must end before the lease does, however long the kernel holds it."""
    name = of(living.pid)
    thaw = freeze(living.pid)  # type: ignore[operator]
    assert not cell_roots.is_of_dead(name)
    living.send_signal(signal.SIGSTOP)
    assert not cell_roots.is_of_dead(name), "it may go on"
    living.kill()
    assert not tree.ended(living.pid)
    assert cell_roots.is_of_dead(name)
    thaw()
    assert not cell_roots.is_of_dead(of(os.getpid()))
