"""Cancel: legal whatever a task does, so a lost race is decided anew, not refused."""

from bson import ObjectId

from banyan.domain import lifecycle
from banyan.domain.lifecycle import Change
from banyan.errors import BanyanError
from banyan.server import aftermath, represent
from banyan.server.calls import OK, Answer, Call
from banyan.server.store import sizes, tasks
from banyan.server.store.mongo import Document
from banyan.server.verbs import targets

_ROUNDS = 10


def cancel(call: Call) -> Answer:
    """POST /tasks/<id>/cancel, POST /tasks/cancel {"targets": [...], "force": bool}."""
    ids, options = targets.read(call, frozenset({"force"}))
    force = options.get("force", False)
    if not isinstance(force, bool):
        raise BanyanError("invalid", "see _issues", {"force": "true or false"})
    current = cancel_all(call, ids, force)
    if call.item_id:
        return Answer({**represent.task(call, current[call.item_id]), **OK})
    return Answer(OK)


def cancel_all(call: Call, ids: list[ObjectId], force: bool) -> dict[ObjectId, Document]:
    """Cancel these tasks; returns a single one as it is afterwards."""
    for _ in range(_ROUNDS):
        found = targets.find(call, ids, ["state", "holder", "forced", "_etag"])
        decisions = [lifecycle.cancel(task, force=force) for task in found.values()]
        changes = [one for one in decisions if isinstance(one, Change)]
        changing = {one.task_id for one in changes}  # the others were cancelled before
        call.store.confirm([task for one, task in found.items() if one not in changing])
        written = tasks.apply(call.store, changes)
        won = [change for change, fields in zip(changes, written, strict=True) if fields]
        aftermath.follow(call.context, won, found)
        if tasks.TOO_LARGE in written:
            raise sizes.too_large()
        if len(won) == len(changes):
            return targets.find(call, ids) if call.item_id else found
    raise BanyanError("conflict", "the tasks keep changing; cancel again")
