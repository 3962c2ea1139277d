"""What a fault is: a name, the row of the matrix that it runs, and how it strikes."""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from tests.chaos.stage import Stage

Heal = Callable[[], None]
Strike = Callable[[Stage, Random], Heal | None]


def always() -> str | None:
    """Nothing keeps a fault from this machine."""
    return None


@dataclass(frozen=True)
class Fault:
    """One fault.

    row:     of the matrix of faults, e.g. "F7".
    what:    one line for people.
    strike:  does it, and returns what undoes it, if that is needed.
    seconds: from strike to heal, the least and the most; (0, 0): it is over at once.
    why_not: why this machine cannot do it; None where it can.
    """

    name: str
    row: str
    what: str
    strike: Strike
    seconds: tuple[float, float] = (0, 0)
    why_not: Callable[[], str | None] = always
