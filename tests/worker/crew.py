"""Real workers of a test, and the tasks that it gives them."""

import json
import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.harness import Processes, Server, Started, eventually
from tests.harness.processes import MARK
from tests.worker.launched import alive, carrying

ENDED = ("terminated", "cancelled")


class Crew:
    """Starts workers for a server; each has a state directory by its name."""

    def __init__(self, processes: Processes, server: Server, directory: Path) -> None:
        self.processes = processes
        self.server = server
        self.url = server.url  # under which workers look for it
        self.credentials = server.credentials
        self.directory = directory
        self.workers: list[Started] = []

    def dismiss(self) -> None:
        """Ends the workers and what they run: two signals; nothing may wait for the next test."""
        for worker in self.workers:
            if worker.process.poll() is None:
                worker.signal(signal.SIGTERM)
                eventually(lambda one=worker: one.process.poll() or "draining" in one.stderr)
                worker.signal(signal.SIGTERM)
                worker.wait(30)
        query = json.dumps({"state": {"$in": ["inactive", "available", "running"]}})
        left = self.server.provider.get("tasks", where=query, max_results=1000).json()["_items"]
        for task in left:
            self.server.provider.post(f"tasks/{task['_id']}/cancel")

    def worker(self, name: str = "one", *more: str, **environment: str) -> Started:
        """Starts a worker without waiting for it."""
        own = ["--token-file", str(self.credentials)]
        own += ["--state-directory", str(self.state(name))]
        started = self.processes.banyan(
            "worker", "--url", self.url, *own, *more, environment=environment
        )
        self.workers.append(started)
        return started

    def state(self, name: str = "one") -> Path:
        return self.directory / name

    def registered(self, name: str = "one", seconds: float = 20) -> str:
        """The id under which a worker is at work."""

        def probe() -> str:
            try:
                kept: dict[str, str] = json.loads((self.state(name) / "worker.json").read_text())
            except (OSError, ValueError):
                return ""
            return kept["worker"]

        return eventually(probe, seconds)

    def launcher(self, name: str = "one") -> int:
        """The process id of a worker's launcher."""
        return int((self.state(name) / "launcher.pid").read_text().split()[0])

    def submit(self, command: str | list[str] | None, **fields: Any) -> str:
        """A task that may run; its id. The mark of the test goes with its processes."""
        env = {MARK: self.processes.mark, **fields.pop("env", {})}
        body = {"command": command, "state": "available", "env": env, **fields}
        made = self.server.provider.post("tasks", body)
        assert made.status_code == 201, made.text
        return str(made.json()["_id"])

    def task(self, task: str) -> dict[str, Any]:
        """The task as it is now."""
        document: dict[str, Any] = self.server.provider.get(f"tasks/{task}").json()
        return document

    def state_of(self, task: str) -> str:
        return str(self.task(task)["state"])

    def ended(self, task: str, seconds: float = 20) -> dict[str, Any]:
        """The task once it has ended."""
        self.until(task, *ENDED, seconds=seconds)
        return self.task(task)

    def until(self, task: str, *states: str, seconds: float = 20) -> None:
        """Waits until the task is in one of these states."""
        eventually(lambda: self.state_of(task) in states, seconds)

    def log(self, task: str, **parameters: Any) -> bytes:
        """What an attempt has said: the last, or the one that is named."""
        content: bytes = self.server.provider.get(f"tasks/{task}/log", **parameters).content
        return content

    def says(self, task: str, text: bytes, seconds: float = 20) -> None:
        """Waits until the log holds this."""
        eventually(lambda: text in self.log(task), seconds)

    def attempts(self, task: str) -> list[dict[str, Any]]:
        """The records of all attempts, the first first."""
        found: list[dict[str, Any]] = self.server.provider.get(f"tasks/{task}/history").json()[
            "_items"
        ]
        return sorted(found, key=lambda attempt: attempt["attempt_count"])

    def statuses(self, task: str) -> list[str | None]:
        """How its attempts ended; None of one that has not."""
        return [attempt.get("exit_status") for attempt in self.attempts(task)]

    def processes_of(self, task: str) -> list[int]:
        """The living processes of a task on this machine."""
        return carrying("BANYAN_TASK_ID", task)

    def nothing_left_in(self, name: str = "one") -> None:
        """After an orderly end the state directory holds its lock and nothing else."""
        left = [path.name for path in self.state(name).rglob("*") if path.is_file()]
        assert left == ["lock"], left


def gone(pids: list[int]) -> bool:
    """Whether none of these processes lives any more."""
    return not any(alive(pid) for pid in pids)


def thaw(pid: int) -> None:
    os.kill(pid, signal.SIGCONT)


def freeze(pid: int) -> None:
    """SIGSTOP, and wait until the process stands still."""
    os.kill(pid, signal.SIGSTOP)

    def stands() -> bool:
        stat = Path(f"/proc/{pid}/stat").read_text()
        return stat.rpartition(")")[2].split()[0] == "T"

    eventually(stands)


def fields_of(environment: bytes) -> Mapping[str, str]:
    """The output of `env` as a mapping."""
    lines = environment.decode().splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line)
