"""`last` and names: what somebody else has submitted is not taken for one's own."""

import os
import pty
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from tests.contract.playing import Item, Player
from tests.harness import Api, Processes, Server
from tests.harness.processes import ROOT

QUEUE = "of-last"


class Person:
    """An account of one test, which uses the command line."""

    def __init__(self, server: Server, processes: Processes, role: str) -> None:
        self.server, self.processes, self.name = server, processes, uuid.uuid4().hex
        answer = server.admin.post("accounts", {"name": self.name, "roles": [role]})
        self.token: str = answer.json()["token"]
        self.api = Api(server.url, self.token)
        self.environment = {"BANYAN_URL": server.url, "BANYAN_TOKEN": self.token}

    def says(self, *line: str) -> tuple[int, list[str]]:
        """The exit code of a command, and what it has printed."""
        ended = self.processes.banyan(*line, environment=self.environment)
        return ended.wait(30), ended.stdout.split()

    def submit(self, *options: str) -> list[str]:
        return self.says("submit", "-q", "--queue", QUEUE, *options, "--", "sleep", "60")[1]

    def states(self, ids: list[str]) -> set[str]:
        return {self.server.operator.get(f"tasks/{one}").json()["state"] for one in ids}


@pytest.fixture
def victim(server: Server, processes: Processes) -> Person:
    return Person(server, processes, "provider")


@pytest.fixture
def attacker(server: Server, processes: Processes) -> Person:
    return Person(server, processes, "provider")


@pytest.fixture
def operator(server: Server, processes: Processes) -> Person:
    return Person(server, processes, "operator")


def test_a_tag_makes_nobodys_array_another_persons(
    victim: Person, attacker: Person, operator: Person
) -> None:
    array = victim.submit("--array", "1-3")
    forged = attacker.submit("--tag", f"array={array[0]}")
    assert operator.says("ls", "-q", "last") == (0, forged)
    assert operator.says("cancel", "--yes", "last")[0] == 0
    assert (victim.states(array), attacker.states(forged)) == ({"available"}, {"cancelled"})


def test_ones_own_comes_before_what_others_have_submitted_since(
    attacker: Person, operator: Person
) -> None:
    own = operator.submit("--array", "1-2")
    attacker.submit("--tag", f"array={own[0]}")
    assert sorted(operator.says("ls", "-q", "last")[1]) == sorted(own)
    assert operator.says("show", "--json", "last")[1][1].strip('",') in own


def test_nor_does_a_tag_of_a_running_task(server: Server, victim: Person) -> None:
    """Its token is with a worker, which may be anybody's."""
    (running,) = victim.submit()
    array = victim.submit("--array", "1-3")
    item: Item = Player(server.worker, QUEUE).claim_one(running).json()
    made = Api(server.url, item["token"]).post("tasks", {"tags": {"array": array[0]}})
    assert victim.says("cancel", "--yes", "last")[0] == 0
    assert victim.states(array) == {"available"}
    assert victim.states([made.json()["_id"]]) == {"cancelled"}


def test_who_cancels_tasks_of_others_is_told_whose_they_are(
    victim: Person, attacker: Person, operator: Person
) -> None:
    name = uuid.uuid4().hex
    for person in (victim, attacker):
        person.submit("--name", name)
    told = f"of {', '.join(sorted((victim.name, attacker.name)))}?"
    assert told in asked(operator, "cancel", f"@{name}")
    victim.submit("--name", name)
    assert "Cancel 2 tasks?" in asked(victim, "cancel", f"@{name}")


def test_those_of_one_account_are_cancelled_by_its_name(
    victim: Person, attacker: Person, operator: Person
) -> None:
    theirs, others = victim.submit("--array", "1-3"), attacker.submit()
    assert sorted(operator.says("ls", "-q", "--owner", victim.name)[1]) == sorted(theirs)
    assert operator.says("cancel", "--yes", "--owner", victim.name)[0] == 0
    assert (victim.states(theirs), attacker.states(others)) == ({"cancelled"}, {"available"})


def asked(person: Person, *line: str) -> str:
    """What a command asks on a terminal, where it is told no."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, **person.processes.environment(), **person.environment}
    with subprocess.Popen(
        [sys.executable, "-m", "banyan", *line],
        stdin=theirs, stderr=theirs, stdout=theirs, cwd=Path(ROOT), env=environment,
    ) as process:  # fmt: skip
        os.close(theirs)
        os.write(ours, b"n\n")
        said = b""
        try:
            while piece := os.read(ours, 4096):
                said += piece
        except OSError:  # the other end is closed
            pass
        assert process.wait(30) != 0
    os.close(ours)
    return said.decode()
