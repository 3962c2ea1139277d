"""decide(task, event) -> Change | Same | Refusal: every rule about a task's state.

The server's verbs call these functions with what they read, and give the Change to the
store, which writes it only where the task still is as `expected` says. Nothing here
reads or writes anything; times and identifiers come in as arguments.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from banyan.domain import retries
from banyan.domain.attempts import exit_code_and_signal, outcome_of
from banyan.domain.continuations import CHILD_LISTS, children_of
from banyan.domain.states import ENDED, HELD, Actor, Ending, Outcome, State, may_move
from banyan.domain.units import counted

Task = Mapping[str, Any]
# Each leaves a record: nobody is to make any number of them of one task.
ATTEMPTS_MAX = 10_000
# All that `finish`, `lost`, `given_back`, `since_claim` and `record_of_end` read of a task: its
# payload is more.
READ_AT_END = (
    "_id", "state", "holder", "owner", "queue", "seq", "attempt_count", "available_since", "reason",
    "failure_count", "max_attempt_count", "retry_delay_milliseconds", "retry_backoff",
    "lost_count", "max_lost_count", *CHILD_LISTS,
)  # fmt: skip


@dataclass(frozen=True)
class Change:
    """One guarded write to a task, and what belongs to it.

    expected: fields that must still have these values for the write to happen.
    attempt:  fields of the attempt's own record that follow from it.
    """

    task_id: Any
    expected: Mapping[str, Any]
    set: Mapping[str, Any]
    unset: tuple[str, ...] = ()
    attempt_id: Any = None
    attempt: Mapping[str, Any] = field(default_factory=dict)

    @property
    def ends(self) -> bool:
        """Whether the task's continuations are to be settled after it."""
        return self.set.get("ended_as") is not None


@dataclass(frozen=True)
class Same:
    """The task already is as the event wants it: nothing to write, and no error."""


@dataclass(frozen=True)
class Refusal:
    """Why not: a word of the closed list and a sentence that says what to do next."""

    word: str
    message: str


Decision = Change | Same | Refusal


def is_group(task: Task) -> bool:
    """A task without a command only orders others."""
    return not task.get("command")


def move(task: Task, target: State, now: datetime) -> Decision:
    """A provider's wish to see the task in another state."""
    state = State(task["state"])
    if state == target:
        return Same()
    if target == State.CANCELLED:
        return cancel(task)
    if target == State.PENDING_CANCELLATION or not may_move(Actor.PROVIDER, state, target):
        return _illegal(state, target)
    if target == State.AVAILABLE:
        return _activate(task, now)
    return Change(task["_id"], {"state": state}, {"state": target}, ("wake_at",))


def cancel(task: Task, *, force: bool = False) -> Decision:
    """A provider wants the task to stop, whatever it is doing; legal in every state.

    force: its worker kills it at once. A task that ends already may still be forced.
    """
    state = State(task["state"])
    if state in ENDED or (state in HELD and task.get("forced")):
        return Same()
    if state == State.PENDING_CANCELLATION and not force:
        return Same()
    reason = "cancelled on request"
    if state in HELD:
        fields = {"state": State.PENDING_CANCELLATION, "reason": reason}
        return Change(task["_id"], {"state": state}, fields | ({"forced": True} if force else {}))
    return cancelled(task, Actor.PROVIDER, reason)


def _activate(task: Task, now: datetime) -> Decision:
    if task.get("open_parents"):
        return Refusal("illegal_transition", waits_for(len(task["open_parents"])))
    expected = {"state": task["state"], "open_parents": []}
    return Change(task["_id"], expected, activated(task, now))


def waits_for(count: int) -> str:
    """What is said of a task that others have to end before."""
    those = "that has not ended" if count == 1 else "that have not ended"
    them = "it" if count == 1 else "them"
    return f"it waits for {counted(count)} {those}, and becomes available after {them}"


def activated(task: Task, now: datetime) -> dict[str, Any]:
    """The fields of a task that may run now; a group has nothing to run and is done."""
    if is_group(task):
        return ended(Outcome.SUCCESS, Ending.SUCCESS)
    wake_at = task.get("not_before")
    waits = wake_at is not None and wake_at > now
    return {"state": State.AVAILABLE, "available_since": now, "wake_at": wake_at if waits else None}


def edit_where_it_waits(task: Task, fields: Mapping[str, Any], now: datetime) -> Change:
    """These fields of an available task, in one write: no claim of it comes in between.

    It stays available, unless it has become a group, and keeps its place.
    """
    changed = {**task, **fields}
    moved = activated(changed, now)
    if not is_group(changed):
        kept = {"state", "wake_at"} if "not_before" in fields else {"state"}
        moved = {name: value for name, value in moved.items() if name in kept}
    return Change(task["_id"], {"state": State.AVAILABLE}, moved)


