"""A full disk, a server that is away while the agent dies, output that nobody can read."""

import json
import os
import re
import resource
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness import Processes, Started, eventually
from tests.harness.processes import MARK
from tests.worker.crew import Crew
from tests.worker.test_worker_survives import freeze_server, running_task, thaw_server

PIDS = Path("/sys/fs/cgroup/pids")  # version 1, where a test may make one of its own
CAN_MOUNT = subprocess.run(["unshare", "-Urm", "true"], check=False).returncode == 0


def test_an_agent_that_dies_while_the_server_is_away_loses_no_report(crew: Crew, tmp_path: Path):
    """What has ended meanwhile is with the launcher and on the disk; the next agent tells it."""
    file = tmp_path / "runs"
    agent = crew.worker("one", "--cores", "2")
    worker = crew.registered()
    task = running_task(crew, f"echo x >> {file}; echo ready; sleep 0.5; seq 100000; exit 9")
    freeze_server(crew)
    eventually(lambda: not crew.processes_of(task), 10)
    agent.kill()
    crew.worker("one", "--cores", "2")
    launcher = crew.launcher()
    eventually(lambda: len(connections(launcher)) == 1)  # the next agent has found it
    thaw_server(crew)
    assert crew.ended(task)["reason"] == "failure (9)"
    assert crew.log(task) == b"ready\n" + b"".join(b"%d\n" % n for n in range(1, 100_001))
    assert crew.registered() == worker
    assert file.read_text() == "x\n"


def connections(pid: int) -> list[str]:
    """The sockets of a launcher, but the one at which it listens."""
    links = [os.readlink(link) for link in Path(f"/proc/{pid}/fd").iterdir()]
    return [link for link in links if link.startswith("socket:")][1:]


def test_bytes_that_are_no_text_arrive_as_they_are(crew: Crew):
    crew.worker("one", "--cores", "1")
    script = (
        "import os; os.write(1, bytes(range(256)) * 300); os.write(2, b'\\xff\\n::progress \\xff')"
    )
    task = crew.submit(["python3", "-c", script])
    assert crew.ended(task)["outcome"] == "success"
    assert crew.log(task, stream="stdout") == bytes(range(256)) * 300


def test_a_gigabyte_on_one_line_ends_well_and_is_kept_to_its_bound(crew: Crew):
    bound = 1 << 20
    crew.worker("one", "--cores", "1", BANYAN_LOG_BYTES_MAX=str(bound))
    task = crew.submit("head -c 1000000000 /dev/zero; echo why >&2; exit 3")
    assert crew.ended(task, seconds=60)["reason"] == "failure (3)"
    said = crew.log(task)
    assert 0.9 * bound < len(said) <= bound
    assert crew.log(task, stream="stderr") == b"why\n"
    assert re.search(rb"\n\[banyan: .*: [0-9,]{11,} bytes of stdout are left out here\]\n", said)


@pytest.fixture
def few_processes(processes: Processes) -> Iterator[Path]:
    """A cgroup in which there is room for 16 processes and threads."""
    cgroup = PIDS / f"banyan-test-{processes.mark}"
    try:
        cgroup.mkdir()
    except OSError:
        pytest.skip("no cgroup of processes can be made here")
    (cgroup / "pids.max").write_text("16")
    yield cgroup
    eventually(lambda: not (cgroup / "cgroup.procs").read_text())
    cgroup.rmdir()


def test_a_machine_that_is_out_of_processes_gives_tasks_back_and_blames_nobody(
    crew: Crew, few_processes: Path
):
    arguments = ["--url", crew.url, "--token-file", str(crew.credentials), "--cores", "20"]
    arguments += ["--state-directory", str(crew.state())]
    enter = f'echo $$ > {few_processes}/cgroup.procs; exec "$@"'
    banyan = [sys.executable, "-m", "banyan", "worker", *arguments]
    worker = crew.processes.start(["sh", "-c", enter, "sh", *banyan])
    crew.workers.append(worker)
    small = {"cores": 1, "memory": "1 MiB"}
    tasks = [crew.submit("exec sleep 1", requested_resources=small) for _ in range(20)]
    for task in tasks:
        assert crew.ended(task, seconds=60)["outcome"] == "success"
    assert "cannot start a process: Resource temporarily unavailable" in worker.stderr
    assert worker.terminate() == 0


