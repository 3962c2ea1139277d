"""All checks, on a database that others are writing to.

What is on its way is not wrong: a finding counts only if it is there again at a second look,
some upkeep periods later.
"""

import time
from collections.abc import Callable, Collection, Iterator

from bson import ObjectId

from banyan.config import knobs
from banyan.server.doctor import (
    attempts,
    dependencies,
    edges,
    indexes,
    leaks,
    leases,
    orphans,
    settling,
    shapes,
    states,
)
from banyan.server.doctor.finding import Finding
from banyan.server.store import inspection
from banyan.server.store.mongo import Store
from banyan.server.upkeep.loop import PERIODS_HELD

_OF_TASKS = (states, attempts, dependencies, edges, leases, settling, shapes)
_OF_THE_WHOLE = (indexes, leaks, orphans)


def examine(
    store: Store,
    again_after_seconds: float | None = None,
    wait: Callable[[float], object] = time.sleep,
) -> list[Finding]:
    """Everything that is wrong, and stays so.

    again_after_seconds: between the two looks; None: as long as a server that was killed may
    keep the periodic duties from the others. 0: what is found at once, of a database at rest.
    wait: how the pause is spent, in seconds.
    Errors: PyMongoError where the database does not answer.
    """
    first = list(_look(store))
    if not first or again_after_seconds == 0:
        return first
    pause = (PERIODS_HELD + 1) * knobs().UPKEEP_SECONDS
    wait(pause if again_after_seconds is None else again_after_seconds)
    named = {ObjectId(one.subject) for one in first if ObjectId.is_valid(one.subject)}
    again = set(_look(store, named))
    return [one for one in first if one in again]


def _look(store: Store, task_ids: Collection[ObjectId] | None = None) -> Iterator[Finding]:
    for batch in inspection.batches(store, task_ids):
        for one in _OF_TASKS:
            yield from one.check(batch)
    for whole in _OF_THE_WHOLE:
        yield from whole.check(store)
