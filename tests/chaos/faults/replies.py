"""Requests whose answers are lost, that arrive twice, late, or once more when all is over."""

from random import Random

from tests.chaos.faults.fault import Fault, Heal, Strike
from tests.chaos.messages import VERBS
from tests.chaos.stage import Stage
from tests.chaos.wire import Spoiling

_EVERYTHING = frozenset(VERBS)
_SHARE = 0.5
_SOME = 0.2
# Asking for a retry twice is asking for two more attempts: nobody repeats it unasked.
_REPEATABLE = _EVERYTHING - {"retry"}


def spoil(kind: str, verbs: frozenset[str], share: float, seconds: float = 0.0) -> Strike:
    """Spoil these requests until it heals."""

    def strike(stage: Stage, chance: Random) -> Heal:
        spoiling = Spoiling(kind, verbs, share, seconds, Random(chance.random()))
        stage.wire.spoil(spoiling)
        return lambda: stage.wire.spare(spoiling)

    return strike


def _lost(verb: str) -> Fault:
    what = f"half of the answers to {verb} are lost after it was executed"
    return Fault(f"lose-{verb}", "F13", what, spoil("lose", frozenset({verb}), _SHARE), (3, 8))


FAULTS = [
    *(_lost(verb) for verb in VERBS),
    Fault(
        "double-requests", "F14", "a fifth of all requests is delivered twice",
        spoil("double", _REPEATABLE, _SOME), (3, 8),
    ),
    Fault(
        "late-copies", "F14", "a fifth of all requests comes once more, 3 s later",
        spoil("echo", _REPEATABLE, _SOME, seconds=3.0), (3, 8),
    ),
    Fault(
        "delay-requests", "F14", "a fifth of all requests takes 2 s longer, and is overtaken",
        spoil("delay", _EVERYTHING, _SOME, seconds=2.0), (3, 8),
    ),
]  # fmt: skip
