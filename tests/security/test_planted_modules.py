"""What others put into the current directory is never imported by a Python of ours."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from banyan.server import services
from banyan.worker import launching
from tests.worker.launched import Launched

ROOT = Path(__file__).parents[2]
# Some that each of them imports, from the standard library and from elsewhere.
NAMES = ["ctypes", "select", "resource", "json", "click", "requests", "sitecustomize"]


@pytest.fixture
def planted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where the planted modules say that they ran; the current directory holds them."""
    place, told = tmp_path / "open", tmp_path / "told"
    place.mkdir()
    told.mkdir()
    for name in NAMES:
        (place / f"{name}.py").write_text(f"open({str(told / name)!r}, 'w').close()\n")
    monkeypatch.chdir(place)
    yield told
    assert list(told.iterdir()) == []


def begin_and_end(state: Path) -> None:
    state.mkdir()
    launcher = Launched(state)
    try:
        assert launcher.run("echo hello")[1] == b"hello\n"
        assert os.readlink(f"/proc/{launcher.process.pid}/cwd") == "/"
    finally:
        launcher.end()


def test_the_launcher_imports_nothing_from_the_current_directory(
    planted: Path, tmp_path: Path
) -> None:
    begin_and_end(tmp_path / "state")


@pytest.mark.parametrize("name", ["PYTHONPATH", "PYTHONHOME", "PYTHONWARNINGS"])
def test_nor_what_the_environment_says(
    planted: Path, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    value = "error::click.Warning" if name == "PYTHONWARNINGS" else str(tmp_path / "open")
    monkeypatch.setenv(name, value)
    begin_and_end(tmp_path / "state")


def test_a_module_beside_banyan_does_not_stand_in_for_one_of_the_library(
    planted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where many packages share one directory."""
    (tmp_path / "open" / "banyan").symlink_to(ROOT / "banyan")
    python = launching._python()
    monkeypatch.setattr(launching, "_python", lambda: [*python[:-1], str(tmp_path / "open")])
    begin_and_end(tmp_path / "state")


@pytest.mark.parametrize("entries", ["{root}", ":{root}", "{root}:"])
def test_nor_do_the_services_of_the_supervisor(
    planted: Path, entries: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is first on the path of the supervisor, as after `python -m banyan`."""
    monkeypatch.setenv("PYTHONPATH", entries.format(root=ROOT))
    with monkeypatch.context() as changed:
        changed.setattr(sys, "path", [os.getcwd(), *sys.path])
        command, environment = services.python("banyan", "ls", "--help"), services.environment()
    assert subprocess.run(command, env=environment, stdout=subprocess.DEVNULL).returncode == 0


def test_a_checkout_is_found_from_within(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    show = "import banyan, sys; print(banyan.__file__)"
    command = [*services.python("banyan")[:-2], "-c", show]
    told = subprocess.run(command, env=services.environment(), capture_output=True, text=True)
    assert told.stdout.strip() == str(ROOT / "banyan" / "__init__.py")
