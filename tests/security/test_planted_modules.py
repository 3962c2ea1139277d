"""What others put into the current directory is never imported by a Python of ours."""

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from banyan.client import calls, new_tasks
from banyan.server import services
from banyan.worker import launching
from tests.worker.launched import Launched

ROOT = Path(__file__).parents[2]
# Some that each of them imports, from the standard library and from elsewhere.
NAMES = ["ctypes", "select", "resource", "json", "click", "requests", "sitecustomize"]
NAMES += ["banyan", "cloudpickle", "pickle"]


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


# --- The tasks of an Executor -------------------------------------------------------------


def called(call: Callable[..., Any], path: str = str(ROOT)) -> tuple[bool, Any]:
    """What a task of this callable tells that starts in the current directory."""
    with pytest.MonkeyPatch.context() as changed:
        changed.setenv("PYTHONPATH", path)
        fields = new_tasks.of_call(call, (), {}, "")
    reading, writing = os.pipe()
    answer = {calls.ANSWER: f"{writing} 4096"}
    environment = {"PATH": os.environ["PATH"], **fields["env"], **answer}
    subprocess.run(fields["command"], env=environment, pass_fds=[writing], check=False)
    os.close(writing)
    with open(reading, "rb") as told:
        return calls.answer_in(told.read())


def use_the_library() -> str:
    import json
    import pickle

    return json.dumps([pickle.loads(pickle.dumps(1))])  # noqa: S301


@pytest.mark.parametrize("first", ["nothing", "", "absolute"])
@pytest.mark.parametrize("entries", ["{root}", ":{root}", "{root}:"])
def test_a_callable_imports_nothing_from_where_its_task_starts(
    planted: Path, first: str, entries: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the program that submits it looks there itself, as a notebook does."""
    places = {"nothing": [], "": [""], "absolute": [os.getcwd()]}[first]
    monkeypatch.setattr(sys, "path", [*places, *sys.path])
    assert called(use_the_library, entries.format(root=ROOT)) == (True, "[1]")


def test_a_callable_finds_there_what_its_program_finds_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "only_here.py").write_text("VALUE = 3\n")
    monkeypatch.chdir(tmp_path)

    def look() -> Any:
        import only_here

        return only_here.VALUE

    returned, raised = called(look)
    assert (returned, type(raised)) == (False, ModuleNotFoundError)
    monkeypatch.setattr(sys, "path", ["", *sys.path])
    assert called(look) == (True, 3)


# --- The scripts --------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["", ":", "{root}::", ":{root}"])
def test_the_quickstart_does_not_either(planted: Path, tmp_path: Path, path: str) -> None:
    """Its Python says how `banyan up` is used, and has no graph to submit."""
    python = tmp_path / "python"
    python.write_text(
        '#!/bin/sh\ncase "$*" in *submit.py*) exit 3;; esac\n'
        f'echo "$PYTHONPATH" >> {tmp_path}/paths\nexec {sys.executable} "$@" --help\n'
    )
    python.chmod(0o755)
    environment = {
        "BANYAN_PYTHON": str(python), "BANYAN_QUICKSTART_DATA": str(tmp_path / "data"),
        "PYTHONPATH": path.format(root=ROOT),
    }  # fmt: skip
    command = [ROOT / "scripts" / "quickstart"]
    assert subprocess.run(command, env={**os.environ, **environment}).returncode == 3
    assert "Usage: banyan up" in (tmp_path / "data" / "ready.json").read_text()
    assert set((tmp_path / "paths").read_text().strip().split(":")) == {str(ROOT)}


STARTS_A_MODULE = re.compile(r"python\S*\"? (?!-[IP])(?:-\w+ )*-(?:m|c '[^'\n]*import) ?\S*")


def test_whatever_we_show_or_start_leaves_the_current_directory_out() -> None:
    """A shell script may go to the checkout first: who wrote that is trusted."""
    shown = [*(ROOT / "docs").rglob("*.md"), ROOT / "README.md", *(ROOT / "deploy").rglob("*")]
    scripts = [ROOT / ".ci" / "run", *(ROOT / "scripts").iterdir()]
    texts = {each: each.read_text() for each in (*shown, *scripts) if each.is_file()}
    found = {
        f"{file.name}: {line.strip()}"
        for file, text in texts.items()
        if not re.search(r'^cd "\$\(dirname "\$0"\)/\.\."$', text, re.MULTILINE)
        for line in text.splitlines()
        if STARTS_A_MODULE.search(line)
    }
    assert {each for each in found if "scripts/bench_waiting.py" not in each} == set()


def test_whatever_our_own_code_starts_does_too() -> None:
    lines = [
        line
        for file in (ROOT / "banyan").rglob("*.py")
        for line in file.read_text().splitlines()
        if re.search(r"sys\.executable\b.*, ", line)
    ]
    assert len(lines) >= 4
    assert [line for line in lines if not re.search(r"sys\.executable, \"-[IP]\"", line)] == []
