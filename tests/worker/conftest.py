"""A launcher for each test that asks for one."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.worker.launched import Launched


@pytest.fixture
def launcher(tmp_path: Path) -> Iterator[Launched]:
    """A launcher of the test's own; at the end nothing of it may be left."""
    state_directory = tmp_path / "state"
    state_directory.mkdir()
    launched = Launched(state_directory)
    yield launched
    launched.end()
    assert launched.process.returncode in (0, -9), (state_directory / "launcher.stderr").read_text()
    stderr = (state_directory / "launcher.stderr").read_text()
    assert not stderr, stderr
