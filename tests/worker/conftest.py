"""A launcher, or workers with a server, for each test that asks for them."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.harness import Processes, Server
from tests.worker.crew import Crew
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


@pytest.fixture
def crew(processes: Processes, server: Server, tmp_path: Path) -> Iterator[Crew]:
    """Workers for the server that the tests of one file share."""
    own = Crew(processes, server, tmp_path)
    yield own
    own.dismiss()


@pytest.fixture
def hurried(processes: Processes, serve: Callable[..., Server], tmp_path: Path) -> Iterator[Crew]:
    """Workers for a server of the test's own, whose leases are short."""
    server = serve(LEASE_SECONDS=3, LEASE_MARGIN_SECONDS=1, UPKEEP_SECONDS=0.2)
    own = Crew(processes, server, tmp_path)
    yield own
    own.dismiss()
