"""A real worker with a real server: claim, run, report, cancel, drain, end."""

import hashlib
import os
import re
import signal
import time
from pathlib import Path

import pytest

from tests.harness import eventually
from tests.worker.crew import Crew, fields_of


@pytest.fixture
def crew(crew: Crew) -> Crew:
    """With one worker of two cores at work."""
    crew.worker("one", "--cores", "2", "--memory", "2 GiB", "--shutdown", "1s")
    crew.registered()
    return crew


def test_a_task_is_claimed_run_and_reported(crew: Crew):
    task = crew.submit("echo hi; echo oh >&2; exit 3")
    ended = crew.ended(task)
    assert (ended["state"], ended["outcome"], ended["reason"]) == (
        "terminated",
        "failure",
        "failure (3)",
    )
    attempt = crew.attempts(task)[0]
    assert (attempt["exit_status"], attempt["exit_code"]) == ("failure (3)", 3)
    assert attempt["time_claimed"] <= attempt["time_started"] <= attempt["time_terminated"]
    assert attempt["log_size_bytes"] == 6
    assert crew.log(task) == b"hi\noh\n"
    assert crew.log(task, stream="stderr") == b"oh\n"


def test_a_list_is_run_without_a_shell(crew: Crew):
    task = crew.submit(["printf", "%s\n", "$HOME; exit 1"])
    assert crew.ended(task)["outcome"] == "success"
    assert crew.log(task) == b"$HOME; exit 1\n"


def test_a_task_knows_who_it_is_and_nothing_of_its_worker(crew: Crew):
    task = crew.submit("env", name="who", env={"GREETING": "hello"})
    crew.ended(task)
    seen = fields_of(crew.log(task))
    attempt = crew.attempts(task)[0]
    expected = {
        "GREETING": "hello",
        "BANYAN_TASK_ID": task,
        "BANYAN_TASK_NAME": "who",
        "BANYAN_ATTEMPT": attempt["_id"],
        "BANYAN_ATTEMPT_COUNT": "1",
        "BANYAN_CORES": "1",
        "BANYAN_MEMORY_BYTES": str(128 << 20),
        "BANYAN_GPUS": "",
        "BANYAN_URL": crew.server.url,
        "BANYAN_WORKER_ID": attempt["worker"],
        "HOME": os.environ["HOME"],
    }
    assert {name: seen.get(name) for name in expected} == expected
    assert seen["PATH"].startswith(os.environ["PATH"]), "the worker's, and where `banyan` is"
    assert crew.server.tokens["worker"] not in crew.log(task).decode()
    assert seen["BANYAN_TASK_TOKEN"]
    allowed = (
        r"BANYAN_.*|LC_.*|PATH|HOME|LANG|TZ|USER|LOGNAME|SHELL|TMPDIR|PWD|_|GREETING|OLDPWD|SHLVL"
        r"|[A-Z]+_NUM_THREADS|POLARS_MAX_THREADS"
    )
    assert [name for name in seen if not re.fullmatch(allowed, name)] == []


def test_a_task_runs_where_it_asks_to(crew: Crew, tmp_path: Path):
    task = crew.submit("pwd -P", cwd=str(tmp_path))
    crew.ended(task)
    assert crew.log(task).decode() == f"{tmp_path.resolve()}\n"


@pytest.mark.parametrize(
    ("fields", "status", "reason"),
    [
        ({"command": ["no-such-program"]}, "failure (127)", "no program 'no-such-program'"),
        ({"command": "true", "cwd": "/no/such"}, "failure (126)", "cwd '/no/such': No such file"),
        ({"command": ["/etc/passwd"]}, "failure (126)", "Permission denied"),
    ],
)
def test_what_cannot_be_started_says_why(crew: Crew, fields: dict, status: str, reason: str):
    task = crew.submit(**fields)
    assert reason in crew.ended(task)["reason"]
    assert crew.statuses(task) == [status]


def test_output_is_there_while_the_task_runs(crew: Crew):
    task = crew.submit("echo first; exec sleep 1000")
    crew.says(task, b"first\n", seconds=3)
    assert crew.state_of(task) == "running"
    crew.server.provider.post(f"tasks/{task}/cancel")
    crew.ended(task)


