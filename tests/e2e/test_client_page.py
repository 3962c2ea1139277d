"""Every program of docs/client.md, run as it stands, prints what the page says."""

import re
from pathlib import Path

import pytest

from tests.e2e.stack import Stack
from tests.e2e.written import read, shell
from tests.harness.processes import ROOT

PAGE = read("docs/client.md")
PROGRAMS = re.findall(r"^```python\n(.*?)^```\n```text\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def test_none_is_left_out() -> None:
    assert len(PROGRAMS) == len(re.findall("^```python$", PAGE, re.MULTILINE)) == 3


@pytest.mark.parametrize(("program", "expected"), PROGRAMS, ids=["executor", "client", "in a task"])
def test_a_program_prints_what_the_page_says(
    stack: Stack, tmp_path: Path, program: str, expected: str
) -> None:
    (tmp_path / "program.py").write_text(program)
    assert shell(stack, tmp_path, "python3 program.py", PYTHONPATH=str(ROOT)) == expected
