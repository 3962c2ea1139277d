"""Views of what surrounds a task: its graph, and the time that is still needed."""

from collections.abc import Iterable, Mapping
from itertools import islice

from bson import ObjectId

from banyan.domain import continuations
from banyan.domain.continuations import CHILD_LISTS, EDGES, PARENT_LISTS
from banyan.domain.states import ENDED, State
from banyan.server import scoped
from banyan.server.auth import scope
from banyan.server.calls import Answer, Call
from banyan.server.store import attempts, tasks
from banyan.server.store.mongo import Document, now

NODES_MAX = 1000
EDGES_MAX = 50_000  # a thousand tasks may have a million and a half
_FIELDS = [
    "name", "state", "outcome", "attempt_id", "open_parents", "estimated_runtime_milliseconds",
    "command", *CHILD_LISTS, *PARENT_LISTS,
]  # fmt: skip


def graph(call: Call) -> Answer:
    """{"nodes": [{_id, name, state, outcome}], "edges": [{parent, child, kind}], "truncated"}."""
    start = scoped.item(call, _FIELDS)
    nodes, truncated = _around(call, start)
    every = (
        {"parent": node["_id"], "child": child, "kind": kind}
        for node in nodes.values()
        for kind in EDGES
        for child in node[kind]
        if child in nodes
    )
    edges = list(islice(every, EDGES_MAX + 1))
    truncated = truncated or len(edges) > EDGES_MAX
    shown = [
        {name: node.get(name) for name in ("_id", "name", "state", "outcome")}
        for node in nodes.values()
    ]
    answer = {"nodes": shown, "edges": edges[:EDGES_MAX], "truncated": truncated}
    return Answer(answer, wait_for=["tasks"])


def _around(call: Call, start: Document) -> tuple[dict[ObjectId, Document], bool]:
    """All that hangs together with the task, nearest first, up to a limit."""
    nodes = {start["_id"]: start}
    level = [start]
    while level:
        named = {
            other
            for node in level
            for other in (*continuations.children_of(node), *continuations.parents_of(node))
        } - nodes.keys()
        room = NODES_MAX - len(nodes)
        if len(named) > room:
            nodes.update(_read(call, sorted(named)[:room]))
            return nodes, True
        found = _read(call, named)
        nodes.update(found)
        level = list(found.values())
    return nodes, False


def _read(call: Call, ids: Iterable[ObjectId]) -> dict[ObjectId, Document]:
    return tasks.find(call.store, list(ids), scope(call.caller, "tasks"), _FIELDS)


def estimate(call: Call) -> Answer:
    """{"milliseconds", "unknown": [ids], "path": [ids]}: the longest way through what is open.

    A task's own time is what its owner estimated, else what tasks of its name took on
    average; where neither is known it is listed as unknown and counts as nothing.
    """
    start = scoped.item(call, _FIELDS)
    above = _open_ancestors(call, start)
    times = _own_times(call, above)
    total, path = _longest(start["_id"], above, times)
    unknown = [one for one in above if times[one] is None]
    return Answer({"milliseconds": total, "unknown": unknown, "path": path})


def _open_ancestors(call: Call, start: Document) -> dict[ObjectId, Document]:
    if State(start["state"]) in ENDED:
        return {}
    seen = {start["_id"]: start}
    level = [start]
    while level:
        waiting = {one for node in level for one in node.get("open_parents") or ()} - seen.keys()
        found = _read(call, waiting)
        seen.update(found)
        level = list(found.values())
    return seen


def _own_times(call: Call, nodes: Mapping[ObjectId, Document]) -> dict[ObjectId, int | None]:
    """What each task still needs; a running one has part of it behind it."""
    names = {n["name"] for n in nodes.values() if n.get("name") and n.get("command")}
    measured = attempts.mean_milliseconds(call.store, names, call.caller.account)
    running = attempts.find(
        call.store, [n["attempt_id"] for n in nodes.values() if n["state"] == "running"]
    )
    times: dict[ObjectId, int | None] = {}
    for task_id, node in nodes.items():
        if not node.get("command"):
            times[task_id] = 0
            continue
        own = node.get("estimated_runtime_milliseconds") or measured.get(node.get("name") or "")
        started = running.get(node["attempt_id"], {}).get("time_started")
        if own is not None and started:
            own = max(0, own - int((now() - started).total_seconds() * 1000))
        times[task_id] = own
    return times


def _longest(
    last: ObjectId, nodes: Mapping[ObjectId, Document], times: Mapping[ObjectId, int | None]
) -> tuple[int, list[ObjectId]]:
    """The longest path that ends in `last`, parents before children, without recursion."""
    best: dict[ObjectId, tuple[int, list[ObjectId]]] = {}
    stack = [last] if last in nodes else []
    while stack:
        task_id = stack[-1]
        parents = [one for one in nodes[task_id].get("open_parents") or () if one in nodes]
        missing = [one for one in parents if one not in best]
        if missing:
            stack += missing
            continue
        stack.pop()
        length, path = max((best[one] for one in parents), default=(0, []))
        best[task_id] = (length + (times[task_id] or 0), [*path, task_id])
    return best.get(last, (0, []))
