"""Mends what the server's own rules can mend, by their own functions.

Nothing is decided here: leases are given back and ends settled as upkeep does it, and what
belongs to no task is removed.
"""

from collections.abc import Callable, Collection, Sequence

from bson import ObjectId

from banyan.domain.lifecycle import Change, as_edit
from banyan.server.calls import Context, Silent
from banyan.server.doctor.attempts import END
from banyan.server.doctor.dependencies import SETTLE
from banyan.server.doctor.finding import Finding
from banyan.server.doctor.leases import GIVE_BACK
from banyan.server.doctor.orphans import REMOVE
from banyan.server.doctor.shapes import RESHAPE
from banyan.server.settle import settle_ended
from banyan.server.shapes import of_task
from banyan.server.store import attempts, inspection, tasks
from banyan.server.store.mongo import Store, now
from banyan.server.upkeep.duties import SETTLE_SECONDS
from banyan.server.verbs.release import give_back


def repair(store: Store, findings: Sequence[Finding]) -> list[Finding]:
    """Mend these; returns those that can only be told.

    Errors: PyMongoError where the database does not answer.
    """
    mending: dict[str, Callable[[list[Finding]], None]] = {
        GIVE_BACK: lambda found: _give_back(store, found),
        SETTLE: lambda found: _settle(store, found),
        REMOVE: lambda found: inspection.remove_ownerless(store, _targets(found)),
        END: lambda found: _end(store, found),
        RESHAPE: lambda found: _reshape(store, found),
    }
    for remedy, mend in mending.items():
        found = [one for one in findings if one.remedy == remedy]
        if found:
            mend(found)
    return [one for one in findings if one.remedy is None]


def _give_back(store: Store, found: Sequence[Finding]) -> None:
    context = Context(store, Silent())
    held = tasks.held(store, {"_id": {"$in": [ObjectId(one.subject) for one in found]}})
    give_back(context, held, "lost with its worker", lost=True)


def _settle(store: Store, found: Sequence[Finding]) -> None:
    ended = _targets(found)
    inspection.settle_again(store, ended)
    settle_ended(store, list(ended), SETTLE_SECONDS)


def _end(store: Store, found: Sequence[Finding]) -> None:
    end = {"time_terminated": now(), "exit_status": "lost", "reason": "its end was never recorded"}
    attempts.report(
        store,
        [attempts.Addition(ObjectId(one.target), ObjectId(one.subject), end) for one in found],
    )


def _reshape(store: Store, found: Sequence[Finding]) -> None:
    changes = [
        as_edit(task, Change(task_id, {"state": task["state"]}, {"shape": of_task(task)}))
        for task_id, task in tasks.find(store, _targets(found)).items()
    ]
    tasks.apply(store, changes)


def _targets(found: Sequence[Finding]) -> Collection[ObjectId]:
    return {ObjectId(one.target) for one in found}
