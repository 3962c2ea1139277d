"""Disks that fill: each worker and each mongod has a small one of its own."""

from collections.abc import Callable
from pathlib import Path
from random import Random

from tests.chaos.faults.fault import Fault, Heal, Strike
from tests.chaos.ground import why_not_apart
from tests.chaos.stage import Stage


def fill(disk: Callable[[Stage, Random], Path | None]) -> Strike:
    """Not a byte is left, until it heals."""

    def strike(stage: Stage, chance: Random) -> Heal | None:
        place = disk(stage, chance)
        return stage.ground.fill(place) if place else None

    return strike


def _worker(stage: Stage, chance: Random) -> Path:
    return stage.post(chance).directory


def _primary(stage: Stage, chance: Random) -> Path | None:
    primary = stage.members.primary()
    return primary.directory if primary else None


def _secondary(stage: Stage, chance: Random) -> Path:
    primary = stage.members.primary()
    return chance.choice([one for one in stage.members.members if one is not primary]).directory


FAULTS = [
    Fault("fill-worker", "F17", "a worker's disk is full", fill(_worker), (5, 12), why_not_apart),
    Fault(
        "fill-primary", "F17", "the primary's disk is full", fill(_primary), (5, 9), why_not_apart
    ),
    Fault("fill-secondary", "F17", "a secondary's is", fill(_secondary), (5, 9), why_not_apart),
]
