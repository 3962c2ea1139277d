"""The table of states, held against the contract's own table, row by row."""

import itertools

import pytest

from banyan.domain.states import ENDED, HELD, TRANSITIONS, Actor, State, may_move, targets

# from -> who -> to, as the contract has it; the action `retry` is an actor of its own.
# A retried task whose parents are open waits for them: what is `available` may not.
CONTRACT: dict[str, dict[str, set[str]]] = {
    "inactive": {
        "provider": {"available", "cancelled"},
        "server": {"available", "terminated", "cancelled"},
    },
    "available": {
        "provider": {"cancelled", "inactive"},
        "worker": {"running"},
        "server": {"cancelled"},
    },
    "running": {
        "provider": {"pending_cancellation"},
        "worker": {"terminated"},
        "server": {"available", "terminated"},
    },
    "pending_cancellation": {
        "worker": {"cancelled", "terminated"},
        "server": {"cancelled"},
    },
    "cancelled": {"retry": {"available", "inactive"}},
    "terminated": {"retry": {"available", "inactive"}},
}


@pytest.mark.parametrize(
    ("actor", "source", "target"), list(itertools.product(Actor, State, State)), ids=str
)
def test_a_move_is_legal_exactly_where_the_contract_says(
    actor: Actor, source: State, target: State
) -> None:
    assert may_move(actor, source, target) == (target in CONTRACT[source].get(actor.value, set()))


@pytest.mark.parametrize(("actor", "source"), list(itertools.product(Actor, State)), ids=str)
def test_the_targets_are_the_legal_moves(actor: Actor, source: State) -> None:
    assert set(targets(actor, source)) == {to for to in State if may_move(actor, source, to)}


def test_only_retry_leads_out_of_an_ended_state() -> None:
    assert {
        actor for (source, _), actors in TRANSITIONS.items() if source in ENDED for actor in actors
    } == {Actor.RETRY}


def test_what_is_to_be_cancelled_can_only_end() -> None:
    """Without `retry` no way leads from pending_cancellation back to running."""
    reached = {State.PENDING_CANCELLATION}
    for _ in State:
        reached |= {
            target
            for (source, target), actors in TRANSITIONS.items()
            if source in reached and actors - {Actor.RETRY}
        }
    assert reached == {State.PENDING_CANCELLATION, *ENDED}


def test_a_worker_ends_only_what_a_worker_holds() -> None:
    moved = {source for (source, _), actors in TRANSITIONS.items() if Actor.WORKER in actors}
    assert moved == {*HELD, State.AVAILABLE}
