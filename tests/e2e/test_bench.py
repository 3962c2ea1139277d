"""The benchmark runs, small, and has a figure in every row."""

import json
import subprocess
import sys
from pathlib import Path


def test_the_quick_form_measures_lists_and_one_task(tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    command = [sys.executable, "-m", "tests.bench", "--quick", "--json", str(figures), "api", "w2"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert ran.returncode == 0, ran.stderr
    measured = json.loads(figures.read_text())
    assert len(measured) == 10
    assert all(figure > 0 for figure in measured.values())
    assert all(f"| {what} |" in ran.stdout for what in measured)
