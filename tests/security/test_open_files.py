"""Tasks leave the machine's table of open files to others, and its memory first to the server."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from banyan.worker import open_files, watching
from tests.worker.launched import Launched
from tests.worker.test_run_as import needs_root, nobody

OPEN = "import os\nfor _ in range(900): os.open('/', os.O_RDONLY)\nprint('x', flush=True); input()"


class Attempt:
    """As `crowding` sees one without a cgroup."""

    def __init__(self, pid: int) -> None:
        self.pid, self.cell, self.is_being_killed = pid, None, False


@pytest.fixture
def greedy() -> Iterator[Attempt]:
    """One with many open files."""
    argv = [sys.executable, "-c", OPEN]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stdout.read(1) == b"x"
        yield Attempt(process.pid)


@pytest.fixture
def modest() -> Iterator[Attempt]:
    with subprocess.Popen(["sleep", "1000"]) as process:
        yield Attempt(process.pid)
        process.kill()


@pytest.mark.parametrize(
    ("said", "ends"),
    [
        ("1790 0 2000", True),
        ("1790 100 2000", False),  # so many are free again
        ("1700 0 2000", False),
        ("2790 0 3000", False),  # others have most of them
        ("", False),
        ("nonsense", False),
    ],
)
def test_who_has_most_ends_where_tasks_have_taken_nearly_all(
    greedy: Attempt, modest: Attempt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    said: str, ends: bool,
) -> None:  # fmt: skip
    table = tmp_path / "file-nr"
    table.write_text(said)
    monkeypatch.setattr(open_files, "_TABLE", str(table))
    calm: Any = SimpleNamespace(are_crowded=lambda: False, bound_all=lambda: None)
    both: Any = [modest, greedy]
    ending = watching.crowding(calm, both)
    assert (ending is not None) is ends
    if ending:
        assert ending[0] is both[1]
        assert "too many open files, and it had 1024" in ending[1]
        greedy.is_being_killed = True
        assert watching.crowding(calm, both) is None, "it may be enough"


def test_this_machine_says_how_many_there_are() -> None:
    taken, _, most = map(int, Path(open_files._TABLE).read_text().split())
    assert 0 < taken < most
    assert open_files.too_many() in (0, most // 2)


def until_it_goes_first(launcher: Launched, **more: Any) -> None:
    told = "/proc/self/oom_score_adj"
    script = f"until grep -qx 500 {told}; do sleep 0.01; done; grep . {told}"
    ended, output = launcher.run(script, **more)
    assert (ended["code"], output) == (0, b"500\n")
    assert Path(f"/proc/{launcher.process.pid}/oom_score_adj").read_text() == "0\n"


def test_tasks_end_before_what_serves_others_where_memory_is_short(launcher: Launched) -> None:
    until_it_goes_first(launcher)


@needs_root
def test_so_do_those_of_another_user(launcher: Launched) -> None:
    until_it_goes_first(launcher, user=nobody())


def test_they_never_end_later_than_whoever_runs_the_worker_has_said(launcher: Launched) -> None:
    Path(f"/proc/{launcher.process.pid}/oom_score_adj").write_text("800")
    attempt = launcher.shell("exec sleep 1000")
    pid = launcher.until("started", attempt)["pid"]  # told when all is done to it
    assert Path(f"/proc/{pid}/oom_score_adj").read_text() == "800\n"
