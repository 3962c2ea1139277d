"""Every process of a stack killed with `kill -9` while tasks run, alone and one after the other.

`docs/promises.md` says what must hold. One stack for all: what a test leaves wrong, the next one
finds, and the doctor at the end.
"""

import json
import os
import shlex
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.e2e.stack import Stack
from tests.harness import Api, Processes, Started, eventually, executions, marked_processes
from tests.worker.launched import alive

# What each process has in its command; the launcher is found by its own note.
COMMANDS = {"mongod": "--dbpath", "server": "banyan.server.serve", "agent": "banyan worker"}
ENDED = ("terminated", "cancelled")
# A task that writes the log that `executions` reads, and goes on until a file is there.
SCRIPT = """
exec 9>>{directory}/$BANYAN_TASK_ID.lock
flock -n 9 && alone=alone || alone=beside
note() {{
    echo "$1 $BANYAN_TASK_ID $BANYAN_ATTEMPT $BANYAN_ATTEMPT_COUNT $$ $(cut -d' ' -f1 /proc/uptime) $2" >> {directory}/runs
}}
note start $alone
echo ready
until [ -e {directory}/{go} ]; do sleep 0.05; done
seq 1000
note end 3
exit 3
"""  # noqa: E501
OUTPUT = b"ready\n" + b"".join(b"%d\n" % number for number in range(1, 1001))
GOES_ON, RUNS_AGAIN = ["failure (3)"], ["lost", "failure (3)"]


class Struck:
    """A stack, the tasks that run on it, and what is done to its processes."""

    def __init__(self, stack: Stack, directory: Path) -> None:
        self.stack = stack
        self.directory = directory

    @property
    def api(self) -> Api:
        tokens = json.loads(self.stack.credentials.read_text())
        return Api(self.stack.url, tokens["provider"])

    def pid(self, name: str) -> int:
        """The process of that name, once it is there."""
        if name == "up":
            return self.stack.started.pid
        if name == "launcher":
            noted = self.stack.data / "worker" / "launcher.pid"
            return eventually(lambda: noted.exists() and int(noted.read_text().split()[0]))

        def found() -> int | None:
            commands = marked_processes(self.stack.processes.mark).items()
            pids = [
                pid for pid, text in commands if COMMANDS[name] in text and "last_will" not in text
            ]
            return next((pid for pid in pids if alive(pid)), None)

        return eventually(found) or 0

    def strike(self, name: str) -> None:
        """Kills the process, and waits for its end; `up` takes all but the launcher with it."""
        if name == "up" and self.stack.started.process.poll() is not None:
            self.stack.launch()
            self.pid("agent")
        pid = self.pid(name)
        if name == "up":
            self.stack.started.kill()
            eventually(lambda: not any(map(self.runs, COMMANDS)))
        else:
            os.kill(pid, signal.SIGKILL)
            eventually(lambda: not alive(pid))

    def runs(self, name: str) -> bool:
        commands = marked_processes(self.stack.processes.mark).values()
        return any(COMMANDS[name] in text for text in commands)

    def submit(self, go: str, **fields: Any) -> str:
        """A task that runs until there is a file of that name."""
        script = SCRIPT.format(directory=shlex.quote(str(self.directory)), go=go)
        task = {"command": ["/bin/sh", "-c", script], "state": "available", **fields}
        made = self.api.post("tasks", task)
        assert made.status_code == 201, made.text
        return str(made.json()["_id"])

    def go(self, name: str) -> None:
        (self.directory / name).touch()

    def get(self, path: str) -> Any:
        """Read as soon as there is a server and a database to read it from."""

        def answer() -> Any:
            try:
                got = self.api.get(path)
            except requests.ConnectionError:
                return None
            return got.json() if got.status_code == 200 else None

        return eventually(answer)

    def until(self, task: str, *states: str) -> None:
        eventually(lambda: self.get(f"tasks/{task}")["state"] in states, 60)

    def says_ready(self, task: str) -> None:
        eventually(lambda: b"ready" in self.log(task), 60)

    def log(self, task: str) -> bytes:
        content: bytes = self.api.get(f"tasks/{task}/log").content
        return content

    def attempts(self, task: str) -> list[dict[str, Any]]:
        found = self.get(f"tasks/{task}/history")["_items"]
        return sorted(found, key=lambda attempt: attempt["attempt_count"])

    def ends(self, task: str) -> list[str]:
        """How its attempts have ended, when the last one has."""
        self.until(task, *ENDED)
        return [attempt["exit_status"] for attempt in self.attempts(task)]

    def check(self, *tasks: str) -> None:
        """What ran is what the records say, never beside another attempt; the log is whole."""
        records = {each["_id"]: each for task in tasks for each in self.attempts(task)}
        assert executions.check(executions.read(self.directory / "runs"), records) == []
        for task in tasks:
            assert self.log(task) == OUTPUT
            counts = [each["attempt_count"] for each in self.attempts(task)]
            assert counts == list(range(1, len(counts) + 1))


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """`banyan up --cores 2`; in the end its database is sound."""
    directory = tmp_path_factory.mktemp("stack")
    processes = Processes(directory)
    made = Stack(processes, directory, "--cores", "2")
    yield made
    verdict = made.text("doctor", "--data", str(made.data)).splitlines()[0]
    processes.end()
    assert verdict == "nothing is wrong"


