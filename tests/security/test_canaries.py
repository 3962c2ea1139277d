"""Tokens and secrets as canaries: a task looks for them wherever it can, and we in all the rest.

What a task may know: the token of its own attempt, and the secrets that it has named.
"""

import hashlib
import json
import os
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from pymongo import MongoClient

from tests.harness import Processes, Server, eventually, marked_processes
from tests.worker.crew import Crew

# Everything that there is to read of processes, of this one's files, and of directories.
LOOK = """
env
cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline 2>/dev/null
for file in /proc/self/fd/*; do readlink "$file"; done
:
"""
READ_ALL = """
for place in "$STATE" "$DATA" /root /home "$HOME"; do
  find "$place" -xdev -maxdepth 3 -type f -size -64k -exec cat {} + 2>/dev/null
done
:
"""


@dataclass(frozen=True)
class Planted:
    """What nobody may come across."""

    in_file: str
    in_environment: str
    tokens: tuple[str, ...]
    database: str

    def of_everybody(self) -> list[str]:
        return [self.in_file, self.in_environment, *self.tokens, self.database]


@pytest.fixture
def planted(
    processes: Processes, server: Server, module_database: str, tmp_path: Path
) -> Iterator[tuple[Crew, Planted]]:
    crew = Crew(processes, server, tmp_path)
    tokens = tuple(server.tokens.values())
    password = urlsplit(module_database).password or uuid.uuid4().hex  # of one that has one
    yield (
        crew,
        Planted(f"in-file-{uuid.uuid4().hex}", f"in-env-{uuid.uuid4().hex}", tokens, password),
    )
    crew.dismiss()


def start(crew: Crew, planted: Planted, *more: str) -> None:
    """A worker with both kinds of secrets."""
    file = crew.directory / "secrets.json"
    file.write_text(json.dumps({"one": planted.in_file}))
    file.chmod(0o600)
    crew.worker("one", "--secrets-file", str(file), *more, BANYAN_SECRET_TWO=planted.in_environment)
    crew.registered("one")


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


ENV = {"ONE": {"secret": "one"}, "TWO": {"secret": "two"}}
SAY_DIGESTS = 'for value in "$ONE" "$TWO"; do printf %s "$value" | sha256sum; done'


def test_a_task_gets_the_secrets_that_it_names_and_nobody_hears_of_them(
    planted: tuple[Crew, Planted], module_database: str
) -> None:
    crew, canaries = planted
    start(crew, canaries)
    task = crew.submit(SAY_DIGESTS, env=ENV)
    ended = crew.ended(task)
    assert ended["outcome"] == "success", ended
    said = [line.split()[0] for line in crew.log(task).decode().splitlines()]
    assert said == [digest(canaries.in_file), digest(canaries.in_environment)]
    # The environment of a task that says nothing of it is not in its output.
    failed = crew.submit(["/nowhere/program"], env=ENV)
    assert crew.ended(failed)["outcome"] == "failure"
    secrets = [canaries.in_file, canaries.in_environment]
    told = answers(crew, task) + answers(crew, failed)
    assert not [one for one in canaries.of_everybody() if one in told]
    assert not [one for one in secrets if one in stored(module_database)]
    logs = "".join([crew.server.started.stderr, *(worker.stderr for worker in crew.workers)])
    logs += "".join(marked_processes(crew.processes.mark).values())
    logs += "".join(path.read_text() for path in crew.directory.rglob("*.stderr"))
    assert not [one for one in canaries.of_everybody() if one in logs]
    assert not [one for one in canaries.tokens if one.split("_", 2)[2] in stored(module_database)]


def answers(crew: Crew, task: str) -> str:
    """All that the API tells of a task and its worker."""
    views = (
        "",
        "/history",
        "/explain",
        "/script",
        "/graph",
        "/log",
        "/statistics",
        "/current_attempt",
    )
    provider = crew.server.provider
    return "".join(
        provider.get(path).text
        for path in [*(f"tasks/{task}{view}" for view in views), "workers", "tasks"]
    )


