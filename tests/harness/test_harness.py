"""The harness itself: it notices what a test leaves behind, and what never happens."""

import os
import signal
from pathlib import Path

import pytest

from tests.harness import Processes, eventually, marked_processes
from tests.harness.mongo import with_database


def test_a_process_that_is_left_behind_is_killed_and_told(tmp_path: Path) -> None:
    own = Processes(tmp_path)
    own.start(["sh", "-c", "setsid sleep 100 & echo started"]).line()
    eventually(lambda: "sleep 100" in marked_processes(own.mark).values())
    with pytest.raises(AssertionError, match="sleep 100"):
        own.end(grace_seconds=0.1)
    eventually(lambda: not marked_processes(own.mark))


def test_what_still_goes_at_the_end_is_ended(tmp_path: Path) -> None:
    own = Processes(tmp_path)
    started = own.start(["sleep", "100"])
    own.end()
    assert started.process.returncode == -signal.SIGTERM


def test_a_process_that_ends_too_early_fails_with_its_complaints(processes: Processes) -> None:
    started = processes.start(["sh", "-c", "echo no such thing >&2; exit 7"])
    with pytest.raises(AssertionError, match=r"(?s)ended with 7.*no such thing"):
        started.line()


def test_what_never_happens_fails_with_the_last_answer() -> None:
    with pytest.raises(AssertionError, match="last answer: 0"):
        eventually(lambda: 0, seconds=0.05)


def test_a_failed_assertion_is_asked_again_and_shown_at_last() -> None:
    tries = iter([False, False, True])

    def probe() -> bool:
        assert next(tries), "not yet"
        return True

    def never() -> bool:
        raise AssertionError("never")

    assert eventually(probe)
    with pytest.raises(AssertionError) as failure:
        eventually(never, seconds=0.05)
    assert "never" in str(failure.value.__cause__)


def test_no_setting_of_the_user_reaches_a_test() -> None:
    assert not [name for name in os.environ if name.startswith("BANYAN_") and "TEST" not in name]
    assert "home" in os.environ["HOME"]


@pytest.mark.parametrize(
    ("uri", "named"),
    [
        ("mongodb://h:1/?replicaSet=s", "mongodb://h:1/x?replicaSet=s"),
        ("mongodb://h:1/old", "mongodb://h:1/x"),
        ("mongodb://u:p@h:1/?a=b", "mongodb://u:p@h:1/x?a=b&authSource=admin"),
        ("mongodb://u:p@h:1/own", "mongodb://u:p@h:1/x?authSource=own"),
        ("mongodb://u:p@h:1/?authSource=s", "mongodb://u:p@h:1/x?authSource=s"),
    ],
)
def test_another_database_is_named_without_losing_the_credentials(uri: str, named: str) -> None:
    assert with_database(uri, "x") == named
