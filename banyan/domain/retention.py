"""How long an ended task is kept: its own time, else its queue's, else everybody's.

The validator and the server's upkeep call this. Times are whole milliseconds, or the word
"forever". It must never guess: what is no duration is a ValueError.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from banyan.domain.continuations import children_of, parents_of
from banyan.domain.states import ENDED, State
from banyan.domain.units import LARGEST, parse_duration_milliseconds

FOREVER = "forever"
LONGEST_MILLISECONDS = LARGEST
_MARK_BITS = 8

Time = int | str  # milliseconds, or FOREVER
Task = Mapping[str, Any]


@dataclass(frozen=True)
class Rules:
    """What the operator has set: for all queues, and for single ones by their names."""

    default: Time
    queues: Mapping[str, Time] = field(default_factory=dict)


def parse_retain(value: object) -> Time:
    """Milliseconds, from an integer or text like "30 days"; or "forever"."""
    if value == FOREVER:
        return FOREVER
    try:
        milliseconds = parse_duration_milliseconds(value)
    except ValueError as problem:
        raise ValueError(f'{problem}; or "{FOREVER}"') from None
    if milliseconds > LONGEST_MILLISECONDS:
        raise ValueError(f'too long: say "{FOREVER}"')
    return milliseconds


def parse_queues(text: str) -> dict[str, Time]:
    """Times of single queues, from text like "scratch=1 day, archive=forever"."""
    found: dict[str, Time] = {}
    for part in filter(None, (one.strip() for one in text.split(","))):
        queue, equals, time = part.partition("=")
        if not equals or not queue.strip():
            raise ValueError(f'{part!r}: write it like "scratch=1 day, archive={FOREVER}"')
        found[queue.strip()] = parse_retain(time.strip())
    return found


def kept(task: Task, rules: Rules) -> Time:
    """For how long after its last change this task is kept, once it has ended."""
    own: Time | None = task.get("retain")
    return rules.queues.get(task["queue"], rules.default) if own is None else own


def forget_after(task: Task, rules: Rules) -> int | None:
    """The task's own time or its queue's, where it has an end: what it is found by.

    Rounded down by less than a hundredth, so that there are few different ones however many
    times tasks have: each is looked for. Whether a task is over is told by its exact time.
    Tasks that go by everybody's time are found by their age, and need no mark for it.
    """
    own: Time | None = task.get("retain")
    time = rules.queues.get(task["queue"]) if own is None else own
    if not isinstance(time, int):
        return None
    shift = max(0, time.bit_length() - _MARK_BITS)
    return time >> shift << shift


def is_over(task: Task, rules: Rules, now: datetime) -> bool:
    """Whether the task has ended, is settled, and its time is over."""
    time = kept(task, rules)
    if not isinstance(time, int) or State(task["state"]) not in ENDED or task.get("unsettled"):
        return False
    age: timedelta = now - task["_updated"]
    return age >= timedelta(milliseconds=time)


def neighbours(task: Task) -> set[Any]:
    """All tasks that it names: while one of them has not ended, this one stays."""
    return {*children_of(task), *parents_of(task)}


@dataclass
class Output:
    """How many bytes of output an owner has, and how many of them may go."""

    total: int = 0
    removable: int = 0


def surplus(owners: Mapping[str, Output], excess: int) -> dict[str, int]:
    """By owner, what of its output goes so that `excess` bytes go in all: who has most loses first.

    What an owner has above one level goes, and the level is the same for all. So an owner who has
    less than an equal share loses nothing, however much the others write.
    """
    low, high = 0, max((one.total for one in owners.values()), default=0)
    while low < high:  # the highest level at which enough goes
        level = (low + high + 1) // 2
        if sum(_above(level, owners).values()) >= excess:
            low = level
        else:
            high = level - 1
    return {owner: size for owner, size in _above(low, owners).items() if size}


def _above(level: int, owners: Mapping[str, Output]) -> dict[str, int]:
    return {owner: min(one.removable, max(0, one.total - level)) for owner, one in owners.items()}
