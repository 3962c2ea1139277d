"""A running task that submits further tasks: what it hands down, and what it may not go beyond.

The token of an attempt is with the worker that runs it, too, and a worker's account may create no
tasks. So what is submitted with it runs where the submitting task itself might have run, and gets
no secret that the task did not name. Accounts that submit pay nothing for any of this.
"""

from collections.abc import Mapping, Set
from typing import Any

from banyan.config import knobs
from banyan.domain.states import HELD
from banyan.errors import BanyanError
from banyan.server.calls import Call, Caller
from banyan.server.quotas import exceeded
from banyan.server.store import tasks
from banyan.server.store.mongo import Document

SAME, ANY, OFF = "same", "any", "off"  # what TASK_SUBMISSIONS may be
_HANDED_DOWN = {"queue": "default", "labels": {}, "priority": 0}
_FIELDS = [*_HANDED_DOWN, "env"]


def check() -> None:
    """Errors: `usage` where TASK_SUBMISSIONS is none of its values."""
    if knobs().TASK_SUBMISSIONS not in (SAME, ANY, OFF):
        said = f"BANYAN_TASK_SUBMISSIONS={knobs().TASK_SUBMISSIONS!r}"
        raise BanyanError("usage", f"{said}: say {SAME}, {ANY} or {OFF}")


def refuse_where_off(caller: Caller) -> None:
    """Errors: `forbidden` where running tasks may create neither tasks nor edges."""
    if caller.task and knobs().TASK_SUBMISSIONS == OFF:
        message = "running tasks submit nothing here: TASK_SUBMISSIONS is off; use an account"
        raise BanyanError("forbidden", message)


def bounded(call: Call, given: list[Document]) -> list[Document]:
    """The tasks of a request with what their submitter hands down; an account's as they are.

    Errors: `forbidden`, naming item and field, where they go beyond what it has; `quota_exceeded`
    where they are too many submissions away from an account; `unauthenticated` where its attempt
    has just ended.
    """
    if not call.caller.task:
        return given
    refuse_where_off(call.caller)
    most = knobs().TASK_DEPTH_MAX
    if most and call.caller.depth >= most:
        what = "submissions by tasks, one from the other"
        raise exceeded("task_depth", most, call.caller.depth, 1, what, "submit it with an account")
    own = _own(call)
    # What equals the default is left out: a dedupe_key stands for what the client has asked.
    inherited = {name: own[name] for name, usual in _HANDED_DOWN.items() if own[name] != usual}
    completed = [{**inherited, **task} for task in given]
    secrets = _secrets(own["env"])  # there may be thousands, and a thousand tasks
    found = ((index, _beyond(own, secrets, task)) for index, task in enumerate(completed))
    issues = {index: wrong for index, wrong in found if wrong}
    if issues:
        by_index = {str(index): found for index, found in issues.items()}
        told = by_index if isinstance(call.body, list) else issues[0]
        message = "a running task hands on no more than it has; nothing was stored: see _issues"
        raise BanyanError("forbidden", message, told)
    return completed


def _own(call: Call) -> Document:
    """The submitting task, read anew: a remembered token may have just lost its worth."""
    assert call.caller.task is not None  # noqa: S101 - looked at by the caller
    holds = {"holder.attempt": call.caller.attempt, "state": {"$in": [str(one) for one in HELD]}}
    found = tasks.find(call.store, [call.caller.task], holds, _FIELDS)
    if not found:
        raise BanyanError("unauthenticated", "the attempt has ended, and its token with it")
    return found[call.caller.task]


def _beyond(own: Mapping[str, Any], secrets: Set[str], task: Mapping[str, Any]) -> dict[str, str]:
    """By field, what the task asks for and its submitter does not have."""
    issues = {}
    foreign = sorted(_secrets(task.get("env", {})) - secrets)
    if foreign:
        issues["env"] = f"the running task was not given the secret {', '.join(foreign)}"
    if knobs().TASK_SUBMISSIONS == ANY:
        return issues
    if task.get("queue", own["queue"]) != own["queue"]:
        issues["queue"] = f"{own['queue']!r} only, as that of the running task; or leave it out"
    labels = task.get("labels", own["labels"])
    if not own["labels"].items() <= labels.items():
        issues["labels"] = f"all of {own['labels']}, as the running task has them; others as well"
    if task.get("priority", own["priority"]) > own["priority"]:
        issues["priority"] = f"at most {own['priority']}, which is that of the running task"
    return issues


def _secrets(env: Mapping[str, Any]) -> set[str]:
    """The names of the secrets that an environment refers to."""
    return {str(value["secret"]) for value in env.values() if isinstance(value, Mapping)}


def count(call: Call, number: int) -> None:
    """Note that the calling task submits so many more; nothing for an account.

    Of all its attempts together: a worker may give it back and claim it again without end.
    Errors: `quota_exceeded`.
    """
    task, most = call.caller.task, knobs().TASK_SUBMISSIONS_MAX
    if not task or not most or tasks.count_submissions(call.store, task, number, most):
        return
    known = tasks.find(call.store, [task], fields=["submission_count"]).get(task, {})
    used, what = known.get("submission_count", 0), "tasks that one task has submitted"
    raise exceeded("task_submissions", most, used, number, what, "submit them with an account")


def origin(caller: Caller) -> Document:
    """The fields by which a task tells which running task has submitted it; none of an account."""
    if not caller.task:
        return {}
    return {"submitted_by": caller.task, "submission_depth": caller.depth + 1}
