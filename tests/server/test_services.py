"""What is started again when it ends, and what is not."""

import logging
import sys
from collections.abc import Iterator

import pytest

from banyan.errors import BanyanError
from banyan.server.processes import Child, spawn
from banyan.server.services import Service
from tests.harness import eventually


@pytest.fixture
def ends() -> Iterator[list[Child]]:
    started: list[Child] = []
    yield started
    for child in started:
        child.stop(5)


def tended(service: Service) -> bool:
    service.tend()
    return False


def test_what_cannot_work_as_it_was_told_to_is_not_tried_again(ends: list[Child]) -> None:
    def start() -> Child:
        ends.append(spawn("worker", [sys.executable, "-c", "raise SystemExit(2)"]))
        return ends[-1]

    service = Service("worker", start)
    service.begin()
    with pytest.raises(BanyanError, match="the worker cannot work as it was told to") as caught:
        eventually(lambda: tended(service))
    assert caught.value.word == "usage"
    assert len(ends) == 1


def test_what_was_killed_is_started_again_and_told(
    ends: list[Child], caplog: pytest.LogCaptureFixture
) -> None:
    def start() -> Child:
        ends.append(spawn("server", ["sleep", "600"]))
        return ends[-1]

    service = Service("server", start)
    service.begin()
    ends[0].process.kill()
    with caplog.at_level(logging.WARNING):
        eventually(lambda: tended(service) or len(ends) == 2)
    assert "was killed by signal 9; it is started again" in caplog.text