def test_much_output_arrives_whole(crew: Crew):
    script = "import os, sys; [os.write(1 + n % 2, b'%07d\\n' % n) for n in range(250_000)]"
    task = crew.submit(["python3", "-c", script])
    crew.ended(task, seconds=60)
    lines = crew.log(task, stream="stdout").splitlines()
    assert lines == [b"%07d" % n for n in range(0, 250_000, 2)]
    assert len(crew.log(task)) == 2_000_000


def test_output_that_is_no_text_arrives_as_it_is(crew: Crew):
    script = "import os; os.write(1, bytes(range(256)) * 1000)"
    task = crew.submit(["python3", "-c", script])
    crew.ended(task)
    expected = hashlib.sha256(bytes(range(256)) * 1000).digest()
    assert hashlib.sha256(crew.log(task)).digest() == expected


def test_a_cancel_reaches_a_running_task_within_a_second(crew: Crew):
    task = crew.submit("sleep 1000 & echo ready; wait")
    crew.says(task, b"ready")
    begun = time.monotonic()
    assert crew.server.provider.post(f"tasks/{task}/cancel").status_code == 200
    eventually(lambda: not crew.processes_of(task), 5)
    assert crew.ended(task)["state"] == "cancelled"
    assert time.monotonic() - begun < 1
    assert crew.statuses(task) == ["cancelled"]


def test_a_task_that_ignores_the_cancel_is_killed_after_its_time(crew: Crew):
    task = crew.submit(
        "trap '' TERM; echo ready; while :; do sleep 0.05; done",
        max_shutdown_time_milliseconds=500,
    )
    crew.says(task, b"ready")
    begun = time.monotonic()
    crew.server.provider.post(f"tasks/{task}/cancel")
    crew.until(task, "cancelled")
    assert 0.5 <= time.monotonic() - begun < 3
    assert crew.processes_of(task) == []


@pytest.mark.parametrize("bodies", [[{}, {"force": True}], [{"force": True}]])
def test_a_forced_cancel_kills_what_would_take_its_time(crew: Crew, bodies: list[dict]):
    task = crew.submit(
        "trap '' TERM; echo ready; while :; do sleep 0.05; done",
        max_shutdown_time_milliseconds=600_000,
    )
    crew.says(task, b"ready")
    for body in bodies:
        crew.server.provider.post(f"tasks/{task}/cancel", body)
        crew.until(task, "cancelled" if body else "pending_cancellation")
    assert crew.processes_of(task) == []
    assert crew.statuses(task) == ["cancelled"]


def test_a_second_cancel_is_heard_while_the_first_is_still_at_work(crew: Crew):
    slow = crew.submit(
        "trap '' TERM; echo ready; while :; do sleep 0.05; done",
        max_shutdown_time_milliseconds=4000,
    )
    quick = crew.submit("echo ready; exec sleep 1000")
    for task in (slow, quick):
        crew.says(task, b"ready")
    crew.server.provider.post(f"tasks/{slow}/cancel")
    crew.until(slow, "pending_cancellation")
    begun = time.monotonic()
    crew.server.provider.post(f"tasks/{quick}/cancel")
    crew.until(quick, "cancelled")
    assert time.monotonic() - begun < 1.5
    crew.until(slow, "cancelled")


def test_a_timeout_is_an_outcome_of_its_own(crew: Crew):
    task = crew.submit("exec sleep 1000", timeout_milliseconds=300)
    ended = crew.ended(task)
    assert ended["outcome"] == "timeout"
    assert crew.statuses(task) == ["timeout"]


def test_a_failed_attempt_is_followed_by_the_next(crew: Crew, tmp_path: Path):
    once = tmp_path / "once"
    task = crew.submit(f"test -e {once} || {{ touch {once}; exit 1; }}", max_attempt_count=3)
    assert crew.ended(task)["outcome"] == "success"
    assert crew.statuses(task) == ["failure (1)", "success"]


def test_no_more_runs_than_fits(crew: Crew, tmp_path: Path):
    go = tmp_path / "go"
    script = f"while [ ! -e {go} ]; do sleep 0.05; done"
    tasks = [crew.submit(script) for _ in range(3)]
    eventually(lambda: [crew.state_of(task) for task in tasks].count("running") == 2)
    large = crew.submit("true", requested_resources={"cores": 1, "memory": "2 GiB"})
    assert crew.state_of(tasks[2]) == crew.state_of(large) == "available"
    go.touch()
    for task in (*tasks, large):
        assert crew.ended(task)["outcome"] == "success"


