"""When which fault strikes: made from the seed before anything is started."""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from tests.chaos.faults import Fault

LASTING_MAX = 2  # at one time


@dataclass(frozen=True)
class Stroke:
    """One fault at its time; seconds from the start of the load.

    seed: of all that the fault leaves to chance, its victim above all.
    """

    at: float
    fault: Fault
    seconds: float
    seed: str


def make(faults: Sequence[Fault], seed: int, seconds: float, gap_seconds: float) -> list[Stroke]:
    """The strokes of a run. Every fault has struck once before any strikes twice."""
    chance = Random(f"{seed} plan")
    strokes: list[Stroke] = []
    deck: list[Fault] = []
    at = min(5.0, gap_seconds)
    while at < seconds:
        if not deck:
            deck = chance.sample(faults, len(faults))
        fault = deck.pop()
        lasts = chance.uniform(*fault.seconds)
        going = sorted(one.at + one.seconds for one in strokes if one.at + one.seconds > at)
        if lasts and len(going) >= LASTING_MAX:
            at = going[-LASTING_MAX] + 0.1
        if at >= seconds:
            break
        strokes.append(
            Stroke(round(at, 2), fault, round(lasts, 2), f"{seed} stroke {len(strokes)}")
        )
        at += chance.uniform(0.4, 1.6) * gap_seconds
    return strokes