def as_edit(task: Task, change: Change) -> Change:
    """An owner's change of a task that nobody holds: one after the other, and seen by a claim.

    What it writes was worked out from what was read: the task's shape, whether it is a group. Were
    another edit written in between, it would be that of no task. A claim has read the task, too.
    Whoever has held the task before has no part in what it is from now on.
    """
    if State(task["state"]) not in (State.INACTIVE, State.AVAILABLE):
        return change
    counts = _counts(task)
    return replace(
        change,
        expected={**change.expected, **counts},
        set={**change.set, "edit_count": (counts["edit_count"] or 0) + 1},
        unset=(*change.unset, "holder") if task.get("holder") else change.unset,
    )


def _counts(task: Task) -> dict[str, Any]:
    """What tells whether the task is still what was read: a retry may change what it asks for."""
    return {name: task.get(name) for name in ("edit_count", "revival_count")}


def ended(outcome: Outcome | None, ending: Ending, reason: str | None = None) -> dict[str, Any]:
    """The fields of a task that ended; `unsettled` stays until its children are settled."""
    state = State.CANCELLED if outcome is None else State.TERMINATED
    return {
        "state": state,
        "outcome": outcome,
        "reason": reason,
        "ended_as": ending,
        "unsettled": True,
    }


def _spare_settling(task: Task, change: Change) -> Change:
    """A task without children leaves no mark, if it still has none when this is written."""
    if not change.ends or change.set["state"] != State.TERMINATED or children_of(task):
        return change
    childless: dict[str, Any] = {name: [] for name in CHILD_LISTS}
    expected = {**change.expected, **childless}
    return replace(change, expected=expected, set={**change.set, "unsettled": False})


def cancelled(task: Task, actor: Actor, reason: str, because: Any = None) -> Decision:
    """The end of a task that no worker holds; `because` is the parent that caused it."""
    state = State(task["state"])
    if not may_move(actor, state, State.CANCELLED):
        return _illegal(state, State.CANCELLED)
    fields = {**ended(None, Ending.CANCELLED, reason), "cancelled_because": because}
    return Change(task["_id"], {"state": state}, fields)


def claim(task: Task, holder: Mapping[str, Any], attempt: Mapping[str, Any]) -> Decision:
    """A worker takes the task. A claim of a task that runs is a race lost, not a repeat."""
    state = State(task["state"])
    if state == State.RUNNING:
        return Refusal("conflict", "another worker was faster; claim another task")
    if not may_move(Actor.WORKER, state, State.RUNNING):
        return _illegal(state, State.RUNNING)
    attempt_count = task.get("attempt_count", 0) + 1
    fields = {
        "state": State.RUNNING,
        "attempt_count": attempt_count,
        "attempt_id": holder["attempt"],
        "holder": holder,
        "host": holder.get("host"),
        "reason": None,
        "progress": None,
    }
    record = {
        **attempt,
        "task": task["_id"],
        "task_seq": task.get("seq"),
        "owner": task["owner"],
        "queue": task.get("queue"),
        "attempt_count": attempt_count,
        "time_available": task.get("available_since"),
    }
    # Since it was read it may have been claimed, and given back; or changed, or cancelled and
    # retried, so that it asks for more than what is granted here.
    expected = {"state": state, "attempt_count": attempt_count - 1, **_counts(task)}
    return Change(task["_id"], expected, fields, ("wake_at",), holder["attempt"], record)


def finish(task: Task, target: State, end: Mapping[str, Any], now: datetime) -> Decision:
    """The worker that holds the task says how the attempt ended.

    end: `exit_status`, `time_terminated`, and what else belongs in the attempt's record.
    """
    state = State(task["state"])
    if target not in ENDED:
        return _illegal(state, target)
    if state not in HELD:
        return Same()  # the report came before; the caller has checked whose it is
    outcome = outcome_of(end["exit_status"])
    if outcome is Outcome.LOST:
        return lost(task, "given up by its worker", now, end)
    if outcome is None and state == State.PENDING_CANCELLATION:
        target = State.CANCELLED
    if not may_move(Actor.WORKER, state, target) or (outcome is None and state == State.RUNNING):
        return _illegal(state, State.CANCELLED if outcome is None else target)
    if target == State.CANCELLED:
        fields = ended(None, Ending.CANCELLED, task.get("reason"))
    elif state == State.PENDING_CANCELLATION:
        fields = ended(outcome, Ending.CANCELLED, end.get("reason"))
    else:
        fields = _terminated(task, Outcome(str(outcome)), end, now)
    return _release_attempt(task, fields, end)


def _terminated(task: Task, outcome: Outcome, end: Task, now: datetime) -> dict[str, Any]:
    if outcome is Outcome.SUCCESS:
        return ended(outcome, Ending.SUCCESS, end.get("reason"))  # its output was lost, say
    reason = end.get("reason") or end["exit_status"]
    failure_count = task.get("failure_count", 0) + 1
    may_retry = retries.may_retry(failure_count, task["max_attempt_count"])
    if not may_retry or task["attempt_count"] >= ATTEMPTS_MAX:
        return {**ended(outcome, Ending.FAILURE, reason), "failure_count": failure_count}
    delay = retries.retry_delay_milliseconds(
        task["retry_delay_milliseconds"], task["retry_backoff"], failure_count
    )
    return {
        "state": State.AVAILABLE,
        "available_since": now,
        "failure_count": failure_count,
        "reason": reason,
        "wake_at": now + timedelta(milliseconds=delay) if delay else None,
    }