def on_a_small_disk(processes: Processes, directory: Path, size: str, *arguments: str) -> Started:
    """`banyan ARGUMENTS...` that sees a disk of this size in place of `directory`."""
    directory.mkdir()
    words = shlex.join([sys.executable, "-m", "banyan", *arguments])
    script = f"mount -t tmpfs -o mode=0700,size={size} none {directory} && exec {words}"
    return processes.start(["unshare", "-Urm", "sh", "-c", script])


@pytest.mark.skipif(not CAN_MOUNT, reason="no user namespaces here")
def test_a_full_disk_under_a_worker_ends_the_log_and_not_the_task(crew: Crew):
    state = ("--state-directory", str(crew.state()))
    access = ("--url", crew.url, "--token-file", str(crew.credentials), "--cores", "1")
    worker = on_a_small_disk(crew.processes, crew.state(), "200k", "worker", *access, *state)
    crew.workers.append(worker)
    task = crew.submit("head -c 400000 /dev/zero; sleep 0.3; head -c 400000 /dev/zero; exit 5")
    ended = crew.ended(task)
    assert (ended["outcome"], ended["reason"]) == (
        "failure",
        "output lost: No space left on device",
    )
    assert crew.statuses(task) == ["failure (5)"]
    again = crew.submit("echo good")
    assert crew.ended(again)["outcome"] == "success"
    assert crew.log(again) == b"good\n"
    assert worker.terminate() == 0


@pytest.mark.skipif(not CAN_MOUNT, reason="no user namespaces here")
def test_a_disk_that_is_full_from_the_start_is_told_and_ends_the_worker(crew: Crew):
    state = crew.state()
    access = ("--url", crew.url, "--token-file", str(crew.credentials), "--cores", "1")
    state.mkdir()
    words = [sys.executable, "-m", "banyan", "worker", *access, "--state-directory", str(state)]
    disk = f"mount -t tmpfs -o mode=0700,size=64k none {state}"
    fill = f"{disk} && head -c 100000 /dev/zero > {state}/full"
    script = f"{fill}; exec {shlex.join(words)}"
    worker = crew.processes.start(["unshare", "-Urm", "sh", "-c", script])
    assert worker.wait(20) == 75
    assert "No space left on device" in worker.stderr
    assert "Traceback" not in worker.stderr


@pytest.mark.skipif(not CAN_MOUNT, reason="no user namespaces here")
def test_a_full_disk_under_a_standalone_run_ends_the_output_and_not_the_tasks(
    processes: Processes, tmp_path: Path
):
    file, runs = tmp_path / "tasks.jsonl", tmp_path / "runs"
    env = {MARK: processes.mark}
    script = f"head -c 400000 /dev/zero; echo x >> {runs}"
    tasks = [{"command": script, "env": env}, {"command": script, "env": env, "after": "1"}]
    file.write_text("\n".join(map(json.dumps, tasks)))
    arguments = ("worker", "--standalone", str(file), "--output", str(tmp_path / "disk"))
    started = on_a_small_disk(processes, tmp_path / "disk", "100k", *arguments)
    assert started.wait(30) == 0, started.stderr
    assert "No space left on device" in started.stderr
    assert "Traceback" not in started.stderr
    assert runs.read_text() == "x\nx\n"


def test_an_agent_that_is_out_of_files_delivers_when_it_has_some_again(crew: Crew, tmp_path: Path):
    agent = crew.worker("one", "--cores", "1")
    crew.registered()
    go = tmp_path / "go"
    os.mkfifo(go)
    task = crew.submit(f"echo ready; cat {go}; seq 200000")
    crew.says(task, b"ready")
    soft, hard = resource.prlimit(agent.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(agent.pid, resource.RLIMIT_NOFILE, (3, hard))
    go.write_text("go\n")
    eventually(lambda: "cannot be read for now" in agent.stderr, 30)
    resource.prlimit(agent.pid, resource.RLIMIT_NOFILE, (soft, hard))
    assert crew.ended(task, seconds=60)["outcome"] == "success"
    assert crew.log(task).endswith(b"\n199999\n200000\n")
