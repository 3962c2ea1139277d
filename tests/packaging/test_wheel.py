"""The wheel in a clean environment outside the checkout: it is whole, and it serves."""

import importlib.metadata
import json
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest
import requests

from tests.harness import Api, Processes, marked_processes
from tests.harness.processes import ROOT

BUILT_FROM = ("setup.py", "pyproject.toml", "MANIFEST.in", "settings.py")
BASE = ("click", "requests", "urllib3", "rich")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy: building writes into the tree that it builds from."""
    source, built = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in BUILT_FROM:
        shutil.copy(ROOT / name, source)
    shutil.copytree(
        ROOT / "banyan", source / "banyan", ignore=shutil.ignore_patterns("__pycache__")
    )
    pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(built), str(source))
    [found] = built.glob("banyan-*.whl")
    return found


@pytest.fixture(scope="module")
def clean(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheel alone; what it needs is lent in each test."""
    place = tmp_path_factory.mktemp("clean") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(place)], check=True)
    pip("--python", str(place / "bin" / "python"), "install", "--no-deps", "--no-index", str(wheel))
    return place


def pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def lend(environment: Path, directory: Path) -> None:
    """Let the environment import what is in this directory; its .pth files stay unread."""
    [packages] = environment.glob("lib/python*/site-packages")
    (packages / "lent.pth").write_text(f"{directory}\n")


def run(environment: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run a program of the environment, which knows nothing of the checkout."""
    return subprocess.run(
        [str(environment / "bin" / arguments[0]), *arguments[1:]],
        env={"PATH": "/usr/bin:/bin", "HOME": str(environment)},
        cwd=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )


def only(names: tuple[str, ...], directory: Path) -> Path:
    """A directory with these distributions and all that they need, and nothing else."""
    seen: set[str] = set()
    wanted = list(names)
    while wanted:
        name = wanted.pop()
        if name in seen:
            continue
        seen.add(name)
        found = importlib.metadata.distribution(name)
        for file in found.files or ():
            top = file.parts[0]
            if top != ".." and not (directory / top).exists():
                (directory / top).symlink_to(str(found.locate_file(top)))
        wanted += [
            re.split(r"[^A-Za-z0-9._-]", line)[0]
            for line in found.requires or ()
            if "extra ==" not in line and ";" not in line
        ]
    return directory


def test_the_settings_page_is_inside(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        assert archive.read("banyan/settings.py") == (ROOT / "settings.py").read_bytes()
        tops = {name.split("/")[0] for name in archive.namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"banyan"}


def test_client_and_command_line_need_the_base_only(clean: Path, tmp_path: Path) -> None:
    lend(clean, only(BASE, tmp_path))
    assert run(clean, "banyan", "--help").returncode == 0
    imported = run(clean, "python", "-c", "import banyan.client; print(banyan.client.__file__)")
    assert imported.stdout.startswith(str(clean)), imported.stderr
    refused = run(clean, "banyan", "up")
    assert refused.returncode == 2
    assert "banyan[server" in refused.stderr


def test_up_serves_and_runs_a_task(clean: Path, processes: Processes, tmp_path: Path) -> None:
    lend(clean, Path(sysconfig.get_paths()["purelib"]))
    banyan = str(clean / "bin" / "banyan")
    outside = {"PYTHONPATH": "", "BANYAN_CONFIG": str(tmp_path / "config.toml")}
    up = processes.start(
        [banyan, "up", "--json", "--port", "0", "--data", str(tmp_path / "data")], outside
    )
    ready = json.loads(up.line(60))
    tokens = json.loads(Path(ready["credentials"]).read_text())
    assert requests.get(f"{ready['url']}/readyz", timeout=10).status_code == 200
    made = Api(ready["url"], tokens["provider"]).post("tasks", {"command": "true"})
    assert made.status_code == 201, made.text
    assert_all_from(clean, processes)
    task = processes.start([banyan, "run", "--", "sh", "-c", "echo hi; exit 3"], outside)
    assert task.wait(60) == 3, task.stderr
    assert task.stdout == "hi\n"
    assert up.terminate() == 0


def assert_all_from(environment: Path, processes: Processes) -> None:
    """The processes of the stack have loaded Banyan from the environment, not the checkout."""
    where = "import banyan.server.serve as it; print(it.__file__)"
    assert run(environment, "python", "-c", where).stdout.startswith(str(environment))
    commands = marked_processes(processes.mark).values()
    ours = [command for command in commands if "-m banyan" in command]
    assert len(ours) >= 2, commands
    assert all(command.startswith(str(environment)) for command in ours), ours
