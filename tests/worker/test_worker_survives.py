"""What is killed, frozen or cut off, and what becomes of the tasks then."""

import os
import signal
import time
from pathlib import Path

from banyan.worker import tree
from banyan.worker.timers import now
from tests.harness import eventually, start_server
from tests.harness.mongo import database
from tests.worker.crew import Crew, freeze, gone, thaw


def running_task(crew: Crew, script: str = "echo ready; exec sleep 1000", **fields: object) -> str:
    task = crew.submit(script, **fields)
    crew.says(task, b"ready")
    return task


def test_a_task_of_a_killed_worker_runs_again_on_another(hurried: Crew, tmp_path: Path):
    crew, file = hurried, tmp_path / "runs"
    crew.worker("one", "--cores", "1")
    crew.registered("one")
    script = f"echo $$ >> {file}; echo ready; test $(wc -l < {file}) = 2 || exec sleep 1000"
    task = running_task(crew, script)
    first = crew.workers[-1]
    launcher = crew.launcher()
    crew.worker("two", "--cores", "1")
    first.kill()
    ended = crew.ended(task, seconds=30)
    assert ended["outcome"] == "success"
    assert crew.statuses(task) == ["lost", "success"]
    assert [attempt["worker"] for attempt in crew.attempts(task)][1] == crew.registered("two")
    assert len(file.read_text().split()) == 2
    eventually(lambda: gone([launcher]), 10)
    assert crew.processes_of(task) == []


def test_the_launcher_ends_tasks_before_the_server_gives_them_away(hurried: Crew):
    """One attempt's processes are gone when the next attempt starts."""
    crew = hurried
    crew.worker("one", "--cores", "1")
    task = running_task(crew, "trap '' TERM; echo ready; while :; do sleep 0.05; done")
    old = crew.processes_of(task)
    worker = crew.workers[-1]
    worker.kill()
    eventually(lambda: gone(old), 10)
    assert crew.state_of(task) == "running", "not given away while a process of it lived"
    crew.worker("two", "--cores", "1")
    eventually(lambda: len(crew.attempts(task)) == 2, 20)
    crew.server.provider.post(f"tasks/{task}/cancel")


def test_the_next_agent_takes_running_tasks_over(crew: Crew, tmp_path: Path):
    go = tmp_path / "go"
    os.mkfifo(go)
    agent = crew.worker("one", "--cores", "2")
    task = running_task(crew, f"echo ready; cat {go}; echo done; exit 7")
    ended_meanwhile = running_task(crew, "echo ready; sleep 0.3; exit 8")
    worker = crew.registered()
    agent.kill()
    eventually(lambda: not crew.processes_of(ended_meanwhile))
    crew.worker("one", "--cores", "2")
    assert crew.ended(ended_meanwhile)["reason"] == "failure (8)"
    go.write_text("go\n")
    assert crew.ended(task)["reason"] == "failure (7)"
    assert crew.log(task) == b"ready\ngo\ndone\n"
    assert crew.statuses(task) == ["failure (7)"]
    assert crew.registered() == worker
    assert crew.ended(crew.submit("true"))["outcome"] == "success"


def test_an_agent_that_is_killed_again_and_again_loses_and_repeats_nothing(
    crew: Crew, tmp_path: Path
):
    file = tmp_path / "runs"
    bodies = [
        {"command": f"echo {n} >> {file}; sleep 0.02", "state": "available"} for n in range(150)
    ]
    made = crew.server.provider.post("tasks", bodies).json()["_items"]
    for _ in range(5):
        before = len(file.read_text().split()) if file.exists() else 0
        agent = crew.worker("one", "--cores", "2")
        eventually(
            lambda least=before + 10: file.exists() and len(file.read_text().split()) > least
        )
        agent.kill()
    crew.worker("one", "--cores", "2")
    for item in made:
        assert crew.ended(item["_id"], seconds=60)["outcome"] == "success"
    assert sorted(map(int, runs(file))) == list(range(150))


