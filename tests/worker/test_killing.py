"""A machine on which agents and tasks are killed at random: every task is accounted for.

Chance is seeded, and strikes by progress, not by time: `BANYAN_TEST_SEED=n` strikes the same way
again as far as the machine lets it. `BANYAN_TEST_KILLED_TASKS=1000` is the full form.
"""

import contextlib
import os
import signal
import sys
from collections import Counter
from pathlib import Path
from random import Random, randrange
from typing import Any

import pytest

from banyan.worker import tree
from tests.harness import eventually, marked_processes
from tests.harness.processes import MARK
from tests.worker.crew import Crew

COUNT = int(os.environ.get("BANYAN_TEST_KILLED_TASKS", "150"))
SEED = int(os.environ.get("BANYAN_TEST_SEED", randrange(10**6)))
BETWEEN = (4, 9)  # so many tasks begin from one strike to the next
AGENTS = 0.2  # of all strikes
KINDS = (
    "sleep {seconds}",
    "head -c 20000 /dev/urandom; echo more >&2; sleep {seconds}",
    "sleep 600 & sleep {seconds}",
    "setsid setsid sleep 600 >/dev/null 2>&1 & sleep {seconds}",
    "trap '' TERM HUP; (while :; do sleep 0.05; done) & sleep {seconds}",
)
UNKNOWN = "its worker does not know of it"  # it was claimed, and had not begun
ENDED = {"terminated", "cancelled"}


def task_of(pid: int) -> str:
    """The task that a process belongs to; empty where that cannot be seen any more."""
    return tree.variables_of(pid, ["BANYAN_TASK_ID"])[0].get("BANYAN_TASK_ID", b"").decode()


class Ground:
    """One machine, and what its tasks have noted."""

    def __init__(self, crew: Crew, directory: Path, chance: Random) -> None:
        self.crew = crew
        self.noted = directory / "noted"
        self.temporary = directory / "temporary"
        self.temporary.mkdir()
        self.chance = chance
        self.killed: set[str] = set()  # tasks of which a process was
        self.struck: Counter[str] = Counter()
        self.start_agent()

    def start_agent(self) -> None:
        room = ("--cores", "6", "--memory", "4 GiB")
        self.agent = self.crew.worker("one", *room, TMPDIR=str(self.temporary))

    def submit(self, count: int) -> list[str]:
        own = {MARK: self.crew.processes.mark}
        chosen = [self._script() for _ in range(count)]
        shape = {"state": "available", "env": own, "requested_resources": {"memory": "32 MiB"}}
        bodies = [{**shape, "command": script} for script in chosen]
        answer = self.crew.server.provider.post("tasks", bodies)
        return [item["_id"] for item in answer.json()["_items"]]

    def _script(self) -> str:
        kind = self.chance.choice(KINDS).format(seconds=round(self.chance.uniform(0, 0.2), 3))
        code = self.chance.choice((0, 0, 0, 3))
        note = f'echo "{{}} $BANYAN_TASK_ID $BANYAN_ATTEMPT {code}" >>{self.noted}'
        return f"{note.format('begin')}; {kind}; {note.format('end')}; exit {code}"

    def notes(self, what: str) -> list[list[str]]:
        """Lines of one kind: the task, its attempt, and the code that it ends with."""
        lines = self.noted.read_text().splitlines() if self.noted.exists() else []
        return [line.split()[1:] for line in lines if line.startswith(what)]

    def goes_on_to(self, target: int) -> None:
        """Waits until so many have begun (a few are killed before they note that)."""

        def probe() -> bool:
            begun = len(self.notes("begin"))
            assert begun >= target, f"{begun} of {target} have begun"
            return True

        eventually(probe, 60)

    def strike(self) -> None:
        """Kills the agent, after which another is started, or a process of a task."""
        if self.chance.random() < AGENTS:
            self.agent.kill()
            self.start_agent()
            self.struck["agent"] += 1
        else:
            with contextlib.suppress(ProcessLookupError):
                self._kill_a_process()

    def _kill_a_process(self) -> None:
        """Any that a task has started, found by its number; and seen again before it is killed."""
        marked = sorted(marked_processes(self.crew.processes.mark))
        pids = [pid for pid in marked if task_of(pid)]
        if not pids:
            return
        pid = self.chance.choice(pids)
        end = os.pidfd_open(pid)
        try:
            if task := task_of(pid):
                self.killed.add(task)
                signal.pidfd_send_signal(end, signal.SIGKILL)
                self.struck["task"] += 1
        finally:
            os.close(end)


@pytest.mark.timeout(120 + COUNT)
def test_every_task_is_accounted_for_when_agents_and_tasks_are_killed(crew: Crew, tmp_path: Path):
    sys.stdout.write(f"seed {SEED}, {COUNT} tasks\n")
    ground = Ground(crew, tmp_path, Random(SEED))
    tasks = ground.submit(COUNT)
    target = 0
    while (target := target + ground.chance.randint(*BETWEEN)) < COUNT * 0.95:
        ground.goes_on_to(target)
        ground.strike()
    eventually(lambda: all_ended(crew), 90, every_seconds=0.1)
    sys.stdout.write(f"{dict(ground.struck)}\n")
    begun = Counter(task for task, _, _ in ground.notes("begin"))
    assert set(begun.values()) == {1}, "a task has begun twice"
    assert begun.keys() | ground.killed >= set(tasks), "what was killed may have come to nothing"
    for task in tasks:
        account_for(ground, crew.task(task), crew.attempts(task))
    assert ground.agent.terminate() == 0
    crew.nothing_left_in()
    assert list(ground.temporary.rglob("*")) == []


def all_ended(crew: Crew) -> bool:
    counted = crew.server.provider.get("tasks/statistics", by="state").json()["by_state"]
    return counted.keys() <= ENDED


def account_for(ground: Ground, task: dict[str, Any], attempts: list[dict[str, Any]]) -> None:
    """How a task has ended is what it has noted itself, but where it was killed."""
    *given_back, last = attempts
    assert all(one["reason"] == UNKNOWN for one in given_back), attempts
    codes = [code for one, attempt, code in ground.notes("end") if attempt == last["_id"]]
    if task["_id"] not in ground.killed:
        assert codes == [str(last["exit_code"])], (task, attempts)
    assert task["outcome"] == ("success" if last["exit_code"] == 0 else "failure"), attempts