def lost(task: Task, reason: str, now: datetime, end: Mapping[str, Any] | None = None) -> Decision:
    """The attempt is gone with its worker: the lease lapsed, or the worker said so.

    The holder is forgotten, so that whatever it still reports is refused.
    """
    record = {"time_terminated": now, **(end or {}), "exit_status": "lost", "reason": reason}
    lost_count = task.get("lost_count", 0) + 1
    if task["state"] == State.PENDING_CANCELLATION:
        fields = ended(None, Ending.CANCELLED, task.get("reason"))
    elif retries.is_lost_for_good(lost_count, task["max_lost_count"]):
        fields = {**ended(Outcome.LOST, Ending.FAILURE, reason), "lost_count": lost_count}
    else:
        fields = {**_available_again(task, now, reason), "lost_count": lost_count}
    return _release_attempt(task, fields, record, ("holder",))


def given_back(task: Task, reason: str, now: datetime) -> Decision:
    """The attempt ends without fault: released by its worker, or the worker was removed."""
    record = {"time_terminated": now, "exit_status": "lost", "reason": reason}
    if task["state"] == State.PENDING_CANCELLATION:
        fields = ended(None, Ending.CANCELLED, task.get("reason"))
    else:
        fields = _available_again(task, now, reason)
    return _release_attempt(task, fields, record, ("holder",))


def _available_again(task: Task, now: datetime, reason: str) -> dict[str, Any]:
    if task["attempt_count"] >= ATTEMPTS_MAX:
        return ended(Outcome.LOST, Ending.FAILURE, f"{reason}; it has had {ATTEMPTS_MAX} attempts")
    return {
        "state": State.AVAILABLE,
        "available_since": now,
        "wake_at": None,
        "reason": reason,
    }


def _release_attempt(
    task: Task, fields: Mapping[str, Any], end: Task, unset: tuple[str, ...] = ()
) -> Decision:
    if task["state"] not in HELD:
        return Refusal("lease_lost", "the attempt has ended; forget it")
    attempt_id = task["holder"]["attempt"]
    expected = {"state": task["state"], "holder.attempt": attempt_id}
    change = Change(task["_id"], expected, fields, unset, attempt_id, record_of_end(task, end))
    return _spare_settling(task, change)


def record_of_end(task: Task, end: Mapping[str, Any]) -> dict[str, Any]:
    """What the record of the attempt that holds, or held, the task says after this end."""
    exit_code, signal = exit_code_and_signal(end["exit_status"])
    return {**since_claim(task), **end, "exit_code": exit_code, "signal": signal}


def since_claim(task: Task) -> dict[str, Any]:
    """What the attempt's record says since the claim; said again in case it was never written."""
    holder = task["holder"]
    return {
        "task": task["_id"],
        "task_seq": task.get("seq"),
        "owner": task["owner"],
        "queue": task.get("queue"),
        "attempt_count": task["attempt_count"],
        "time_available": task.get("available_since"),
        "worker": holder["worker"],
        "host": holder.get("host"),  # those of earlier versions have none
        "account": holder["account"],
        "granted_resources": holder["granted"],
        "time_claimed": holder["claimed"],
    }


def retry(task: Task, open_parents: list[Any], now: datetime) -> Decision:
    """One more attempt for an ended task.

    open_parents: its parents that have not ended; it waits for them again.
    """
    state = State(task["state"])
    if state == State.AVAILABLE:
        return Same()
    if not may_move(Actor.RETRY, state, State.AVAILABLE):
        return Refusal("illegal_transition", f"only an ended task is retried; this one is {state}")
    waiting = {"state": State.INACTIVE} if open_parents else activated(task, now)
    one_more = {"failure_count": task["max_attempt_count"] - 1}
    fields = {**_alive_again(task, open_parents), **one_more, **waiting}
    return Change(task["_id"], {"state": state}, fields, _OF_LIFE)


def restore(task: Task, open_parents: list[Any]) -> Decision:
    """A task that was cancelled because of a parent waits again: the parent is retried."""
    fields = {**_alive_again(task, open_parents), "state": State.INACTIVE}
    return Change(task["_id"], {"state": State.CANCELLED}, fields, _OF_LIFE)


# What a task that its owner brings back to life begins without.
_OF_LIFE = ("holder", "submission_count", "forced")


def _alive_again(task: Task, open_parents: list[Any]) -> dict[str, Any]:
    """`revival_count` tells this life from the one before: what was decided then is void."""
    return {
        "revival_count": (task.get("revival_count") or 0) + 1,
        "outcome": None,
        "reason": None,
        "ended_as": None,
        "cancelled_because": None,
        "lost_count": 0,
        "open_parents": open_parents,
        "pending_dependency_count": len(open_parents),
        "unsettled": False,
    }


def _illegal(state: State, target: State) -> Refusal:
    if state in ENDED and target == State.AVAILABLE:
        hint = "use the action `retry`"
    else:
        hint = "see the table of states"
    return Refusal("illegal_transition", f"a task that is {state} can't become {target}; {hint}")
