"""A directory that never answers (NFS, FUSE, autofs) must hold up nobody but the task that asks."""

import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from banyan.worker.limits import Limits
from banyan.worker.places import Places
from banyan.worker.running import Running
from banyan.worker.spawning import Spawned
from banyan.worker.starting import Started
from tests.security import hanging
from tests.security.others import NOBODY
from tests.worker.launched import PATH, Launched
from tests.worker.test_run_as import needs_root, nobody

AS_WHOM = pytest.mark.parametrize("user", [None, pytest.param("nobody", marks=needs_root)])


@pytest.fixture
def silent() -> Iterator[Path]:
    """A directory that does not answer, where other users may look."""
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o755)
        place = Path(directory, "silent")
        place.mkdir()
        try:
            with hanging.mounted(place):
                yield place
        except OSError as problem:
            pytest.skip(f"no FUSE here: {problem}")


def whom(user: str | None) -> dict[str, Any]:
    return {"user": nobody()} if user else {}


def nobody_waits(launcher: Launched, waiting: str) -> None:
    """Others start and end, and what waits can be cancelled."""
    ended, output = launcher.run("echo hello")
    assert (ended["code"], output) == (0, b"hello\n")
    assert not any(each.get("attempt") == waiting for each in launcher.heard)
    launcher.stop(waiting, grace_seconds=0)
    assert launcher.ended(waiting)["why"] == "cancelled"


@AS_WHOM
@pytest.mark.parametrize("below", ["", "/below"])
def test_a_cwd_that_does_not_answer(
    launcher: Launched, silent: Path, user: str | None, below: str
) -> None:
    nobody_waits(launcher, launcher.shell("true", cwd=f"{silent}{below}", **whom(user)))


@AS_WHOM
def test_a_program_that_does_not_answer(launcher: Launched, silent: Path, user: str | None) -> None:
    nobody_waits(launcher, launcher.start([f"{silent}/program"], **whom(user)))
    path = {"PATH": f"/nowhere:{silent}:{PATH}"}
    nobody_waits(launcher, launcher.start(["true"], env=path, **whom(user)))


def test_links_lead_to_it_too(launcher: Launched, silent: Path, tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "further").symlink_to(silent.parent)
    (tmp_path / "link").symlink_to("x/../further/silent")
    nobody_waits(launcher, launcher.shell("true", cwd=f"{tmp_path}/link/below"))


@AS_WHOM
def test_who_waits_too_long_is_told(launcher: Launched, silent: Path, user: str | None) -> None:
    more = {"begin_seconds": 0.3, **whom(user)}
    ended = launcher.ended(launcher.shell("true", cwd=str(silent), **more))
    assert (ended["code"], ended["why"]) == (126, None)
    assert "nobody answers" in ended["reason"]


@needs_root
def test_who_waits_for_the_kernel_is_not_to_blame() -> None:
    """Others can have it make no namespaces for long: the task may run elsewhere."""
    none: Any = None

    def code_of(pid: int, by_user: bool) -> int | None:
        process = Spawned(pid, -1, -1, None, (), by_user)
        running = Running("a", None, Started(process, Limits(), None), none, none)
        running.give_up_start()
        assert running.not_begun
        return running.not_begun.exit_code

    with subprocess.Popen(["sleep", "1000"], group=NOBODY) as of_user:
        assert code_of(of_user.pid, True) == 126
        of_user.kill()
    assert code_of(os.getpid(), False) == 126
    assert code_of(os.getpid(), True) is None


def test_a_task_that_waits_has_its_timeout(launcher: Launched, silent: Path) -> None:
    attempt = launcher.shell("true", cwd=str(silent), timeout_seconds=0.3)
    assert launcher.ended(attempt)["why"] == "timeout"


def test_the_next_agent_is_told_of_it(launcher: Launched, silent: Path) -> None:
    attempt = launcher.shell("true", cwd=str(silent))
    launcher.run("true")
    launcher.hang_up()
    assert [each["attempt"] for each in launcher.call_again()["running"]] == [attempt]
    launcher.stop(attempt, grace_seconds=0)
    assert launcher.ended(attempt)["why"] == "cancelled"


def test_places_are_told_without_a_look_at_them(tmp_path: Path) -> None:
    places = Places()
    place = tmp_path / "silent place"
    place.mkdir()
    (tmp_path / "round").symlink_to("round")
    (tmp_path / "link").symlink_to(place)
    below = [f"{tmp_path}/./x/../silent place/y", f"{tmp_path}/link", str(place)]
    assert places.answer([*below, f"{tmp_path}/round/x", "/", "no\0name"])
    try:
        with hanging.mounted(place):
            assert not any(places.answer([one]) for one in below)
            assert places.answer([str(tmp_path), f"{tmp_path}/silent", "/", os.getcwd()])
    except OSError as problem:
        pytest.skip(f"no FUSE here: {problem}")
    assert places.answer(below), "it is gone"


def test_to_tell_places_apart_is_cheap(silent: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[str] = []
    look = os.readlink
    monkeypatch.setattr(os, "readlink", lambda path: looks.append(path) or look(path))
    places = Places()
    assert not places.answer(["/usr", f"{silent}/x"])
    looks.clear()
    for _ in range(1000):
        assert places.answer(["/usr/local/bin"])
    assert len(looks) < 100, "where it leads is remembered for a while"
