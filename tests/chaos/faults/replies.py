"""Requests whose answers are lost, that arrive twice, late, or once more when all is over."""

from random import Random

from tests.chaos.faults import races
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


# What the load itself never asks for, or hardly ever, is asked for while its answers are lost.
_ASKED_FOR: dict[str, Strike] = {
    "cancel": races.storm(races.cancel),
    "retry": races.storm(races.retry),
    "link": races.storm(races.link),
    "edit": races.storm(races.give_priority),
    "register": races.remove_worker,
}


def together(*strikes: Strike) -> Strike:
    """Several at one time, as one."""

    def strike(stage: Stage, chance: Random) -> Heal:
        heals = [heal for one in strikes if (heal := one(stage, chance))]

        def heal_all() -> None:
            for heal in heals:
                heal()

        return heal_all

    return strike


def _lost(verb: str) -> Fault:
    what = f"half of the answers to {verb} are lost after it was executed"
    strikes = [spoil("lose", frozenset({verb}), _SHARE)]
    strikes += [_ASKED_FOR[verb]] if verb in _ASKED_FOR else []
    return Fault(f"lose-{verb}", "F13", what, together(*strikes), (3, 8))


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
