"""What the owner of a machine keeps for himself, and how tasks are held to the rest."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from banyan.cli.owner import owner_arguments, owner_options
from banyan.domain.resources import Capacity, Grant
from banyan.errors import BanyanError
from banyan.worker import inventory
from banyan.worker.ledger import Ledger
from banyan.worker.options import Options
from banyan.worker.politeness import Others, busy_seconds, others_beside
from tests.harness import Processes, eventually
from tests.worker.crew import Crew, fields_of
from tests.worker.launched import Launched, alive

GIB = 1 << 30
PROBE = """
import os
print("nice=%d" % os.nice(0))
print("cpus=%d" % len(os.sched_getaffinity(0)))
"""


def options(**given: Any) -> Options:
    return Options("http://x", Path("/nowhere"), gpu_count=0, **given)


def test_what_is_kept_is_not_given():
    kept = options(cores=4, memory_bytes=8 * GIB, reserve_cores=1.5, reserve_memory_percent=25)
    found = inventory.resources(kept)
    assert (found["cores"], found["memory"]) == (2.5, 6 * GIB)
    whole = inventory.resources(options(reserve_memory_bytes=1 << 20))
    assert whole["memory"] == inventory.memory_bytes() - (1 << 20)


@pytest.mark.parametrize(
    "kept", [{"reserve_cores": 2, "cores": 2}, {"reserve_memory_percent": 100}]
)
def test_to_keep_all_is_no_worker(kept: dict[str, Any]):
    with pytest.raises(BanyanError) as refused:
        inventory.resources(options(**kept))
    assert refused.value.word == "usage"


def given(**more: Any) -> dict[str, Any]:
    names = ("reserve_cores", "reserve_memory", "nice", "memory_enforcement")
    nothing = dict.fromkeys((*names, "max_processes", "max_tasks", "run_as", "secrets_file"))
    flags = dict.fromkeys(("affinity", "polite", "containers"), False)
    return {**nothing, **flags, **more}


def test_memory_is_kept_as_a_size_or_a_share():
    assert owner_options(given(reserve_memory="10%"))["reserve_memory_percent"] == 10
    assert owner_options(given(reserve_memory="2 GiB"))["reserve_memory_bytes"] == 2 * GIB
    for wrong in ("101%", "-1", "much"):
        with pytest.raises(BanyanError):
            owner_options(given(reserve_memory=wrong))


def test_what_up_was_told_goes_on_to_its_worker():
    told = given(reserve_cores=1.0, polite=True, memory_enforcement="watch")
    expected = ["--reserve-cores", "1.0", "--polite", "--memory-enforcement", "watch"]
    assert owner_arguments(told) == expected
    assert told == {}


def test_tasks_are_nice_and_keep_to_their_cores(crew: Crew):
    more = ["--cores", "2", "--reserve-cores", "0.5", "--memory", "2 GiB"]
    kept = ["--reserve-memory", "50%", "--nice", "7", "--affinity"]
    crew.worker("one", *more, *kept)
    worker = crew.server.operator.get(f"workers/{crew.registered()}").json()
    assert (worker["resources"]["cores"], worker["resources"]["memory"]) == (1.5, GIB)
    task = crew.submit(["python3", "-c", PROBE], requested_resources={"cores": 1})
    assert crew.ended(task)["outcome"] == "success"
    assert fields_of(crew.log(task)) == {"nice": "7", "cpus": "1"}


def test_a_bound_that_the_machine_cannot_hold_is_refused_at_once(crew: Crew):
    worker = crew.worker("one", "--memory-enforcement", "sometimes")
    assert worker.wait(20) == 2
    assert "best" in worker.stderr


def test_attempts_are_spread_over_the_cores():
    ledger = Ledger(Capacity(4, GIB), cpus=(3, 5, 7, 9))
    for attempt, cores in (("a", 1), ("b", 2), ("c", 0.5), ("d", 0.5)):
        ledger.take(attempt, Grant(cores=cores))
    chosen = [ledger.cpus_of(attempt) for attempt in "abcd"]
    assert chosen == [(3,), (5, 7), (9,), (9,)]
    ledger.give_back("b")
    ledger.take("taken over", Grant(cores=1), cpus=(5,))
    ledger.take("e", Grant(cores=1))
    assert ledger.cpus_of("e") == (7,)


class Machine:
    """A clock, and CPU time used by all and by the worker."""

    def __init__(self) -> None:
        self.clock = self.busy = self.own = 0.0

    def goes_on(self, seconds: float, busy: float, own: float) -> None:
        self.clock += seconds
        self.busy += busy * seconds
        self.own += own * seconds


def test_a_polite_worker_gives_way_to_others_and_not_to_its_own_tasks():
    machine = Machine()
    clock, own, busy = (lambda: machine.clock), (lambda: machine.own), (lambda: machine.busy)
    ledger = Ledger(Capacity(4, GIB), others=Others(2, own, busy, clock))
    assert ledger.free.cores == 4
    machine.goes_on(5, busy=4, own=4)
    assert ledger.free.cores == 4
    machine.goes_on(5, busy=5.4, own=2)
    assert ledger.free.cores == 3, "3.4 of others, of which 2 find room beside the worker"
    ledger.take("a", Grant(cores=3))
    assert not ledger.fits(Grant(cores=1))
    machine.goes_on(1, busy=0, own=0)
    assert ledger.free.cores == 0, "not looked at again so soon"
    machine.goes_on(5, busy=0.4, own=0)
    assert ledger.free.cores == 1


def test_a_polite_worker_leaves_a_busy_machine_alone(hurried: Crew):
    crew, cores = hurried, os.cpu_count() or 1
    load = [crew.processes.start(["sh", "-c", "while :; do :; done"]) for _ in range(cores)]
    crew.worker("polite", "--cores", str(cores), "--polite")
    crew.registered("polite")

    def left_alone() -> str:
        task = crew.submit(["/bin/true"], requested_resources={"cores": 1})
        try:
            crew.until(task, "terminated", seconds=3)
        except AssertionError:
            return task
        return ""

    task = eventually(left_alone, 60)
    for each in load:
        each.kill()
    assert crew.ended(task)["outcome"] == "success"


def test_what_the_launcher_s_tasks_use_is_not_of_others(launcher: Launched):
    """Measured: of what this machine does, what the launcher's tasks do is taken away."""
    attempt = launcher.shell("while :; do :; done")
    assert alive(launcher.until("started", attempt)["pid"])
    with_tasks = others_beside(lambda: launcher.process.pid, 0)
    without = others_beside(lambda: None, 0)
    began = with_tasks._last, without._last

    def seconds() -> float:
        return with_tasks._own_seconds() - began[0][1] - (without._own_seconds() - began[1][1])

    assert eventually(lambda: seconds() > 0.2, 20)
    assert busy_seconds() > began[0][2]


def test_a_file_of_tasks_is_run_by_the_same_rules(processes: Processes, tmp_path: Path):
    file = tmp_path / "tasks.jsonl"
    hoard = "x = bytearray(300 << 20); import time; time.sleep(1000)"
    tasks = [
        {"name": "probe", "command": ["python3", "-c", PROBE]},
        {"name": "hoard", "command": ["python3", "-c", hoard]},
    ]
    file.write_text("".join(json.dumps(task) + "\n" for task in tasks))
    own = ["--cores", "2", "--memory", "2 GiB", "--nice", "3", "--affinity"]
    worker = processes.banyan("worker", "--standalone", str(file), *own)
    assert worker.wait(60) == 1, worker.stderr
    assert "hoard: oom" in worker.stdout
    printed = [
        path.read_text() for path in (tmp_path / "tasks.jsonl.d").iterdir() if path.is_file()
    ]
    assert "nice=3\ncpus=1\n" in printed
