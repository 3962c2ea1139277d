"""Workers that end by themselves, and what they take meanwhile."""

import signal
import time
from pathlib import Path

from tests.harness import eventually
from tests.worker.crew import Crew

SHORT = ("--cores", "1", "--shutdown", "1s")


def test_an_idle_worker_ends_after_its_limit(crew: Crew):
    worker = crew.worker("one", *SHORT, "--idle-limit", "1s")
    assert worker.wait(20) == 0
    assert "idle limit" in worker.stderr
    crew.nothing_left_in()


def test_work_starts_the_idle_limit_anew(crew: Crew):
    worker = crew.worker("one", *SHORT, "--idle-limit", "2s")
    crew.registered()
    begun = time.monotonic()
    tasks = [crew.submit("sleep 1") for _ in range(3)]
    assert {crew.ended(task)["outcome"] for task in tasks} == {"success"}
    assert worker.process.poll() is None
    assert worker.wait(20) == 0
    assert time.monotonic() - begun > 4.9


def test_a_worker_takes_only_what_ends_within_its_limit(crew: Crew):
    """By its estimate or its timeout; what says nothing is taken."""
    long = [
        crew.submit("true", estimated_runtime_milliseconds="2h", priority=5),
        crew.submit("true", timeout_milliseconds="2h", priority=5),
    ]
    short = [
        crew.submit("true", estimated_runtime_milliseconds="2s"),
        crew.submit("true", timeout_milliseconds="20s"),
        crew.submit("true", timeout_milliseconds="2h", estimated_runtime_milliseconds="2s"),
        crew.submit("true"),
    ]
    crew.worker("one", *SHORT, "--time-limit", "1h")
    assert {crew.ended(task)["outcome"] for task in short} == {"success"}
    assert [crew.state_of(task) for task in long] == ["available", "available"]
    crew.worker("two", *SHORT, "--time-limit", "3h")
    assert {crew.ended(task)["outcome"] for task in long} == {"success"}


def test_at_the_time_limit_what_runs_is_given_back(crew: Crew):
    worker = crew.worker("one", *SHORT, "--time-limit", "4s")
    task = crew.submit("echo ready; sleep 1000")
    crew.says(task, b"ready")
    old = crew.processes_of(task)
    begun = time.monotonic()
    assert old
    assert worker.wait(20) == 0
    assert time.monotonic() - begun < 4.5
    assert crew.processes_of(task) == []
    assert (crew.state_of(task), crew.task(task)["outcome"]) == ("available", None)
    crew.nothing_left_in()
    crew.server.provider.post(f"tasks/{task}/cancel")


def test_a_drained_worker_finishes_what_it_has_begun(crew: Crew, tmp_path: Path):
    crew.worker("one", *SHORT)
    go = tmp_path / "go"
    begun = crew.submit(f"echo ready; until test -e {go}; do sleep 0.05; done")
    crew.says(begun, b"ready")
    worker = crew.registered()
    assert crew.server.operator.post(f"workers/{worker}/drain").status_code == 200
    waiting = crew.submit("true")
    go.touch()
    assert crew.ended(begun)["outcome"] == "success"
    eventually(lambda: crew.server.operator.get(f"workers/{worker}").json()["mode"] == "draining")
    assert crew.state_of(waiting) == "available"
    one = crew.workers[0]
    one.signal(signal.SIGTERM)
    assert one.wait() == 0
    assert crew.state_of(waiting) == "available"
    crew.server.provider.post(f"tasks/{waiting}/cancel")
