"""Clocks that jump: the wall clock of server and workers, by a module that they are started with.

The processes of a stage read their offset from a file (`tests/chaos/clock/sitecustomize.py`),
so that no clock of the machine is touched. What counts durations is not moved: it has no epoch.
"""

import os
from pathlib import Path
from random import Random

from tests.chaos.faults.fault import Fault, Heal, Strike
from tests.chaos.injected import VARIABLE
from tests.chaos.stage import Stage


def jump(seconds: float) -> Strike:
    """All wall clocks of one of server or workers are off by so much."""

    def strike(stage: Stage, chance: Random) -> Heal:
        file = Path(stage.clock[chance.choice(["server", "worker"])][VARIABLE])
        _set(file, seconds)
        return lambda: _set(file, 0)

    return strike


def _set(file: Path, seconds: float) -> None:
    draft = file.with_suffix(f".{os.getpid()}")
    draft.write_text(str(seconds))
    draft.replace(file)


def no_faketime() -> str:
    """Why a mongod's clock is left alone."""
    return "needs libfaketime, or a virtual machine of its own: a mongod's clock is not injected"


def nothing(stage: Stage, chance: Random) -> None:
    """For rows that no machine of this kind can do."""


FAULTS = [
    Fault("clock-forward", "F15", "a wall clock is ten minutes ahead", jump(600), (5, 12)),
    Fault("clock-back", "F15", "a wall clock is ten minutes behind", jump(-600), (5, 12)),
    Fault("mongod-clock", "F16", "a mongod's clock jumps", nothing, why_not=no_faketime),
]
