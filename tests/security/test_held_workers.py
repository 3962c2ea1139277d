"""A worker, of which somebody holds the pipe of a task: it loses no other, and can end."""

import signal
from pathlib import Path

from tests.security import pipe_holder
from tests.security.test_held_pipes import SAID, Accomplice
from tests.worker.crew import Crew

HOLDER = pipe_holder.__file__


def test_no_task_is_lost_and_the_worker_ends(crew: Crew, tmp_path: Path) -> None:
    worker = crew.worker("one", "--cores", "8")
    crew.registered()
    victim = crew.submit("sleep 1000")
    crew.until(victim, "running")
    launcher = crew.launcher()
    own = [crew.submit(["python3", HOLDER, "own", "0"]) for _ in range(3)]
    accomplice = Accomplice(tmp_path, launcher)
    try:
        given = crew.submit(["python3", HOLDER, "give", accomplice.path])
        others = [crew.submit("echo hello") for _ in range(10)]
        for each in (*own, given):
            crew.ended(each, 60)
            [attempt] = crew.attempts(each)
            assert attempt["exit_status"] == "failure (SIGKILL)"
            assert SAID in attempt["reason"]
        for each in others:
            crew.ended(each, 60)
            assert crew.statuses(each) == ["success"]
        assert (crew.state_of(victim), len(crew.attempts(victim))) == ("running", 1)
        assert crew.launcher() == launcher
        crew.server.provider.post(f"tasks/{victim}/cancel")
        crew.ended(victim)
        worker.signal(signal.SIGTERM)
        worker.wait(60)  # and not for whoever holds the pipe yet
        assert accomplice.process.poll() is None
        crew.nothing_left_in()
    finally:
        accomplice.let_go()
