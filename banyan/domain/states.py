"""The states of a task and the moves between them, as data.

`lifecycle.py` decides with this table; the API's schema and `docs/lifecycle.md` are
made from it. Nothing else in Banyan knows which move is legal.
"""

from collections.abc import Mapping
from enum import StrEnum


class State(StrEnum):
    """Where a task is in its life."""

    INACTIVE = "inactive"
    AVAILABLE = "available"
    RUNNING = "running"
    PENDING_CANCELLATION = "pending_cancellation"
    CANCELLED = "cancelled"
    TERMINATED = "terminated"


class Actor(StrEnum):
    """Who asks for a move."""

    PROVIDER = "provider"  # the owner, or an operator
    WORKER = "worker"  # the worker that holds the attempt, or wants to
    SERVER = "server"  # upkeep and the settling of continuations
    RETRY = "retry"  # the owner, through the action `retry` only


class Outcome(StrEnum):
    """How a terminated task ended."""

    SUCCESS = "success"
    FAILURE = "failure"
    TIMEOUT = "timeout"
    OOM = "oom"
    LOST = "lost"


class Ending(StrEnum):
    """What an ended task means to its continuations."""

    SUCCESS = "success"
    FAILURE = "failure"
    CANCELLED = "cancelled"


ENDED = frozenset({State.TERMINATED, State.CANCELLED})
HELD = frozenset({State.RUNNING, State.PENDING_CANCELLATION})  # by a worker

_P, _W, _S, _R = Actor.PROVIDER, Actor.WORKER, Actor.SERVER, Actor.RETRY

TRANSITIONS: Mapping[tuple[State, State], frozenset[Actor]] = {
    (State.INACTIVE, State.AVAILABLE): frozenset({_P, _S}),
    (State.INACTIVE, State.TERMINATED): frozenset({_S}),
    (State.INACTIVE, State.CANCELLED): frozenset({_P, _S}),
    (State.AVAILABLE, State.INACTIVE): frozenset({_P}),
    (State.AVAILABLE, State.RUNNING): frozenset({_W}),
    (State.AVAILABLE, State.CANCELLED): frozenset({_P, _S}),
    (State.RUNNING, State.PENDING_CANCELLATION): frozenset({_P}),
    (State.RUNNING, State.AVAILABLE): frozenset({_S}),
    (State.RUNNING, State.TERMINATED): frozenset({_W, _S}),
    (State.PENDING_CANCELLATION, State.CANCELLED): frozenset({_W, _S}),
    (State.PENDING_CANCELLATION, State.TERMINATED): frozenset({_W}),
    (State.CANCELLED, State.AVAILABLE): frozenset({_R}),
    (State.CANCELLED, State.INACTIVE): frozenset({_R}),
    (State.TERMINATED, State.AVAILABLE): frozenset({_R}),
    (State.TERMINATED, State.INACTIVE): frozenset({_R}),  # retried, but its parents are open
}


def may_move(actor: Actor, source: State, target: State) -> bool:
    """Whether the table lets `actor` take a task from `source` to `target`."""
    return actor in TRANSITIONS.get((source, target), frozenset())


def targets(actor: Actor, source: State) -> list[State]:
    """The states to which `actor` may take a task that is in `source`."""
    return [
        to for (start, to), actors in TRANSITIONS.items() if start == source and actor in actors
    ]
