"""Claiming: one task by its name, or as many as fit together.

The truth is one compare-and-set on each task; of any number of claims one wins. What
was chosen and lost to another worker is chosen anew, a few times, then left.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import accumulate
from typing import Any, NamedTuple

from bson import ObjectId

from banyan.config import knobs
from banyan.domain import lifecycle
from banyan.domain.resources import Capacity, Grant, capacity_from, fits, free_from, grant_for
from banyan.domain.states import HELD, Actor, State
from banyan.errors import BanyanError
from banyan.server import aftermath, conditions, represent, weights
from banyan.server.auth import attempt_token
from banyan.server.calls import Call
from banyan.server.gathering import Gathering
from banyan.server.scoped import missing
from banyan.server.store import attempts, batches, tasks
from banyan.server.store.mongo import Document, Store, now
from banyan.server.verbs import choosing
from banyan.server.verbs.choosing import Room, Wish
from banyan.server.verbs.leases import renewed

TASKS_DEFAULT = 1
# Claims of one moment are one statement, which MongoDB limits to 16 MiB.
_TASKS_AT_ONCE = 2000
_ROUNDS = 4
_TOO_LARGE = "its record is too large for an attempt to be noted in it: submit it anew, with less"
_SHOWN = (
    "_id", "name", "command", "env", "cwd", "queue", "labels", "priority", "tags",
    "requested_resources", "timeout_milliseconds", "max_shutdown_time_milliseconds",
    "estimated_runtime_milliseconds", "attempt_count", "attempt_id", "state", "_etag",
)  # fmt: skip


def claim_one(call: Call, task_id: ObjectId, worker_id: ObjectId) -> Document:
    """The claimed task with its token. Errors: `conflict`, `illegal_transition`, `invalid`."""
    worker = renewed(call, worker_id)
    if worker["mode"] != "active":
        raise BanyanError("conflict", f"the worker is {worker['mode']}: it takes nothing new")
    task = tasks.find(call.store, [task_id]).get(task_id)
    if task is None or (call.caller.queues is not None and task["queue"] not in call.caller.queues):
        raise missing("tasks", task_id)
    conditions.check(call.if_match, task)
    _check_named(task, worker)
    total = capacity_from(worker["resources"])
    grant = grant_for(task["requested_resources"], total)
    if not fits(grant, total):
        issues = {"worker": "the task asks for more than it has, were it empty"}
        raise BanyanError("invalid", "this worker may not claim this task", issues)
    decision = decide(task, worker, grant, None, start=False)
    if isinstance(decision, lifecycle.Refusal):
        raise BanyanError(decision.word, decision.message, extra={"state": task["state"]})
    if isinstance(decision, lifecycle.Change):
        decision = conditions.guarded(call.if_match, task, decision)
    won = _take(call, [decision], [task])
    if not won:
        # Or it was too large: it is cancelled now.
        state = tasks.states(call.store, [task_id]).get(task_id)
        raise BanyanError("conflict", "another worker was faster", extra={"state": state})
    return {**represent.task(call, won[0]), **_secret(call, won[0]), "_status": "OK"}


def _check_named(task: Document, worker: Document) -> None:
    if not choosing.has_labels(task["labels"], worker["labels"]):
        issues = {"worker": "it lacks labels that the task asks for"}
        raise BanyanError("invalid", "this worker may not claim this task", issues)
    if task["state"] == State.AVAILABLE and task.get("wake_at") and task["wake_at"] > now():
        raise BanyanError("illegal_transition", f"not before {task['wake_at'].isoformat()}")


def decide(
    task: Document,
    worker: Document,
    grant: Grant,
    claim_id: str | None,
    start: bool,
    spare: bool = True,
) -> lifecycle.Decision:
    """The claim of one task.

    start: its worker needs not ask again before it starts it.
    spare: it may wait there, and so be wanted by an idle worker.
    """
    time, attempt_id = now(), ObjectId()
    granted = grant.to_json()
    holder = {
        "attempt": attempt_id,
        "worker": worker["_id"],
        "host": worker["host"],
        "account": worker["account"],
        "granted": granted,
        "claimed": time,
        "started": start,
        "spare": spare,
    }
    record = {
        "worker": worker["_id"],
        "host": worker["host"],
        "account": worker["account"],
        "granted_resources": granted,
        "time_claimed": time,
        "time_started": time if start else None,
        "time_terminated": None,
        "log_size_bytes": 0,
    }
    return lifecycle.claim(task, holder | ({"claim_id": claim_id} if claim_id else {}), record)


def _take(
    call: Call, decisions: Sequence[lifecycle.Decision], chosen: Sequence[Document]
) -> list[Document]:
    """Write the claims; returns the tasks that were won, as they are now."""
    changes = [one for one in decisions if isinstance(one, lifecycle.Change)]
    if not changes:
        return []
    try:
        written = _written(call.store, changes)
    except Exception:  # others may have looked past them, and wait
        represent.announce_available(call.context, [one.task_id for one in changes])
        raise
    attempts.begin(call.store, [c for c, w in zip(changes, written, strict=True) if w])
    by_id = {task["_id"]: task for task in chosen}
    taken = [{**by_id[c.task_id], **w} for c, w in zip(changes, written, strict=True) if w]
    represent.announce(call.context, taken)
    _lay_aside(call, [by_id[c.task_id] for c, w in zip(changes, written, strict=True) if w == {}])
    return taken


def _lay_aside(call: Call, found: Sequence[Document]) -> None:
    """Cancels tasks that are too large to be claimed: every claim would else try them first."""
    if not found:
        return
    decisions = [lifecycle.cancelled(task, Actor.SERVER, _TOO_LARGE) for task in found]
    changes = [one for one in decisions if isinstance(one, lifecycle.Change)]
    written = tasks.apply(call.store, changes)
    won = [change for change, fields in zip(changes, written, strict=True) if fields]
    aftermath.follow(call.context, won, {})


def _written(store: Store, changes: Sequence[lifecycle.Change]) -> Sequence[Document | None]:
    """Of one change the whole task, which spares `_whole` a look."""
    if len(changes) == 1:
        return [tasks.apply_one(store, changes[0])]
    return batches.apply(store, changes).written


def claimed_before(call: Call, worker: Document, body: Mapping[str, Any]) -> list[Document] | None:
    """What an earlier request with the same claim_id got, as far as the worker still holds it.

    None where there was no such request, or it got nothing. An id that was used for several claims
    may name more than an answer has room for: the rest its worker does not hear of, nor keep.
    """
    claim_id = body.get("claim_id")
    if not claim_id or claim_id not in worker.get("claim_ids", [claim_id]):
        return None
    fields = [*_SHOWN, "holder", "seq"] if call.minimal else tasks.WITHOUT_RESULT
    most = knobs().PAGE_BYTES_MAX
    before = tasks.claimed_with(call.store, worker["_id"], claim_id, fields, most)
    call.store.confirm(before)
    return [task for task in before if State(task["state"]) in HELD] if before else None


def claim_many(call: Call, worker: Document, body: Mapping[str, Any]) -> list[Document]:
    before = claimed_before(call, worker, body)
    if before is not None:
        return before
    if worker["mode"] != "active":
        return []
    total, free = _usable(call, worker, body.get("fits"))
    most = body.get("max", TASKS_DEFAULT)
    ahead = body.get("ahead", 0)  # beyond what is free now
    won: list[Document] = []
    for lost_rounds in range(_ROUNDS):
        room = Room(free, total, most - len(won), ahead)
        outcome = CLAIMS.get(call.store, _Claim(call, Wish(worker, body, room, lost_rounds)))
        won += outcome.taken
        if len(outcome.taken) == outcome.tried or len(won) >= most:
            break
        ahead = 0
        for task in outcome.taken:
            free = free.minus(Grant.from_json(task["holder"]["granted"]))
    return _whole(call, won)


def _usable(call: Call, worker: Document, fits: Any) -> tuple[Capacity, Capacity]:
    """What it has when empty, but for memory that ended tasks have left taken; and what is free.

    For that memory no task is to hold back the others, or to be claimed ahead. What the worker
    says to be free is newer than its last beat.
    """
    total = capacity_from(worker["resources"])
    stuck = worker.get("used", {}).get("stuck")
    if not stuck:
        return total, free_of(call, worker, fits, total)
    usable = total.minus(Grant(memory_bytes=stuck.get("memory_bytes", 0)))
    free = free_of(call, worker, fits, usable if fits is None else total)
    return replace(usable, memory_bytes=max(usable.memory_bytes, free.memory_bytes)), free


class _Claim(NamedTuple):
    call: Call
    wish: Wish


class _Outcome(NamedTuple):
    """tried: for how many; taken: those that it got, in the order of claiming."""

    tried: int
    taken: list[Document]


def _claim_together(claims: Sequence[_Claim]) -> list[_Outcome]:
    """One round of the claims of one moment, or of the first few: one look and one write."""
    sums = accumulate(one.wish.room.most + one.wish.room.ahead for one in claims)
    count = max(1, sum(1 for wanted in sums if wanted <= _TASKS_AT_ONCE))
    call = claims[0].call  # all are of one store
    wishes = [one.wish for one in claims[:count]]
    chosen = [weights.together(one) for one in choosing.choose_for(call.store, wishes)]
    decisions = [
        one for wish, tasks in zip(wishes, chosen, strict=False) for one in _decided(wish, tasks)
    ]
    taken = _take(call, decisions, [task for tasks in chosen for task, _ in tasks])
    by_id = {task["_id"]: task for task in taken}
    return [
        _Outcome(len(tasks), [by_id[one["_id"]] for one, _ in tasks if one["_id"] in by_id])
        for tasks in chosen
    ]


CLAIMS = Gathering(_claim_together, lambda claim: claim.wish.worker["account"])


def _decided(wish: Wish, chosen: Sequence[tuple[Document, Grant]]) -> list[lifecycle.Decision]:
    start = bool(wish.body.get("start"))
    spare = _spare(wish.room, [grant for _, grant in chosen], start)
    return [
        decide(task, wish.worker, grant, wish.body.get("claim_id"), start, waits)
        for (task, grant), waits in zip(chosen, spare, strict=True)
    ]


def free_of(call: Call, worker: Document, given: Any, total: Capacity) -> Capacity:
    """What the worker says is free; where it does not say, what it does not hold."""
    if given is not None:
        return free_from(given, total)
    free = total
    for _, granted in tasks.granted_by(call.store, [worker["_id"]]):
        free = free.minus(Grant.from_json(granted))
    return free


def _spare(room: Room, chosen: Sequence[Grant], start: bool) -> list[bool]:
    """Which of the chosen cannot start at once, or wait to be told to."""
    free, spare = room.free, []
    for number, grant in enumerate(chosen):
        goes = number < room.most and fits(grant, free)
        free = free.minus(grant) if goes else free
        spare.append(not (goes and start))
    return spare


def _whole(call: Call, won: Sequence[Document]) -> list[Document]:
    """The won tasks with all that their worker needs to run them, in the order of claiming."""
    parts = [task["_id"] for task in won if "command" not in task]
    fields = [*_SHOWN, "holder"] if call.minimal else tasks.WITHOUT_RESULT
    found = tasks.find(call.store, parts, fields=fields) if parts else {}
    known = {task["_id"]: task for task in won if "command" in task}
    return still_held(found | known, {task["_id"]: task["attempt_id"] for task in won})


def still_held(
    found: Mapping[ObjectId, Document], attempts: Mapping[ObjectId, ObjectId]
) -> list[Document]:
    """Those of the tasks that these attempts still hold, in their order.

    The answer tells the token of who holds a task: by now that may be somebody else.
    """
    whole = [(found.get(task_id, {}), attempt) for task_id, attempt in attempts.items()]
    return [one for one, attempt in whole if one.get("holder", {}).get("attempt") == attempt]


def shown(call: Call, task: Document) -> Document:
    if call.minimal:
        shown = {name: task.get(name) for name in _SHOWN}
    else:
        shown = represent.task(call, task)
    return {**shown, **_secret(call, task)}


def _secret(call: Call, task: Document) -> Document:
    return {
        "granted_resources": task["holder"]["granted"],
        "token": attempt_token(call.context.attempt_secret, task["holder"]["attempt"]),
    }
