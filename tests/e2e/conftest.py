"""A stack for each file of end-to-end tests: server, worker, and the command line beside them."""

from collections.abc import Iterator

import pytest

from tests.e2e.stack import Stack
from tests.harness import Processes


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, mongo: str) -> Iterator[Stack]:
    """`banyan up --cores 4`."""
    directory = tmp_path_factory.mktemp("stack")
    processes = Processes(directory)
    yield Stack(processes, directory, "--cores", "4")
    processes.end()
