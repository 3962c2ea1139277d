"""What a worker offers, and what it therefore gets."""

import sys
from pathlib import Path

from tests.contract.playing import Player
from tests.harness import Processes, eventually
from tests.worker.crew import Crew


def test_queues_and_labels_decide_who_runs_a_task(crew: Crew):
    crew.worker("plain")
    crew.worker("night", "--queue", "night", "--label", "disk=fast")
    night = crew.submit("true", queue="night")
    fast = crew.submit("true", queue="night", labels={"disk": "fast"})
    plain = crew.submit("true")
    other = crew.submit("true", queue="night", labels={"disk": "slow"})
    workers = [crew.ended(task) and crew.attempts(task)[0]["worker"] for task in (night, fast)]
    assert workers == [crew.registered("night")] * 2
    crew.ended(plain)
    assert crew.attempts(plain)[0]["worker"] == crew.registered("plain")
    assert crew.state_of(other) == "available"
    crew.server.provider.post(f"tasks/{other}/cancel")


def test_custom_things_are_counted(crew: Crew):
    crew.worker("one", "--cores", "4", "--custom", "licence=1")
    needs = {"cores": 1, "custom": {"licence": 1}}
    script = "test ! -e busy && touch busy && sleep 0.1 && rm busy"
    tasks = [
        crew.submit(script, requested_resources=needs, cwd=str(crew.directory)) for _ in range(4)
    ]
    assert {crew.ended(task)["outcome"] for task in tasks} == {"success"}


def test_gpus_are_handed_out_by_index(crew: Crew):
    crew.worker("one", "--cores", "4", "--gpus", "2")
    needs = {"cores": 1, "gpus": 1}
    script = 'echo "$CUDA_VISIBLE_DEVICES/$BANYAN_GPUS"; sleep 0.3'
    tasks = [crew.submit(script, requested_resources=needs) for _ in range(2)]
    without = crew.submit('echo "[$CUDA_VISIBLE_DEVICES]"')
    for task in (*tasks, without):
        assert crew.ended(task)["outcome"] == "success"
    assert sorted(crew.log(task) for task in tasks) == [b"0/0\n", b"1/1\n"]
    assert crew.log(without) == b"[]\n", "a task sees only the GPUs that it was granted"


def test_two_workers_cannot_share_a_state_directory(crew: Crew):
    crew.worker()
    crew.registered()
    second = crew.worker()
    assert second.wait(20) == 4
    assert "another worker is at work" in second.stderr


def test_a_wrong_token_ends_the_worker_with_a_clear_word(crew: Crew, tmp_path: Path):
    token_file = tmp_path / "token"
    token_file.write_text("nonsense")
    started = crew.processes.banyan(
        "worker", "--url", crew.server.url, "--token-file", str(token_file)
    )
    assert started.wait(20) == 5


def test_a_token_file_may_hold_the_token_alone(crew: Crew, tmp_path: Path):
    token_file = tmp_path / "token"
    token_file.write_text(crew.server.tokens["worker"] + "\n")
    crew.processes.banyan(
        "worker", "--url", crew.server.url, "--token-file", str(token_file), "--cores", "1"
    )
    task = crew.submit("true")
    assert crew.ended(task)["outcome"] == "success"


def test_without_a_state_directory_workers_find_places_of_their_own(
    crew: Crew, processes: Processes, tmp_path: Path
):
    arguments = ["--url", crew.server.url, "--token-file", str(crew.server.credentials)]
    environment = {"XDG_STATE_HOME": str(tmp_path / "xdg")}
    for _ in range(2):
        processes.banyan("worker", *arguments, "--cores", "1", environment=environment)
    tasks = [crew.submit("sleep 0.5", requested_resources={"cores": 1}) for _ in range(2)]
    workers = {crew.ended(task) and crew.attempts(task)[0]["worker"] for task in tasks}
    assert len(workers) == 2


def test_a_machine_that_is_short_of_files_gives_tasks_back_and_blames_nobody(crew: Crew):
    arguments = ["--url", crew.url, "--token-file", str(crew.server.credentials)]
    arguments += ["--state-directory", str(crew.state()), "--cores", "40"]
    limited = 'ulimit -n 48; exec "$@"'  # each task takes two files of the launcher
    crew.workers.append(
        crew.processes.start(
            ["sh", "-c", limited, "sh", sys.executable, "-m", "banyan", "worker", *arguments]
        )
    )
    small = {"cores": 1, "memory": "1 MiB"}
    tasks = [crew.submit("exec sleep 2", requested_resources=small) for _ in range(30)]
    for task in tasks:
        assert crew.ended(task, seconds=60)["outcome"] == "success"
    assert "the worker cannot start a process: Too many open files" in crew.workers[-1].stderr


def test_the_server_shows_what_the_worker_has_and_uses(hurried: Crew):
    crew = hurried
    crew.worker("one", "--cores", "2", "--memory", "2 GiB")
    busy = "import time\nwhile True: time.process_time()"
    task = crew.submit(["python3", "-c", busy])
    worker = crew.registered()

    def used() -> bool:
        shown = crew.server.worker.get(f"workers/{worker}").json()
        assert shown["resources"]["cores"] == 2
        assert shown["resources"]["memory"] == 2 << 30
        assert shown["mode"] == "active"
        return bool(shown["used"].get("cores", 0) > 0.05 and shown["used"]["memory_bytes"] > 1e6)

    eventually(used, 20)
    crew.server.provider.post(f"tasks/{task}/cancel")
    crew.ended(task)


def test_an_idle_worker_steals_what_another_has_claimed_and_not_started(crew: Crew):
    """A player claims and never starts; the real worker takes all of it, half at a time."""
    hoarder = Player(crew.server.worker, "default", resources={"cores": 64, "memory": "64 GiB"})
    tasks = [crew.submit(["/bin/true"]) for _ in range(9)]
    claimed = {item["_id"] for item in hoarder.claim(9)}
    assert claimed == set(tasks)
    crew.worker("idle")
    assert {crew.ended(task)["outcome"] for task in tasks} == {"success"}
