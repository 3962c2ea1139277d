"""The benchmark runs, small, has a figure in every row, and writes its tables where they belong."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.bench import page
from tests.bench.figures import Figure


@pytest.mark.timeout(300)  # two stacks and a hundred workers, on a machine that may be busy
def test_the_quick_form_measures_many_workers(tmp_path: Path) -> None:
    written = tmp_path / "page.md"
    written.write_text("before\n<!-- figures -->\nold\n<!-- /figures -->\nafter\n")
    command = [sys.executable, "-m", "tests.bench", "--quick", "--out", str(tmp_path), "w5"]
    ran = subprocess.run(
        [*command, "--write", str(written)],
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    (results,) = tmp_path.glob("*.json")
    measured = json.loads(results.read_text())["figures"]
    for how in ("1 server process, claims of 16", "2 server processes, claims of 256"):
        assert measured[f"W5, {how}"]["value"] > 0
        assert measured[f"W5, {how}, server"]["value"] > 0
        assert measured[f"W5, {how}, errors and tasks lost"]["value"] == 0
    assert all(f"| {what} |" in ran.stdout for what in measured)
    assert ran.stdout.strip() in written.read_text()
    assert "old" not in written.read_text()


def test_a_page_without_the_part_is_left_alone(tmp_path: Path) -> None:
    written = tmp_path / "page.md"
    written.write_text("<!-- peers -->\n<!-- /peers -->\n")
    with pytest.raises(ValueError, match="0 parts 'figures'"):
        page.put(written, "figures", "new")
    assert "new" not in written.read_text()


@pytest.mark.parametrize(
    ("figure", "verdict"),
    [
        (Figure("rate", 4000, least=4000), "reached"),
        (Figure("rate", 3999, least=4000), "missed"),
        (Figure("time", 151, most=150), "missed"),
        (Figure("time", 1e9), ""),
    ],
)
def test_a_figure_says_whether_its_target_is_reached(figure: Figure, verdict: str) -> None:
    assert figure.verdict == verdict