@pytest.fixture
def struck(stack: Stack, tmp_path: Path) -> Struck:
    return Struck(stack, tmp_path)


# An `up` in between begins to count anew how often each process has died lately.
@pytest.mark.parametrize(
    "victims",
    [
        ("agent",),
        ("agent", "agent"),
        ("up",),
        ("server",),
        ("mongod",),
        ("launcher",),
        ("agent", "launcher"),
        ("launcher", "agent"),
        ("server", "agent"),
        ("up", "launcher"),
        ("agent", "server"),
        ("mongod", "agent"),
        ("mongod", "server"),
        ("server", "launcher"),
        ("up", "up"),
        ("launcher", "up"),
    ],
    ids="-".join,
)
def test_tasks_outlive_the_death_of(struck: Struck, victims: tuple[str, ...]) -> None:
    """One task runs through it, one ends meanwhile, and one waits in the queue."""
    through, meanwhile = struck.submit("go"), struck.submit("soon")
    for task in (through, meanwhile):
        struck.says_ready(task)
    queued = struck.submit("soon")
    for name in victims:
        struck.strike(name)
    struck.go("soon")
    if "up" in victims:
        struck.stack.start()
    expected = RUNS_AGAIN if "launcher" in victims else GOES_ON
    assert struck.ends(meanwhile) == expected
    assert struck.ends(queued) == GOES_ON
    struck.go("go")
    assert struck.ends(through) == expected
    struck.check(through, meanwhile, queued)


def test_up_is_ready_with_a_worker_that_an_operator_has_drained(struck: Struck) -> None:
    task = struck.submit("go")
    struck.says_ready(task)
    [worker] = struck.get("workers")["_items"]
    struck.stack.call("worker", "drain", worker["_id"])
    struck.strike("up")
    struck.stack.start()
    queued = struck.submit("go")
    struck.go("go")
    assert struck.ends(task) == GOES_ON
    assert [one["mode"] for one in struck.get("workers")["_items"]] == ["draining"]
    assert struck.get(f"tasks/{queued}")["state"] == "available"
    struck.stack.call("worker", "resume", worker["_id"])
    assert struck.ends(queued) == GOES_ON
    struck.check(task, queued)


def test_killed_while_it_ends_the_next_one_takes_tasks_again(struck: Struck) -> None:
    task = struck.submit("go")
    struck.says_ready(task)
    ending: Started = struck.stack.started
    ending.signal(signal.SIGTERM)
    eventually(lambda: [one["mode"] for one in struck.get("workers")["_items"]] == ["draining"])
    struck.strike("up")
    struck.stack.start()
    struck.go("go")
    assert struck.ends(task)[-1] == "failure (3)"
    another = struck.submit("go")
    assert struck.ends(another) == GOES_ON
    struck.check(task, another)
