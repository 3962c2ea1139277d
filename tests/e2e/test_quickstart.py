"""scripts/quickstart and its graph: the right report, whatever happens in between.

The whole standard library is used, as the script itself does: one process measures it in
about four seconds, a stack in about fifteen.
"""

import importlib.util
import os
import signal
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.stack import Stack
from tests.harness import Processes, Started, eventually, marked_processes
from tests.harness.processes import ROOT

pytestmark = pytest.mark.timeout(300)

SUBMIT = ROOT / "scripts" / "submit.py"
ENDED = ("terminated", "cancelled")


@cache
def expected() -> str:
    """The report as one process makes it, without a queue."""
    path = ROOT / "scripts" / "stdlib_report.py"
    spec = importlib.util.spec_from_file_location("stdlib_report", path)
    assert spec is not None
    assert spec.loader is not None
    module: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    report: str = module.whole()
    return report


def quickstart(processes: Processes, data: Path) -> Started:
    """scripts/quickstart with the environment that is there already."""
    environment = {"BANYAN_PYTHON": sys.executable, "BANYAN_QUICKSTART_DATA": str(data)}
    return processes.start([str(ROOT / "scripts" / "quickstart")], environment)


def test_the_report_is_right_twice_and_nobody_is_left(processes: Processes, tmp_path: Path) -> None:
    for _ in range(2):
        started = quickstart(processes, tmp_path / "data")
        assert started.wait(100) == 0, started.stderr
        assert started.stdout == expected()
        assert marked_processes(processes.mark) == {}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_in_the_middle_leaves_nobody(
    processes: Processes, tmp_path: Path, number: signal.Signals
) -> None:
    started = quickstart(processes, tmp_path / "data")
    work = tmp_path / "data" / "work"
    eventually(lambda: len(list(work.glob("*.json"))) > 20, 60)
    if number is signal.SIGINT:
        os.killpg(started.pid, number)  # a terminal tells all of the foreground
    else:
        started.signal(number)
    assert started.wait(40) == 128 + number
    assert marked_processes(processes.mark) == {}
    assert not (work / "report.txt").exists()


def test_a_stack_that_does_not_start_says_why(processes: Processes, tmp_path: Path) -> None:
    data = tmp_path / "data"
    first = quickstart(processes, data)
    eventually(lambda: (data / "ready.json").exists() and (data / "ready.json").read_text(), 60)
    second = quickstart(processes, data)
    assert second.wait(30) != 0
    assert "data" in second.stderr
    first.terminate()


def test_killed_in_the_middle_the_graph_is_finished_by_the_next_start(
    processes: Processes, tmp_path: Path
) -> None:
    stack = Stack(processes, tmp_path, LEASE_SECONDS=3, LEASE_MARGIN_SECONDS=1)
    work = tmp_path / "work"
    with subprocess.Popen(
        [sys.executable, str(SUBMIT), str(work)],
        env={**os.environ, **stack.environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as submit:
        eventually(lambda: len(ended(stack)) > 50, 60)
        before = ended(stack)
        for pid in marked_processes(processes.mark):
            os.kill(pid, signal.SIGKILL)
        submit.wait(10)
    eventually(lambda: not marked_processes(processes.mark), 10)

    stack.start()
    eventually(lambda: (work / "report.txt").exists(), 90)
    tasks = {task["_id"]: task for task in stack.json("ls", "--json", "--all")}
    eventually(lambda: len(ended(stack)) == len(tasks), 30)
    assert len(tasks) >= 200
    assert all(task["outcome"] == "success" for task in ended(stack).values())
    assert (work / "report.txt").read_text() == expected()
    for id, task in before.items():
        assert tasks[id]["attempt_id"] == task["attempt_id"], "it had reported its end"


def ended(stack: Stack) -> dict[str, dict[str, Any]]:
    """The tasks that have ended, by id."""
    return {
        task["_id"]: task for task in stack.json("ls", "--json", "--all") if task["state"] in ENDED
    }
