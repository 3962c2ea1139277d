"""GET /tasks/<id>/explain: why a task does not run, and what would change that.

For one that runs or ran: where its time went. Each cause is one object with a `cause`
word, a sentence, and what it is about, so that programs and people read the same.
"""

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from itertools import pairwise
from typing import Any

from bson import ObjectId

from banyan.domain import lifecycle
from banyan.domain.resources import Capacity, Grant, capacity_from, fits, grant_for
from banyan.domain.states import ENDED, HELD, State
from banyan.domain.units import counted, format_bytes, format_duration
from banyan.server import scoped
from banyan.server.auth import scope
from banyan.server.calls import Answer, Call
from banyan.server.store import attempts, claims, tasks, workers
from banyan.server.store.mongo import Document, now

_PARENTS_SHOWN = 10
_HOSTS_SHOWN = 3
_PLURAL = re.compile(r"(?<=core)s\b|(?<=gpu)s\b")
_SAID = {
    "success": "it has succeeded",
    "failure": "it has failed",
    "running": "it runs",
    "cancelled": "it was cancelled",
    "pending_cancellation": "it is being ended",
}


def explain(call: Call) -> Answer:
    """{"state", "causes": [{"cause", "message", ...}], "times": {...}}."""
    task = scoped.item(call)
    state = State(task["state"])
    if state == State.INACTIVE:
        causes = _inactive(call, task)
    elif state == State.AVAILABLE:
        causes = _available(call, task)
    else:
        causes = [_over(task, state)]
    answer: dict[str, Any] = {"_id": task["_id"], "state": state, "causes": causes}
    if state in ENDED or state in HELD:
        answer["times"] = times_of(task, attempts.times_of_task(call.store, task))
    return Answer(answer, wait_for=[f"task:{call.item_id}"])


def _cause(word: str, message: str, **more: Any) -> dict[str, Any]:
    return {"cause": word, "message": message, **more}


def _over(task: Document, state: State) -> dict[str, Any]:
    told = task.get("reason") or _SAID.get(task.get("outcome") or state, f"it is {state}")
    retried = {
        "failure": "see its output with 'log', mend what is wrong, and retry it",
        "timeout": "retry it with a longer timeout: banyan retry --timeout TIME",
        "oom": "retry it with more memory: banyan retry --memory SIZE",
    }
    advice = retried.get(task.get("outcome") or "")
    if state == State.PENDING_CANCELLATION:
        told, advice = _ending(task, told)
    return _cause(str(state), told, **({"advice": advice} if advice else {}))


def _ending(task: Document, told: str) -> tuple[str, str | None]:
    """What comes next for a task that was cancelled while it ran."""
    if task.get("forced"):
        return f"{told}; its worker kills it now", None
    grace = format_duration(task["max_shutdown_time_milliseconds"])
    message = f"{told}; it has got SIGTERM, and gets SIGKILL {grace} after that"
    return message, "kill it now: banyan cancel --force"


def _inactive(call: Call, task: Document) -> list[dict[str, Any]]:
    parents = task.get("open_parents") or []
    if not parents:
        advice = "release it (banyan release), which sets its state to available"
        return [_cause("held", "it is held: it waits for its owner", advice=advice)]
    seen = scope(call.caller, "tasks")  # an operator may have tied it to another owner's
    shown = tasks.find(call.store, parents[:_PARENTS_SHOWN], seen, ["name", "state"])
    open_ones = [
        {"_id": one["_id"], "name": one.get("name"), "state": one["state"]}
        for one in shown.values()
    ]
    message = lifecycle.waits_for(len(parents))
    return [_cause("parents_open", message, count=len(parents), parents=open_ones)]


