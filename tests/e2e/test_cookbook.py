"""Every recipe of docs/cookbook.md, run as it stands."""

import re
from pathlib import Path

import pytest

from tests.e2e.stack import Stack
from tests.e2e.written import in_order, read, shell
from tests.harness.processes import ROOT

RECIPES = re.findall(
    r"^## (\d+\. .+?)$.*?^```sh\n(.*?)^```\n```text\n(.*?)^```$",
    read("docs/cookbook.md"),
    re.MULTILINE | re.DOTALL,
)


def test_none_is_left_out() -> None:
    numbers = re.findall(r"^## (\d+)\.", read("docs/cookbook.md"), re.MULTILINE)
    assert [int(number) for number in numbers] == list(range(1, len(RECIPES) + 1))


@pytest.mark.parametrize(
    ("commands", "expected"),
    [recipe[1:] for recipe in RECIPES],
    ids=[recipe[0] for recipe in RECIPES],
)
def test_a_recipe_prints_what_it_says(
    stack: Stack, tmp_path: Path, commands: str, expected: str
) -> None:
    in_order(expected, shell(stack, tmp_path, commands, PYTHONPATH=str(ROOT)))