def test_what_comes_free_while_a_claim_waits_is_used_at_once(crew: Crew, tmp_path: Path):
    go = tmp_path / "go"
    os.mkfifo(go)
    blocker = crew.submit(f"echo ready; cat {go}")
    crew.says(blocker, b"ready")  # now a claim for the other core waits at the server
    wide = crew.submit("true", requested_resources={"cores": 2})
    assert crew.state_of(wide) == "available"
    begun = time.monotonic()
    go.write_text("")
    crew.ended(blocker)
    crew.ended(wide)
    assert time.monotonic() - begun < 1.5


def test_many_short_tasks_all_end_once_and_leave_nothing(crew: Crew, tmp_path: Path):
    file = tmp_path / "runs"
    file.touch()
    bodies = [
        {"command": f"echo {n} >> {file}; echo {n}", "state": "available"} for n in range(300)
    ]
    made = crew.server.provider.post("tasks", bodies).json()["_items"]
    for item in made:
        assert crew.ended(item["_id"], seconds=60)["outcome"] == "success"
    assert sorted(map(int, file.read_text().split())) == list(range(300))
    assert crew.log(made[217]["_id"]) == b"217\n"
    eventually(lambda: not list((crew.state() / "output").iterdir()))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_the_first_signal_lets_tasks_finish_and_takes_no_new_ones(
    crew: Crew, tmp_path: Path, number: signal.Signals
):
    go = tmp_path / "go"
    os.mkfifo(go)
    running = crew.submit(f"echo ready; cat {go}; exit 4")
    crew.says(running, b"ready")
    worker = crew.workers[-1]
    worker.signal(number)
    path = f"workers/{crew.registered()}"
    eventually(lambda: crew.server.worker.get(path).json()["mode"] == "draining")
    waiting = crew.submit("true")
    go.write_text("")
    assert crew.ended(running)["reason"] == "failure (4)"
    assert worker.wait() == 0
    assert crew.state_of(waiting) == "available"
    assert crew.server.worker.get(path).status_code == 404
    crew.nothing_left_in()
    crew.server.provider.post(f"tasks/{waiting}/cancel")


def test_the_second_signal_ends_tasks_and_gives_them_back(crew: Crew):
    task = crew.submit("sleep 1000 & echo ready; wait")
    stubborn = crew.submit("trap '' TERM; echo ready; while :; do sleep 0.05; done")
    for each in (task, stubborn):
        crew.says(each, b"ready")
    worker = crew.workers[-1]
    worker.signal(signal.SIGTERM)
    eventually(lambda: "draining" in worker.stderr)
    worker.signal(signal.SIGTERM)
    assert worker.wait(20) == 0
    for each in (task, stubborn):
        assert crew.processes_of(each) == []
        assert crew.state_of(each) == "available", "it may run elsewhere"
        crew.server.provider.post(f"tasks/{each}/cancel")
    crew.nothing_left_in()


def test_an_idle_worker_ends_at_the_first_signal(crew: Crew):
    worker = crew.workers[-1]
    begun = time.monotonic()
    assert worker.terminate() == 0
    assert time.monotonic() - begun < 3
    crew.nothing_left_in()


def test_a_worker_that_is_removed_ends_its_tasks_and_itself(crew: Crew):
    task = crew.submit("sleep 1000 & echo ready; wait")
    crew.says(task, b"ready")
    worker = crew.workers[-1]
    removed = crew.server.operator.delete(f"workers/{crew.registered()}")
    assert removed.status_code == 204, removed.text
    assert worker.wait(20) == 3
    assert crew.processes_of(task) == []
    assert crew.state_of(task) == "available"
    crew.server.provider.post(f"tasks/{task}/cancel")


def test_a_worker_that_an_operator_drains_takes_nothing_new(crew: Crew):
    drained = crew.server.operator.post(f"workers/{crew.registered()}/drain")
    assert drained.status_code == 200
    task = crew.submit("true")
    crew.worker("two")
    assert crew.ended(task)["outcome"] == "success"
    assert crew.attempts(task)[0]["worker"] == crew.registered("two")
