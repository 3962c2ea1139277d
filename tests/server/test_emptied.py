"""A data directory that somebody empties while it is served, and a disk without room."""

import json
import os
import shlex
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import requests

from banyan.errors import EXIT_UNAVAILABLE
from tests.harness import Processes, Started, eventually, marked_processes
from tests.server.test_supervisor import children, is_ready, private, ready

CAN_MOUNT = subprocess.run(["unshare", "-Urm", "true"], check=False).returncode == 0


def test_what_a_cleaner_takes_is_made_again_and_told(processes: Processes, tmp_path: Path) -> None:
    server = ready(private(processes, tmp_path / "data"))
    task = server.provider.post("tasks", {"command": "true"}).json()["_id"]
    data = tmp_path / "data"
    sockets = ("server.sock", "mongo/mongod.sock", "mongo/primary.sock")
    names = ("credentials", "lock", "mongo/key", *sockets)
    for name in names:
        (data / name).unlink()

    def is_whole() -> bool:
        return all(os.path.lexists(data / name) for name in names)

    eventually(is_whole, 30)
    for name in names:
        assert f" {name}" in server.started.stderr
        mode = (data / name).lstat().st_mode
        assert stat.S_ISSOCK(mode) or stat.S_IMODE(mode) == 0o600
    assert "somebody has removed" in server.started.stderr
    eventually(lambda: is_ready(server), 30)
    assert server.provider.get(f"tasks/{task}").status_code == 200  # by the tokens of before
    listed = processes.banyan("show", "--json", task)  # by the socket
    assert (listed.wait(30), json.loads(listed.stdout)["_id"]) == (0, task)
    second = private(processes, data)
    assert second.wait(30) == 4
    for pid in children(server, processes, "mongod"):
        os.kill(pid, signal.SIGKILL)
    eventually(lambda: server.provider.get(f"tasks/{task}").status_code == 200, 30)


def test_an_empty_database_never_takes_the_place_of_one_that_was_removed(
    processes: Processes, tmp_path: Path
) -> None:
    server = ready(private(processes, tmp_path / "data"))
    files = tmp_path / "data" / "mongo" / "data"
    for path in files.rglob("*"):
        if path.is_file():
            path.unlink()
    for pid in children(server, processes, "mongod"):
        os.kill(pid, signal.SIGKILL)
    assert server.started.wait(60) == EXIT_UNAVAILABLE
    last = server.started.stderr.strip().splitlines()[-1]
    assert last.startswith(f"banyan: somebody has removed the files of the database from {files}")
    assert not (files / "WiredTiger").exists()


def on_a_small_disk(processes: Processes, disk: Path) -> Started:
    """A server whose data directory, `data` in there, is on a disk that nobody else sees."""
    disk.mkdir()
    arguments = ["server", "--json", "--port", "0", "--data", str(disk / "data")]
    words = shlex.join([sys.executable, "-m", "banyan", *arguments])
    script = f"mount -t tmpfs -o mode=0700,size=420m none {disk} && exec {words}"
    return processes.start(["unshare", "-Urm", "sh", "-c", script])


def fill_up(disk: Path) -> None:
    """Leaves a mebibyte."""
    free = os.statvfs(disk)
    with (disk / "fill").open("wb") as fill:
        os.posix_fallocate(fill.fileno(), 0, free.f_bavail * free.f_frsize - (1 << 20))


@pytest.mark.skipif(not CAN_MOUNT, reason="no user namespaces here")
def test_a_full_disk_is_told_in_a_sentence_and_waited_for(
    processes: Processes, tmp_path: Path
) -> None:
    disk = tmp_path / "disk"
    started = on_a_small_disk(processes, disk)
    url = json.loads(started.line(60))["url"]
    inside = Path(f"/proc/{started.process.pid}/root{disk}")
    token = json.loads((inside / "data" / "credentials").read_text())["provider"]
    headers = {"Authorization": f"Bearer {token}"}
    fill_up(inside)
    tasks = [{"command": "x" * 30_000, "env": {"A": os.urandom(15_000).hex()}}] * 50
    stored: list[str] = []

    def is_down() -> bool:
        try:
            answer = requests.post(f"{url}/tasks", json=tasks, headers=headers, timeout=30)
        except requests.RequestException:
            return False
        if answer.status_code == 201:
            stored.extend(one["_id"] for one in answer.json()["_items"])
        commands = marked_processes(processes.mark).values()
        return not any("mongod" in command for command in commands)

    eventually(is_down, 60)
    eventually(lambda: "is full" in started.stderr)
    assert f"the disk under {disk}/data is full" in started.stderr
    assert "BACKTRACE" not in started.stderr
    answer = requests.get(f"{url}/tasks", headers=headers, timeout=30)
    assert answer.status_code == 503
    assert "the disk of the server's database is full" in answer.json()["_error"]["message"]
    (inside / "fill").unlink()

    def is_there() -> bool:
        answer = requests.get(f"{url}/tasks?max_results=1", headers=headers, timeout=30)
        return answer.status_code == 200

    eventually(is_there, 60)
    for id in stored[:: max(len(stored) // 20, 1)]:
        assert requests.get(f"{url}/tasks/{id}", headers=headers, timeout=30).status_code == 200
    assert started.terminate() == 0
