"""The benchmark runs, small, and has a figure in every row."""

import json
import subprocess
import sys
from pathlib import Path


def test_the_quick_form_measures_one_task_and_many_workers(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.bench", "--quick", "--out", str(tmp_path), "w2", "w5"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert ran.returncode == 0, ran.stderr
    (written,) = tmp_path.glob("*.json")
    measured = json.loads(written.read_text())["figures"]
    assert measured["W2, median"]["value"] > 0
    assert measured["W5, 2 server processes, errors and tasks lost"]["value"] == 0
    assert all(f"| {what} |" in ran.stdout for what in measured)