def stored(database: str) -> str:
    """The whole database as text."""
    with MongoClient[dict[str, object]](database) as client:
        here = client.get_default_database()
        return "".join(
            repr(document)
            for name in here.list_collection_names()
            for document in here[name].find()
        )


def test_a_secret_that_the_worker_does_not_have_fails_the_task_and_says_so(
    planted: tuple[Crew, Planted],
) -> None:
    crew, canaries = planted
    start(crew, canaries)
    ended = crew.ended(crew.submit("true", env={"A": {"secret": "unheard_of"}}))
    assert (ended["outcome"], crew.statuses(ended["_id"])) == ("failure", ["failure (126)"])
    assert ended["reason"] == "this worker has no secret 'unheard_of'"
    # A file that others may read is not used any more, and the next task is told.
    (crew.directory / "secrets.json").chmod(0o640)
    ended = crew.ended(crew.submit("true", env=ENV))
    assert "can be read by others" in ended["reason"]
    # What it held is free again.
    (crew.directory / "secrets.json").chmod(0o600)
    assert crew.ended(crew.submit(SAY_DIGESTS, env=ENV))["outcome"] == "success"


@pytest.mark.parametrize(
    ("text", "mode", "said"),
    [
        ("{}", 0o644, "can be read by others"),
        ("[1]", 0o600, "an object of names and texts"),
        ('{"a": 1}', 0o600, "an object of names and texts"),
        ("{canary", 0o600, "is not JSON"),
    ],
)
def test_a_file_of_secrets_that_is_none_is_told_at_the_start(
    processes: Processes, tmp_path: Path, text: str, mode: int, said: str
) -> None:
    file, token = tmp_path / "secrets.json", tmp_path / "token"
    file.write_text(text)
    token.write_text("t")
    file.chmod(mode)
    own = ["--url", "http://127.0.0.1:1", "--token-file", str(token), "--run-as", str(os.geteuid())]
    worker = processes.banyan("worker", *own, "--secrets-file", str(file))
    assert worker.wait(20) == 2
    assert said in worker.stderr
    assert "canary" not in worker.stderr


def test_no_token_of_the_stack_is_in_any_environment_or_command(
    planted: tuple[Crew, Planted],
) -> None:
    """Also of a task that runs as the same user as its worker."""
    crew, canaries = planted
    start(crew, canaries)
    found = looked_for(crew, LOOK)
    assert not [token for token in canaries.tokens if token in found]
    launcher = Path(f"/proc/{crew.launcher('one')}/environ").read_text()
    assert not [one for one in canaries.of_everybody() if one in launcher]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can start as another user")
def test_a_task_of_another_user_finds_nothing_wherever_it_looks(
    planted: tuple[Crew, Planted],
) -> None:
    crew, canaries = planted
    start(crew, canaries, "--run-as", "nobody")
    other = crew.submit("while :; do sleep 1; done", env=ENV)  # beside it, of the same user
    crew.until(other, "running")
    eventually(lambda: crew.processes_of(other))
    found = looked_for(crew, LOOK + READ_ALL)
    assert not [one for one in canaries.of_everybody() if one in found]
    assert found.count("BANYAN_TASK_TOKEN=att_") == found.count(own_token(found)), "no other's"


def own_token(found: str) -> str:
    """What a task's own `env` says of its token."""
    return next(line for line in found.splitlines() if line.startswith("BANYAN_TASK_TOKEN="))


def looked_for(crew: Crew, script: str) -> str:
    """All that a task comes across."""
    places = {"STATE": str(crew.state("one")), "DATA": str(crew.server.credentials.parent)}
    task = crew.submit(script, env=places)
    ended = crew.ended(task, 60)
    assert ended["outcome"] == "success", ended
    found = crew.log(task).decode(errors="replace")
    assert "BANYAN_TASK_TOKEN=att_" in found  # it did look
    return found
