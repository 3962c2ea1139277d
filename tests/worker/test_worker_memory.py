"""A task that uses more memory than it asked for, from the claim to what its owner reads."""

from tests.worker.crew import Crew

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