def test_when_the_launcher_dies_its_tasks_run_again(crew: Crew, tmp_path: Path):
    file = tmp_path / "runs"
    crew.worker("one", "--cores", "1")
    script = f"echo x >> {file}; echo ready; test $(wc -l < {file}) = 2 || exec sleep 1000"
    task = running_task(crew, script)
    old = crew.processes_of(task)
    os.kill(crew.launcher(), signal.SIGKILL)
    assert crew.ended(task)["outcome"] == "success"
    assert crew.statuses(task) == ["lost", "success"]
    assert gone(old)


def test_when_all_is_killed_the_next_worker_clears_away_and_tasks_run_again(
    crew: Crew, tmp_path: Path
):
    file = tmp_path / "runs"
    agent = crew.worker("one", "--cores", "1")
    script = f"echo x >> {file}; test $(wc -l < {file}) = 2 || exec sleep 1000"
    task = crew.submit(script)  # it says nothing: there is no file of it to find it by
    eventually(lambda: programs(crew.processes_of(task)) == ["sleep"])
    old = crew.processes_of(task)
    launcher = crew.launcher()
    freeze(launcher)  # so that it cannot notice
    agent.kill()
    os.kill(launcher, signal.SIGKILL)
    assert crew.processes_of(task) == old
    begun = time.monotonic()
    crew.worker("one", "--cores", "1")
    assert crew.ended(task)["outcome"] == "success"
    assert time.monotonic() - begun < 10, "without waiting for the lease"
    assert crew.attempts(task)[0]["reason"] == "lost with its worker"
    assert gone(old)


def test_a_frozen_agent_loses_its_tasks_in_time_and_works_again_when_it_thaws(hurried: Crew):
    crew = hurried
    agent = crew.worker("one", "--cores", "1")
    task = running_task(crew)
    old = crew.processes_of(task)
    worker = crew.registered()
    freeze(agent.pid)
    eventually(lambda: gone(old), 10)
    assert crew.state_of(task) == "running", "not given away while a process of it lived"
    crew.worker("two", "--cores", "1")
    eventually(lambda: len(crew.attempts(task)) == 2, 20)
    thaw(agent.pid)
    eventually(lambda: crew.registered() != worker, 20)
    assert crew.statuses(task)[0] == "lost"
    assert crew.state_of(task) == "running", "the late report has changed nothing"
    crew.server.provider.post(f"tasks/{task}/cancel")
    again = [crew.submit("true") for _ in range(2)]
    assert {crew.ended(each)["outcome"] for each in again} == {"success"}


def test_a_frozen_launcher_is_replaced_and_its_tasks_are_ended(hurried: Crew, tmp_path: Path):
    crew, file = hurried, tmp_path / "runs"
    crew.worker("one", "--cores", "1")
    script = f"echo x >> {file}; echo ready; test $(wc -l < {file}) = 2 || exec sleep 1000"
    task = running_task(crew, script)
    old = crew.processes_of(task)
    launcher = crew.launcher()
    freeze(launcher)
    assert crew.ended(task, seconds=30)["outcome"] == "success"
    assert crew.statuses(task) == ["lost", "success"]
    assert gone([*old, launcher])


def test_a_server_that_is_away_for_a_while_changes_nothing(crew: Crew, tmp_path: Path):
    """What ended meanwhile is reported when the server is back, once, with all of its output."""
    file = tmp_path / "runs"
    crew.worker("one", "--cores", "2")
    script = f"echo x >> {file}; echo ready; sleep 0.5; seq 1000; exit 9"
    task = running_task(crew, script)
    freeze_server(crew)
    eventually(lambda: not crew.processes_of(task), 10)
    thaw_server(crew)
    assert crew.ended(task)["reason"] == "failure (9)"
    assert crew.log(task) == b"ready\n" + b"".join(b"%d\n" % n for n in range(1, 1001))
    assert file.read_text() == "x\n"


