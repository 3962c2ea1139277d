"""Networks that are cut, one way or both; each part of the stage stands in one of its own."""

from functools import partial
from random import Random

from tests.chaos.faults.fault import Fault, Heal, Strike
from tests.chaos.ground import why_not_apart
from tests.chaos.stage import SERVER, Stage

SHORT, LONG = (2, 4), (10, 20)  # less than a lease, and longer than a lease and its margin


def _cut(stage: Stage, *directions: tuple[str, str]) -> Heal:
    undo = [stage.ground.cut(sender, receiver) for sender, receiver in directions]

    def heal() -> None:
        for one in undo:
            one()

    return heal


def worker_and_server(stage: Stage, chance: Random) -> Heal:
    """Nothing goes either way."""
    worker = stage.post(chance).name
    return _cut(stage, (worker, SERVER), (SERVER, worker))


def worker_to_server(stage: Stage, chance: Random) -> Heal:
    """Requests never arrive."""
    return _cut(stage, (stage.post(chance).name, SERVER))


def server_to_worker(stage: Stage, chance: Random) -> Heal:
    """Requests arrive, and are executed, and no answer comes back."""
    return _cut(stage, (SERVER, stage.post(chance).name))


def server_and_primary(stage: Stage, chance: Random) -> Heal | None:
    """The server finds all members but the one that it needs."""
    primary = stage.primary_place()
    return _cut(stage, (SERVER, primary), (primary, SERVER)) if primary else None


def isolated_primary(stage: Stage, chance: Random) -> Heal | None:
    """The primary hears of nobody, but the old server of it: its writes must not count."""
    primary = stage.primary_place()
    if not primary:
        return None
    others = [place for place in stage.members_by_place if place != primary]
    cuts = [(primary, place) for place in others] + [(place, primary) for place in others]
    return _cut(stage, *cuts)


def deaf_primary(stage: Stage, chance: Random) -> Heal | None:
    """One way only: it speaks to the other members, and hears nothing of them."""
    primary = stage.primary_place()
    if not primary:
        return None
    return _cut(stage, *((p, primary) for p in stage.members_by_place if p != primary))


def server_and_all_members(stage: Stage, chance: Random) -> Heal:
    """The server is alone."""
    return _cut(stage, *((SERVER, place) for place in stage.members_by_place))


_fault = partial(Fault, why_not=why_not_apart)


def _both(name: str, what: str, strike: Strike) -> list[Fault]:
    """The same for less and for more than a lease."""
    return [
        _fault(f"{name}-short", "F11", f"{what}, for less than a lease", strike, SHORT),
        _fault(f"{name}-long", "F11", f"{what}, for more than a lease", strike, LONG),
    ]


FAULTS = [
    *_both("cut-worker", "nothing passes between a worker and the server", worker_and_server),
    *_both("drop-requests", "what a worker sends to the server is lost", worker_to_server),
    *_both("drop-answers", "what the server sends to a worker is lost", server_to_worker),
    _fault("cut-primary", "F12", "between the server and the primary", server_and_primary, LONG),
    _fault("isolate-primary", "F12", "the primary from the other members", isolated_primary, LONG),
    _fault("deafen-primary", "F12", "what is sent to the primary is lost", deaf_primary, LONG),
    _fault("cut-members", "F12", "the server from all members", server_and_all_members, (2, 6)),
]
