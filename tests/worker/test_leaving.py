"""A worker that is told to end while the server is away: it tells what it can, and then ends."""

import json
import signal

from banyan.errors import EXIT_UNAVAILABLE
from banyan.worker.timers import now
from tests.harness import Started, eventually
from tests.worker.crew import Crew, gone
from tests.worker.test_worker_survives import freeze_server, thaw_server

NOT_DELIVERED = "does not know yet what became of 1 task"


def with_a_result(crew: Crew) -> tuple[Started, str]:
    """A worker that drains, and its task, which has ended while the server stood still."""
    go = crew.directory / "go"
    worker = crew.worker("one", "--cores", "1")
    task = crew.submit(f"echo ready; until [ -e {go} ]; do sleep 0.05; done; echo done; exit 7")
    crew.says(task, b"ready")
    freeze_server(crew)
    worker.signal(signal.SIGTERM)
    eventually(lambda: "draining" in worker.stderr)
    go.touch()
    eventually(lambda: gone(crew.processes_of(task)))
    return worker, task


def test_what_it_could_not_tell_is_told_when_the_server_is_back(crew: Crew) -> None:
    worker, task = with_a_result(crew)
    eventually(lambda: NOT_DELIVERED in worker.stderr)
    assert worker.process.poll() is None
    thaw_server(crew)
    assert worker.wait(20) == 0, worker.stderr
    assert crew.statuses(task) == ["failure (7)"]
    assert crew.log(task) == b"ready\ndone\n"
    crew.nothing_left_in()


def test_it_ends_when_the_lease_is_over(hurried: Crew) -> None:
    worker, task = with_a_result(hurried)
    assert worker.wait(20) == EXIT_UNAVAILABLE
    assert "never heard what became of 1 task" in worker.stderr
    hurried.nothing_left_in()
    thaw_server(hurried)
    hurried.worker("two", "--cores", "1")
    assert hurried.ended(task)["outcome"] == "failure"
    assert hurried.statuses(task) == ["lost", "failure (7)"]


def test_one_that_is_told_after_the_lease_ends_at_once(hurried: Crew) -> None:
    worker = hurried.worker("one", "--cores", "1")
    task = hurried.submit("echo ready; exec sleep 1000")
    hurried.says(task, b"ready")
    freeze_server(hurried)
    left = hurried.state("one") / "worker.json"
    lease_seconds = json.loads(left.read_text())["lease_seconds"]
    frozen = now()
    eventually(lambda: gone(hurried.processes_of(task)) and now() > frozen + lease_seconds)
    worker.signal(signal.SIGTERM)
    assert worker.wait(10) == EXIT_UNAVAILABLE
    thaw_server(hurried)


def test_a_second_signal_shortens_the_wait(crew: Crew) -> None:
    worker, task = with_a_result(crew)
    worker.signal(signal.SIGTERM)
    assert worker.wait(20) == EXIT_UNAVAILABLE, "long before the lease of a minute is over"
    thaw_server(crew)
    crew.worker("one", "--cores", "1")  # it gives back what the one before could not tell
    assert crew.ended(task)["outcome"] == "failure"
    assert crew.statuses(task) == ["lost", "failure (7)"]
