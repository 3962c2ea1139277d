"""The environment of the peers: a virtual one in `.bench-venv`, and two system packages.

Called by `beside.py`. Nothing of it is needed for anything else. What cannot be installed
is left out: its row of the table says so.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HOME = ROOT / ".bench-venv"
PYTHON = HOME / "bin" / "python"
_WANTED = Path(__file__).parent / "peers" / "requirements.txt"
_STAMP = HOME / "installed.txt"
_PROGRAMS = {"redis-server": "redis-server", "slurmctld": "slurm-wlm", "munged": "munge"}


def prepare() -> None:
    """Install what lacks; complaints go to standard error."""
    if not PYTHON.exists():
        subprocess.run([sys.executable, "-m", "venv", HOME], check=True)
    if not _STAMP.exists() or _STAMP.read_text() != _WANTED.read_text():
        _install_python_packages()
    missing = [package for program, package in _PROGRAMS.items() if not shutil.which(program)]
    if missing and os.geteuid() == 0 and shutil.which("apt-get"):
        _install_system_packages(missing)


def _install_python_packages() -> None:
    quiet = [PYTHON, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    whole = subprocess.run([*quiet, "-r", _WANTED], check=False)
    if whole.returncode == 0:
        shutil.copy(_WANTED, _STAMP)
        return
    for line in _WANTED.read_text().splitlines():  # as many of them as there can be
        subprocess.run([*quiet, line.partition("#")[0].strip()], check=False)


def _install_system_packages(names: list[str]) -> None:
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    command = ["apt-get", "install", "--yes", "--quiet", "--no-install-recommends", *names]
    done = subprocess.run(command, env=environment, check=False, stdout=subprocess.DEVNULL)
    if done.returncode:
        print(f"not installed: {', '.join(names)}", file=sys.stderr)
