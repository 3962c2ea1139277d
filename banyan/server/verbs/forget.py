"""Forget: ended tasks go for good, with their attempts and their output.

Upkeep does the same to those whose time is over (`banyan.server.upkeep.retention`).
"""

from collections.abc import Collection
from time import monotonic

from bson import ObjectId

from banyan.domain.states import ENDED, State
from banyan.errors import BanyanError
from banyan.server import represent
from banyan.server.auth import owned
from banyan.server.calls import OK, Answer, Call
from banyan.server.scoped import missing
from banyan.server.settle import settle_ended
from banyan.server.store import edges, forgetting, tasks, walks
from banyan.server.store.mongo import TRANSACTION_SECONDS_MAX
from banyan.server.verbs import targets

_ROUNDS = 8  # while what they end in is being settled by others


def forget(call: Call) -> Answer:
    """POST /tasks/<id>/forget, POST /tasks/forget {"targets": [...]}: all of them, or none.

    Targets that are not there are as they shall be. Errors: `illegal_transition` where one
    has not ended, or a task that has not ended names it or is named by it; `not_found`.
    """
    ids, _ = targets.read(call)
    mine = tasks.find(call.store, ids, owned(call.caller), ["_id"])
    if call.item_id and not mine:
        raise missing("tasks", call.item_id)
    gone = _remove(call, list(mine)) if mine else {}
    forgetting.clear(call.store, gone)
    represent.announce(call.context, [{"_id": task_id} for task_id in gone])
    return Answer(OK)


def _remove(call: Call, ids: list[ObjectId]) -> forgetting.Gone:
    until = monotonic() + TRANSACTION_SECONDS_MAX
    for _ in range(_ROUNDS):
        try:
            return forgetting.remove(call.store, ids, _all_of_them, until)
        except edges.GraphChangedError:
            settle_ended(call.store, ids)
    raise BanyanError("conflict", "the tasks keep changing; try again")


def _all_of_them(found: forgetting.Tasks, hanging: forgetting.Hanging) -> Collection[ObjectId]:
    """Errors: a refusal for the first that may not go; GraphChangedError where one is unsettled."""
    for task in found.values():
        if State(task["state"]) not in ENDED:
            message = f"the task {task['_id']} is {task['state']}; only an ended task is forgotten"
            raise BanyanError("illegal_transition", message, extra={"state": task["state"]})
        if task.get("unsettled"):
            raise edges.GraphChangedError
    if sum(task["neighbour_count"] for task in found.values()) > walks.READ_TOGETHER_MAX:
        message = f"with these tasks hang more than {walks.READ_TOGETHER_MAX} others together"
        raise BanyanError("too_large", f"{message}: name fewer of them in a request")
    for task_id, other in hanging(found.keys()).items():
        message = (
            f"the task {task_id} hangs together with {other}, which has not ended; "
            "cancel that one, or wait for it"
        )
        raise BanyanError("illegal_transition", message, extra={"state": found[task_id]["state"]})
    return list(found)
