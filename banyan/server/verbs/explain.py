"""GET /tasks/<id>/explain: why a task does not run, and what would change that.

For one that runs or ran: where its time went. Each cause is one object with a `cause`
word, a sentence, and what it is about, so that programs and people read the same.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from banyan.domain.resources import Capacity, Grant, capacity_from, fits, grant_for
from banyan.domain.states import ENDED, HELD, State
from banyan.server import scoped
from banyan.server.calls import Answer, Call
from banyan.server.store import attempts, claims, tasks, workers
from banyan.server.store.mongo import Document, now

_PARENTS_SHOWN = 10


def explain(call: Call) -> Answer:
    """{"state", "causes": [{"cause", "message", ...}], "times": {...}}."""
    task = scoped.item(call)
    state = State(task["state"])
    if state == State.INACTIVE:
        causes = _inactive(call, task)
    elif state == State.AVAILABLE:
        causes = _available(call, task)
    else:
        causes = [_cause(str(state), task.get("reason") or f"the task is {state}")]
    answer: dict[str, Any] = {"_id": task["_id"], "state": state, "causes": causes}
    if state in ENDED or state in HELD:
        answer["times"] = times_of(task, attempts.of_task(call.store, task["_id"]))
    return Answer(answer, wait_for=[f"task:{call.item_id}"])


def _cause(word: str, message: str, **more: Any) -> dict[str, Any]:
    return {"cause": word, "message": message, **more}


def _inactive(call: Call, task: Document) -> list[dict[str, Any]]:
    parents = task.get("open_parents") or []
    if not parents:
        return [_cause("held", "it waits for its owner: set its state to available")]
    shown = tasks.find(call.store, parents[:_PARENTS_SHOWN], fields=["name", "state"])
    open_ones = [
        {"_id": one["_id"], "name": one.get("name"), "state": one["state"]}
        for one in shown.values()
    ]
    message = f"{len(parents)} parents are still open; it becomes available when they are done"
    return [_cause("parents_open", message, count=len(parents), parents=open_ones)]


def _available(call: Call, task: Document) -> list[dict[str, Any]]:
    if task.get("wake_at") and task["wake_at"] > now():
        return [_cause("not_before", "its time has not come", time=task["wake_at"])]
    live = [worker for worker in workers.live(call.store) if worker["mode"] == "active"]
    serving = [worker for worker in live if task["queue"] in worker["queues"]]
    if not serving:
        message = f"no worker serves the queue {task['queue']!r}; start one with --queue"
        return [_cause("queue_not_served", message, queue=task["queue"])]
    labelled = [worker for worker in serving if _has_labels(task, worker)]
    if not labelled:
        message = "no worker of its queue has all the labels that it asks for"
        return [_cause("labels_missing", message, labels=task["labels"])]
    able = [worker for worker in labelled if _could_ever(task, worker)]
    if not able:
        return [_too_large(task, labelled)]
    ahead = claims.count_ahead(call.store, task)
    message = (
        f"{len(able)} workers could run it and are busy, or claim it now; {ahead} are before it"
    )
    return [_cause("waiting", message, workers=len(able), ahead=ahead)]


def _has_labels(task: Document, worker: Document) -> bool:
    return all(worker["labels"].get(name) == value for name, value in task["labels"].items())


def _could_ever(task: Document, worker: Document) -> bool:
    total = capacity_from(worker["resources"])
    return fits(grant_for(task["requested_resources"], total), total)


def _too_large(task: Document, candidates: list[Document]) -> dict[str, Any]:
    """Which resource no worker has enough of, and the most that one has."""
    lacking: dict[str, Any] = {}
    for worker in candidates:
        total = capacity_from(worker["resources"])
        grant = grant_for(task["requested_resources"], total)
        for name, (wanted, has) in _compared(grant, total).items():
            if wanted > has:
                best = max(has, lacking.get(name, {}).get("most", 0))
                lacking[name] = {"wanted": wanted, "most": best}
    said = "; ".join(f"{one['wanted']} {name}, the nearest has {one['most']}"
                     for name, one in lacking.items())  # fmt: skip
    return _cause("too_large", f"no worker has enough: {said}", lacking=lacking)


def _compared(grant: Grant, total: Capacity) -> dict[str, tuple[float, float]]:
    gpus = sum(
        one.memory_bytes >= grant.gpu_memory_bytes and one.capability >= grant.gpu_capability
        for one in total.gpus
    )
    disk = float("inf") if total.disk_bytes is None else total.disk_bytes
    return {
        "cores": (grant.cores, total.cores),
        "memory_bytes": (grant.memory_bytes, total.memory_bytes),
        "gpus": (grant.gpu_count, gpus),
        "disk_bytes": (grant.disk_bytes, disk),
        **{name: (n, total.custom.get(name, 0)) for name, n in grant.custom.items()},
    }


def times_of(task: Mapping[str, Any], every: list[Document]) -> dict[str, Any]:
    """Milliseconds from creation to the first claim, and of all attempts together."""
    if not every:
        return {"waiting_milliseconds": _between(task["_created"], task["_updated"])}
    running = sum(
        _between(
            one.get("time_started") or one["time_claimed"], one.get("time_terminated") or now()
        )
        for one in every
    )
    return {
        "waiting_milliseconds": _between(task["_created"], every[0]["time_claimed"]),
        "running_milliseconds": running,
        "attempts": len(every),
    }


def _between(start: datetime, end: datetime) -> int:
    return max(0, int((end - start).total_seconds() * 1000))
