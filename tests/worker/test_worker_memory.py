"""A task that uses more memory than it asked for, from the claim to what its owner reads."""

import os
import shlex
import signal
from pathlib import Path

import pytest

from banyan.worker import cells
from tests.harness import eventually
from tests.worker.crew import Crew
from tests.worker.launched import alive

HOARD = "x = bytearray(200 << 20); import time; time.sleep(1000)"


def test_a_task_that_uses_more_than_it_asked_for_ends_as_oom(crew: Crew):
    crew.worker("one", "--cores", "2", "--memory", "2 GiB")
    task = crew.submit(["python3", "-c", HOARD], requested_resources={"memory": "100 MiB"})
    ended = crew.ended(task)
    assert (ended["state"], ended["outcome"]) == ("terminated", "oom")
    attempt = crew.attempts(task)[0]
    assert attempt["exit_status"] == "oom"
    assert "100 MiB" in attempt["reason"]


def test_usual_small_programs_have_room_in_what_a_task_gets_unasked(crew: Crew):
    crew.worker("one", "--cores", "2", "--memory", "2 GiB")
    pool = "import json, re, multiprocessing as m; print(sum(m.Pool(4).map(abs, range(100))))"
    commands = [["python3", "-c", pool], "seq 100000 | sort -r | tail -1", ["true"]]
    tasks = [crew.submit(command) for command in commands]
    assert [crew.ended(task)["outcome"] for task in tasks] == ["success"] * 3


@pytest.mark.skipif(not cells.available(), reason="no writable memory cgroup here")
def test_what_has_no_mark_does_not_outlive_a_killed_launcher(crew: Crew, tmp_path: Path):
    """It has cleared its environment and left its session: only the cgroup tells whose it is."""
    crew.worker("one", "--cores", "1", "--memory", "1 GiB")
    pid_file = tmp_path / "pid"
    inner = f"echo $$ > {pid_file}.new; mv {pid_file}.new {pid_file}; exec sleep 1000"
    bare = ["setsid", "--fork", "env", "-i", "/bin/sh", "-c", inner]
    task = crew.submit(f"{shlex.join(bare)}; sleep 1000", max_lost_count=0)
    pid = int(eventually(lambda: pid_file.exists() and pid_file.read_text()))
    os.kill(crew.launcher(), signal.SIGKILL)
    assert crew.ended(task)["outcome"] == "lost"
    assert not alive(pid)