def test_a_server_that_stays_away_ends_the_tasks_and_the_worker_comes_back(
    hurried: Crew, tmp_path: Path, fresh_database: str
):
    crew, file = hurried, tmp_path / "runs"
    crew.worker("one", "--cores", "1")
    script = f"echo x >> {file}; echo ready; test $(wc -l < {file}) = 2 || exec sleep 1000"
    task = running_task(crew, script)
    old = crew.processes_of(task)
    port = int(crew.server.url.rpartition(":")[2])
    begun = now()
    crew.server.started.terminate()
    eventually(lambda: gone(old), 10)
    assert now() - begun < 3, "within the lease"
    crew.server = start_server(
        crew.processes,
        tmp_path / "data",
        fresh_database,
        port=port,
        LEASE_SECONDS=3,
        LEASE_MARGIN_SECONDS=1,
        UPKEEP_SECONDS=0.2,
    )
    assert crew.ended(task, seconds=30)["outcome"] == "success"
    assert crew.statuses(task) == ["lost", "success"]


def test_who_leaves_without_a_registration_leaves_nothing_behind(crew: Crew):
    killed = crew.worker("one")
    crew.registered("one")
    killed.signal(signal.SIGKILL)
    crew.url = "http://127.0.0.1:1"  # nobody is there
    worker = crew.worker("one")
    eventually(lambda: "no server answers" in worker.stderr)
    worker.signal(signal.SIGTERM)
    worker.wait(20)
    crew.nothing_left_in("one")


def programs(pids: list[int]) -> list[str]:
    """What these processes are at the moment."""
    try:
        return [Path(f"/proc/{pid}/comm").read_text().strip() for pid in pids]
    except OSError:
        return []


def runs(file: Path) -> list[str]:
    return file.read_text().split() if file.exists() else []


def test_a_server_that_comes_back_elsewhere_still_knows_the_worker(
    crew: Crew, tmp_path: Path, module_database: str
):
    """The same database behind another port: running tasks are taken over all the same."""
    agent = crew.worker("one", "--cores", "1")
    go = tmp_path / "go"
    os.mkfifo(go)
    task = running_task(crew, f"echo ready; cat {go}; exit 7")
    worker = crew.registered()
    agent.kill()
    second = start_server(crew.processes, tmp_path / "data", module_database)
    crew.url = second.url
    crew.worker("one", "--cores", "1")
    eventually(lambda: "taking over 1 attempt" in crew.workers[-1].stderr)
    go.write_text("")
    assert crew.ended(task)["reason"] == "failure (7)"
    assert crew.statuses(task) == ["failure (7)"]
    assert crew.registered() == worker


def test_a_worker_of_another_server_s_tasks_clears_them_away(hurried: Crew, mongo: str):
    crew = hurried
    agent = crew.worker("one", "--cores", "1")
    task = running_task(crew)
    old = crew.processes_of(task)
    agent.kill()
    with database(mongo) as elsewhere:
        other = start_server(crew.processes, crew.directory / "other", elsewhere)
        crew.url, crew.credentials = other.url, other.credentials
        second = crew.worker("one", "--cores", "1")
        eventually(lambda: gone(old), 10)
        made = other.provider.post("tasks", {"command": "true", "state": "available"}).json()
        path = f"tasks/{made['_id']}"
        eventually(lambda: other.provider.get(path).json()["state"] == "terminated")
        assert second.terminate() == 0


def freeze_server(crew: Crew) -> None:
    for pid in server_processes(crew):
        freeze(pid)


def thaw_server(crew: Crew) -> None:
    for pid in server_processes(crew):
        thaw(pid)


def server_processes(crew: Crew) -> list[int]:
    """The processes that serve, below the one that was started."""
    return [
        pid
        for pid in tree.descendants([crew.server.started.pid])
        if b"banyan.server.serve" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]