def _available(call: Call, task: Document) -> list[dict[str, Any]]:
    if task.get("wake_at") and task["wake_at"] > now():
        return [_cause("not_before", "its time has not come", time=task["wake_at"])]
    with_labels = {f"labels.{name}": value for name, value in task["labels"].items()}
    asked = ["mode", "host", *_abilities(task["requested_resources"])]
    labelled, stuck, drained = {}, {}, list[str]()
    for worker in workers.live(call.store, {"queues": task["queue"], **with_labels}, asked):
        labelled[worker["_id"]] = total = _capacity(worker)
        if kept := worker.get("used", {}).get("stuck"):
            stuck[worker["_id"]] = Grant.from_json(kept)
        if worker["mode"] != "active" and _could_ever(task, total):
            drained.append(worker["host"])
            del labelled[worker["_id"]]
    able = {worker: total for worker, total in labelled.items() if _could_ever(task, total)}
    if able:
        return [_waiting(call, task, able, {one: stuck[one] for one in stuck.keys() & able.keys()})]
    if drained:
        return [_drained(drained)]
    if labelled:
        return [_too_large(task, labelled.values())]
    return [_not_offered(task, workers.any_live(call.store, {"queues": task["queue"]}))]


def _drained(hosts: Sequence[str]) -> dict[str, Any]:
    """hosts: of the workers that could run it, if they took anything."""
    who = "the worker that could run it is" if len(hosts) == 1 else "all that could run it are"
    each = sorted(set(hosts))[:_HOSTS_SHOWN]
    advice = f"let it take tasks again: banyan worker resume {shlex.join(each)}"
    return _cause("drained", f"{who} drained ({', '.join(each)})", hosts=each, advice=advice)


def _not_offered(task: Document, queue_is_served: bool) -> dict[str, Any]:
    if not queue_is_served:
        message = f"no worker serves the queue {task['queue']!r}"
        advice = f"start one: banyan worker --queue {task['queue']}"
        return _cause("queue_not_served", message, queue=task["queue"], advice=advice)
    labels = [f"{name}={value}" for name, value in task["labels"].items()]
    message = f"no worker of its queue has all the labels that it asks for: {', '.join(labels)}"
    words = " ".join(f"--label {shlex.quote(label)}" for label in labels)  # to be copied
    advice = f"start one: banyan worker {words}"
    return _cause("labels_missing", message, labels=task["labels"], advice=advice)


def _abilities(request: Mapping[str, Any]) -> list[str]:
    """The fields of a worker that tell whether such a task could run there, and no others."""
    names = ["cores", "memory", "disk", *(f"custom.{name}" for name in request["custom"])]
    if request["gpu_count"]:
        names += ["gpus.memory", "gpus.compute_capability"]
    return ["used.stuck", *(f"resources.{name}" for name in names)]


def _capacity(worker: Document) -> Capacity:
    return capacity_from({"gpus": [], "custom": {}, **worker["resources"]})


def _waiting(
    call: Call,
    task: Document,
    able: Mapping[ObjectId, Capacity],
    stuck: Mapping[ObjectId, Grant],
) -> dict[str, Any]:
    """It could run somewhere: what is in the way there, and who is before it."""
    ahead = claims.count_ahead(call.store, task)
    free = _free(call, able, stuck)
    lacking = _nearest(task, free)
    who, are = counted(len(able), "worker"), "is" if len(able) == 1 else "are"
    said = _said(lacking, task)
    busy = f"and {are} busy: {said} free" if lacking else "and there is room for it now"
    line = "no task is" if not ahead else "1 task is" if ahead == 1 else f"{ahead:,} tasks are"
    message = f"{who} could run it {busy}; {line} before it"
    message += _in_the_way(stuck, able) if lacking else ""
    advice = "wait, raise its priority (banyan set --priority), or start one more worker"
    more: dict[str, Any] = {"lacking": lacking, "advice": advice} if lacking else {}
    return _cause("waiting", message, workers=len(able), ahead=ahead, **more)


def _in_the_way(stuck: Mapping[ObjectId, Grant], able: Mapping[ObjectId, Capacity]) -> str:
    """What ended tasks keep of these workers: processes their cores, and what is left memory."""
    said = ""
    if cores := sum(one.cores for one in stuck.values()):
        said += f"; processes that would not end are in the way of {counted(cores, 'core')}"
    if kept := sum(one.memory_bytes for one in stuck.values()):
        total = sum(able[worker].memory_bytes for worker, one in stuck.items() if one.memory_bytes)
        memory = f"{format_bytes(kept)} of {format_bytes(total)}"
        said += f"; ended tasks still take {memory} of memory there"
    return said


