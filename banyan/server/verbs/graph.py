"""Views of what surrounds a task: its graph, and the time that is still needed."""

from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import islice

from bson import ObjectId

from banyan.domain import continuations
from banyan.domain.continuations import CHILD_LISTS, EDGES, PARENT_LISTS
from banyan.domain.states import ENDED, State
from banyan.server import scoped
from banyan.server.auth import scope
from banyan.server.calls import Answer, Call
from banyan.server.store import attempts, walks
from banyan.server.store.mongo import Document, now

NODES_MAX = 1000
EDGES_MAX = 20_000
_FIELDS = ["name", "state", "outcome", *CHILD_LISTS, *PARENT_LISTS]
_WAITING_FIELDS = {
    **dict.fromkeys(
        ("name", "state", "attempt_id", "open_parents", "estimated_runtime_milliseconds"), 1
    ),
    "command": {"$gt": ["$command", None]},  # whether there is one: it may be long
}


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
    limits = scope(call.caller, "tasks")
    walker = walks.Walker(call.store, _FIELDS, limits, tasks_max=NODES_MAX)
    nodes = {start["_id"]: start}
    level = [start]
    truncated = False
    while level and not truncated:
        room = NODES_MAX - len(nodes)
        named = list(islice(_beyond(level, nodes), room + 1))
        truncated = len(named) > room
        try:
            level = walker.named(named[:room])
        except walks.TooFarError:
            return nodes, True
        nodes.update({one["_id"]: one for one in level})
    return nodes, truncated


def _beyond(level: Iterable[Document], nodes: Collection[ObjectId]) -> Iterator[ObjectId]:
    """What these tasks name and is not known yet, each once."""
    named: set[ObjectId] = set()
    for node in level:
        for other in (*continuations.children_of(node), *continuations.parents_of(node)):
            if other not in nodes and other not in named:
                named.add(other)
                yield other


def estimate(call: Call) -> Answer:
    """{"milliseconds", "unknown": [ids], "path": [ids], "truncated"}: the longest way through.

    A task's own time is what its owner estimated, else what tasks of its name took on
    average; where neither is known it is listed as unknown and counts as nothing. Where too
    many tasks come before it, `truncated` is true: it takes at least so long.
    """
    start = scoped.item(call, _WAITING_FIELDS)
    above, truncated = _open_ancestors(call, start)
    times = _own_times(call, above)
    total, path = _longest(start["_id"], above, times)
    unknown = [one for one in above if times[one] is None]
    answer = {"milliseconds": total, "unknown": unknown, "path": path, "truncated": truncated}
    return Answer(answer)


def _open_ancestors(call: Call, start: Document) -> tuple[dict[ObjectId, Document], bool]:
    """What has not ended of all that comes before it; and whether there is more of that."""
    if State(start["state"]) in ENDED:
        return {}, False
    walker = walks.Walker(call.store, _WAITING_FIELDS, scope(call.caller, "tasks"))
    seen = {start["_id"]: start}
    level = [start]
    while level:
        waiting = {one for node in level for one in node.get("open_parents") or ()} - seen.keys()
        try:
            level = walker.named(waiting)
        except walks.TooFarError:
            return seen, True
        seen.update({one["_id"]: one for one in level})
    return seen, False


def _own_times(call: Call, nodes: Mapping[ObjectId, Document]) -> dict[ObjectId, int | None]:
    """What each task still needs; a running one has part of it behind it."""
    names = {n["name"] for n in nodes.values() if n.get("name") and n.get("command")}
    measured = attempts.mean_milliseconds(call.store, names, call.caller.account)
    running = attempts.find(
        call.store,
        [n["attempt_id"] for n in nodes.values() if n["state"] == "running"],
        ["time_started"],
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
    """The longest path that ends in `last`: parents before children, each looked at once."""
    if last not in nodes:
        return 0, []
    parents = {
        one: [other for other in node.get("open_parents") or () if other in nodes]
        for one, node in nodes.items()
    }
    children: dict[ObjectId, list[ObjectId]] = {}
    for one, above in parents.items():
        for parent in above:
            children.setdefault(parent, []).append(one)
    waiting = {one: len(above) for one, above in parents.items()}
    ready = deque(one for one, count in waiting.items() if not count)
    total: dict[ObjectId, int] = {}
    before: dict[ObjectId, ObjectId | None] = {}
    while ready:
        one = ready.popleft()
        longest = max(parents[one], key=lambda other: total[other], default=None)
        total[one] = (0 if longest is None else total[longest]) + (times[one] or 0)
        before[one] = longest
        for child in children.get(one, ()):
            waiting[child] -= 1
            if not waiting[child]:
                ready.append(child)
    path: list[ObjectId] = []
    step: ObjectId | None = last
    while step is not None:
        path.append(step)
        step = before.get(step)
    return total.get(last, 0), path[::-1]
