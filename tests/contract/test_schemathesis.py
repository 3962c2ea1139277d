"""Random requests made from /openapi.json: no 5xx, no answer outside of it, nothing invalid taken.

A short run with a fixed seed. `scripts/fuzz-api` searches for long; BANYAN_FUZZ_CASES here
does the same with this many cases an operation.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.fuzzing import CALLERS, allowed, fuzz
from tests.harness import Processes, Server, start_server

CASES = int(os.environ.get("BANYAN_FUZZ_CASES", "0"))
SHORT = ("--phases", "fuzzing")
SHORT_CASES = {"provider": 2, "worker": 2, "admin": 4, "anonymous": 1}
SEED = 7


@pytest.fixture(scope="module")
def server(module_database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that holds no request for long: a random `Prefer` may ask to wait."""
    directory = tmp_path_factory.mktemp("fuzzed")
    own = Processes(directory)
    yield start_server(own, directory / "data", module_database, WAIT_SECONDS_MAX=0.05)
    own.end()


@pytest.mark.timeout(7200 if CASES else 120)
@pytest.mark.parametrize("caller", CALLERS)
def test_random_requests_find_nothing(server: Server, caller: str, tmp_path: Path):
    options = [] if CASES else [*SHORT, *allowed(server, caller)]
    cases = CASES or SHORT_CASES[caller]
    done = fuzz(server, caller, cases, SEED, *options, directory=tmp_path)
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-4_000:]
    assert "Internal Server Error" not in server.started.stderr