def _free(
    call: Call, total: Mapping[ObjectId, Capacity], stuck: Mapping[ObjectId, Grant]
) -> list[tuple[Capacity, Capacity]]:
    """Of each worker: (what it has, what of it neither a task holds nor what is left of one)."""
    free = {one: has.minus(stuck.get(one, Grant())) for one, has in total.items()}
    for worker, granted in tasks.granted_by(call.store, list(total)):
        free[worker] = free[worker].minus(Grant.from_json(granted))
    return [(total[worker], free[worker]) for worker in total]


def _could_ever(task: Document, total: Capacity) -> bool:
    return fits(grant_for(task["requested_resources"], total), total)


def _too_large(task: Document, every: Iterable[Capacity]) -> dict[str, Any]:
    """What the worker that comes nearest lacks."""
    lacking = _nearest(task, [(total, total) for total in every])
    advice = "ask for less (banyan set --memory and the like), or start a worker that has it"
    message = f"no worker has enough: {_said(lacking, task)}"
    return _cause("too_large", message, lacking=lacking, advice=advice)


def _nearest(task: Document, workers: list[tuple[Capacity, Capacity]]) -> dict[str, Any]:
    """{resource: {"wanted", "most"}} that the worker lacks which lacks the fewest, the least.

    workers: of each, what it has, and what of that is to be compared. Empty: it fits there.
    """
    lacks = []
    for total, offered in workers:
        compared = _compared(grant_for(task["requested_resources"], total), offered)
        lack = {
            name: {"wanted": wanted, "most": has}
            for name, (wanted, has) in compared.items()
            if wanted > has
        }
        lacks.append(lack)
    return min(
        lacks, key=lambda one: (len(one), sum(1 - n["most"] / n["wanted"] for n in one.values()))
    )


def _said(lacking: Mapping[str, Any], task: Document) -> str:
    kind = _gpu_kind(task["requested_resources"])
    wanted = {"gpus": f"gpus with {kind}"} if kind else {}
    had = {"gpus": "such gpus"} if kind else {}
    return "; ".join(
        f"{_spelled(wanted.get(name, name), one['wanted'])} wanted, "
        f"the nearest has {_spelled(had.get(name, name), one['most'])}"
        for name, one in lacking.items()
    )


def _gpu_kind(request: Mapping[str, Any]) -> str:
    """What each GPU must be, where that is more than a GPU."""
    memory = request["gpu_memory_bytes"]
    major, minor = (request[f"gpu_compute_capability_{part}"] for part in ("major", "minor"))
    demands = [f"{format_bytes(memory)}"] if memory else []
    demands += [f"compute capability {major}.{minor}"] if major or minor else []
    return " and ".join(demands)


def _spelled(name: str, amount: float) -> str:
    if name.endswith("_bytes"):
        return f"{format_bytes(int(amount))} of {name.removesuffix('_bytes')}"
    return f"{amount:g} {_PLURAL.sub('', name) if amount == 1 else name}"


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
    """Where its time went, in milliseconds.

    Of the way to its first attempt (`waiting`) one part was for other tasks or its owner
    (`dependencies`), the rest in the queue; `retries` lie between attempts.
    """
    if not every:
        return {"waiting_milliseconds": _between(task["_created"], task["_updated"])}
    waiting = _between(task["_created"], every[0]["time_claimed"])
    running = sum(
        _between(
            one.get("time_started") or one["time_claimed"], one.get("time_terminated") or now()
        )
        for one in every
    )
    between = sum(
        _between(one.get("time_terminated") or following["time_claimed"], following["time_claimed"])
        for one, following in pairwise(every)
    )
    times = {
        "waiting_milliseconds": waiting,
        "running_milliseconds": running,
        "retries_milliseconds": between,
        "attempts": len(every),
    }
    if len(every) == 1 and task.get("available_since"):
        # After another attempt it tells of that one: the first one's is not kept.
        held_back = min(waiting, _between(task["_created"], task["available_since"]))
        times["dependencies_milliseconds"] = held_back
        times["queue_milliseconds"] = waiting - held_back
    return times


def _between(start: datetime, end: datetime) -> int:
    return max(0, int((end - start).total_seconds() * 1000))
