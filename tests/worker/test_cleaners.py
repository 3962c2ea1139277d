"""Somebody removes old files, and means no harm: the worker goes on, and says what is gone."""

import os
import re
from pathlib import Path

import pytest

from tests.harness import eventually
from tests.worker.crew import Crew
from tests.worker.test_worker_survives import freeze_server, running_task, thaw_server


def empty(directory: Path) -> None:
    """Removes all that is in it, the directories too."""
    for path in sorted(directory.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()


@pytest.mark.parametrize("itself", [False, True], ids=["what is in it", "the directory itself"])
def test_an_emptied_state_directory_is_whole_again_and_nothing_is_lost(
    crew: Crew, tmp_path: Path, itself: bool
):
    go = tmp_path / "go"
    os.mkfifo(go)
    worker = crew.worker("one", "--cores", "2")
    task = running_task(crew, f"seq 20000; echo ready; cat {go}; echo last")
    id, launcher = crew.registered(), crew.launcher()
    needed = set(os.listdir(crew.state())) - {"launcher.stderr"}
    empty(crew.state())
    if itself:
        crew.state().rmdir()
    eventually(lambda: crew.state().exists() and set(os.listdir(crew.state())) >= needed)
    said = r"WARNING somebody has removed lock, output, worker.json, launcher.socket, launcher.pid"
    assert re.search(said, worker.stderr), worker.stderr
    worker.kill()
    crew.worker("one", "--cores", "2")  # finds all that the first one has left
    go.write_text("on\n")
    assert crew.ended(task)["outcome"] == "success"
    assert crew.statuses(task) == ["success"]
    assert crew.log(task) == b"".join(b"%d\n" % n for n in range(1, 20_001)) + b"ready\non\nlast\n"
    assert (crew.registered(), crew.launcher()) == (id, launcher)
    eventually(lambda: not list((crew.state() / "output").iterdir()))


def test_another_worker_cannot_begin_in_a_directory_whose_lock_was_removed(crew: Crew):
    worker = crew.worker("one", "--cores", "1")
    crew.registered()
    lock = crew.state() / "lock"
    before = lock.stat().st_ino
    lock.unlink()
    eventually(lambda: lock.exists() and lock.stat().st_ino != before and "lock" in worker.stderr)
    second = crew.worker("one", "--cores", "1")
    assert second.wait(20) == 4
    assert "another worker is at work" in second.stderr


def test_output_of_running_tasks_that_was_removed_is_told_and_whole(crew: Crew, tmp_path: Path):
    go = tmp_path / "go"
    os.mkfifo(go)
    worker = crew.worker("one", "--cores", "1")
    task = running_task(crew, f"seq 20000; echo ready; cat {go}; seq 20000")
    outputs = crew.state() / "output"
    empty(outputs)
    outputs.rmdir()
    go.write_text("on\n")
    assert crew.ended(task).get("reason") is None
    numbers = b"".join(b"%d\n" % n for n in range(1, 20_001))
    assert crew.log(task) == numbers + b"ready\non\n" + numbers
    eventually(lambda: "removed output of running tasks" in worker.stderr)


def test_output_of_an_ended_task_that_is_removed_before_the_server_has_it_is_told(crew: Crew):
    worker = crew.worker("one", "--cores", "1")
    task = running_task(crew, "echo ready; sleep 0.5; head -c 9000000 /dev/zero")
    freeze_server(crew)
    eventually(lambda: not crew.processes_of(task), 10)
    outputs = crew.state() / "output"
    eventually(lambda: sum(one.stat().st_size for one in outputs.iterdir()) > 9_000_000)
    empty(outputs)
    thaw_server(crew)
    ended = crew.ended(task)
    said = "output lost: somebody has removed its file from the worker's state directory"
    assert (ended["outcome"], ended["reason"]) == ("success", said)
    assert len(crew.log(task)) < 9_000_000  # a report was on its way
    assert "is lost: somebody has removed its file" in worker.stderr
    token = crew.server.tokens["provider"]
    log = crew.processes.banyan(
        "log", task, environment={"BANYAN_URL": crew.url, "BANYAN_TOKEN": token}
    )
    assert (log.wait(20), log.stderr.strip()) == (0, f"banyan: task {task}: {said}")
