"""A short run with a stable choice of faults: each promise holds while they strike."""

import json
import sys
from pathlib import Path

import pytest

from tests.chaos import matrix, plan
from tests.harness import Processes

SEED = "1"
LONGEST_SECONDS = 300  # on a machine that does ten other things at the same time
FAULTS = (
    "kill-agent,kill-launcher,kill-server,step-down,kill-primary,lose-claim,lose-end,cancel-storm"
)


@pytest.mark.timeout(LONGEST_SECONDS)
def test_load_and_faults_at_one_time_break_no_promise(processes: Processes, tmp_path: Path):
    """Loads as light as two cores bear that do other things as well; nothing here is timed."""
    report = tmp_path / "report"
    light = {"--for": "16s", "--gap": "1.7", "--workers": "3", "--clients": "1"}
    load = [part for option in (*light.items(), ("--task-seconds", "1")) for part in option]
    arguments = ["--seed", SEED, "--faults", FAULTS, "--together", *load, "--report", str(report)]
    run = processes.start([sys.executable, "-m", "tests.chaos", *arguments])
    code = run.wait(LONGEST_SECONDS - 20)
    assert code == 0, run.stdout[-8000:] + run.stderr[-4000:]
    told = json.loads(report.with_suffix(".json").read_text())
    assert told["violations"] == []
    assert set(told["struck"]) == set(FAULTS.split(","))
    assert told["counts"]["executions"] > 10


def test_a_seed_makes_the_same_plan_again_and_every_fault_has_its_turn():
    faults = [matrix.ALL[name] for name in FAULTS.split(",")]
    one, same, other = (plan.make(faults, seed, 16, 1.7) for seed in (1, 1, 2))
    assert one == same
    assert one != other
    assert {stroke.fault.name for stroke in one} == set(FAULTS.split(","))
