"""Which of the tasks that wait a worker gets, for the capacity that it has free.

The claim calls this with what it read from the database; nothing is claimed here, and a task that
is chosen may be lost to another worker a moment later.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from banyan.domain.resources import Capacity, Grant, fits, grant_for


@dataclass(frozen=True)
class Candidate:
    """A task that may be claimed: `request` in the stored form, the least `seq` is the oldest."""

    task_id: str
    request: Mapping[str, Any]
    priority: int
    seq: int
    waiting_milliseconds: int


# What a task says about how long it lasts.
DURATIONS = ("estimated_runtime_milliseconds", "timeout_milliseconds")


def span_of(task: Mapping[str, Any]) -> int | None:
    """The class of how long a task lasts at most by what it says; None where it says nothing."""
    said = [task[name] for name in DURATIONS if task.get(name) is not None]
    return span(min(said)) if said else None


def span(milliseconds: int) -> int:
    """The class of a time, of which there are four to each doubling; longer times, higher ones."""
    shift = max(0, milliseconds.bit_length() - 3)
    return 4 * shift + (milliseconds >> shift)


def order_key(candidate: Candidate) -> tuple[int, int, str]:
    """Priority, then age; the id only so that all servers agree."""
    return -candidate.priority, candidate.seq, candidate.task_id


def choose(
    candidates: Iterable[Candidate],
    free: Capacity,
    total: Capacity,
    max_count: int,
    starvation_milliseconds: int,
    ahead_count: int = 0,
) -> list[tuple[Candidate, Grant]]:
    """At most `max_count` tasks that fit together into `free`, in order, each with its grant.

    After them at most `ahead_count` that the worker could take when it has room again, so that
    its cores need not wait for the next claim.

    A task that does not fit is passed over. But where the worker when empty (`total`) could take
    it, and it has waited for `starvation_milliseconds`, nothing after it is chosen: else small
    tasks would take each piece that comes free, and it would wait for ever.
    """
    chosen: list[tuple[Candidate, Grant]] = []
    ahead: list[tuple[Candidate, Grant]] = []
    for candidate in sorted(candidates, key=order_key):
        if len(chosen) >= max_count and len(ahead) >= ahead_count:
            break
        grant = grant_for(candidate.request, total)
        has_room = fits(grant, free)
        if has_room and len(chosen) < max_count:
            chosen.append((candidate, grant))
            free = free.minus(grant)
        elif not fits(grant, total):
            continue
        elif not has_room and candidate.waiting_milliseconds >= starvation_milliseconds:
            break
        elif len(ahead) < ahead_count:
            ahead.append((candidate, grant))
    return chosen + ahead
