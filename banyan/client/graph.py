"""A list of new tasks made ready to send: ids, states, and edges in an order that can be sent.

Called by `Client.submit`. It never changes what its caller gave it. A field that is not as it must
be is left as it is: the server says what is wrong with it.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from banyan.client.byte_words import carried
from banyan.client.encoding import encoded
from banyan.client.ids import is_id, new_before, new_id
from banyan.errors import BanyanError

# As much as the server takes in one request; of the bytes, with room to spare.
BULK_ITEMS = 1000
BODY_BYTES = 8 * 1024 * 1024
EDGES = 100_000
PARENTS = 1024  # of one kind, of one task

# How an edge is named by the parent -> how the same edge is named by the child.
CHILD_SIDE = {
    "continuations": "after",
    "failure_continuations": "after_failure",
    "final_continuations": "after_any",
}
# How a group waits for its parents -> how the child waits for the group. A group succeeds when its
# parents have ended as it wants: so the child of those that were to fail waits for its success.
# That adds to the child's `after`, which is therefore looked at last.
_OF_GROUP = {"after_failure": "after", "after_any": "after_any", "after": "after"}
ARRAY_TAG = "array"  # of tasks submitted together; its value is the id of the first
_NAME_LENGTH_MAX = 256


def prepared(tasks: Iterable[Mapping[str, Any]], hold: bool) -> list[dict[str, Any]]:
    """The tasks with `_id` and `state`, in the order given.

    Edges within the list are moved to the child's side, which accepts parents in any state:
    so a list may be sent in pieces while its first tasks already run. A task with a
    `dedupe_key` gets no `_id`: the key already makes a repeated request safe, and a new id
    would make the task differ from the one that is stored.

    A task with more parents than it may have waits for groups that wait for them: these come
    after the tasks that were given.

    hold:   leave the tasks inactive; otherwise they are available as soon as their parents
            are done.
    Errors: `invalid` for an id used twice.
    """
    state = "inactive" if hold else "available"
    ready = []
    for task in tasks:
        identity = {} if "dedupe_key" in task else {"_id": new_id()}
        ready.append(carried({**identity, "state": state, **task}))
    places = _places(ready)
    for task in ready:
        _move_edges(task, ready, places)
    groups: _Groups = {}  # some wait for the same
    for task in ready:
        _group_parents(task, groups)
    return ready + list(groups.values())


_Groups = dict[tuple[str, str, tuple[str, ...]], dict[str, Any]]  # by key, kind and parents


def _group_parents(task: dict[str, Any], groups: _Groups) -> None:
    if any(task.get(kind) and not _ids(task, kind) for kind in _OF_GROUP):
        return  # it will be refused
    for kind, kind_of_group in _OF_GROUP.items():
        while len(_ids(task, kind)) > PARENTS:
            parents, ids = task.pop(kind), []
            for start in range(0, len(parents), PARENTS):
                some = tuple(parents[start : start + PARENTS])
                key = (str(task.get("dedupe_key") or ""), kind, some)
                group = groups.setdefault(key, _group(task, *key))
                ids.append(group["_id"])
            task[kind_of_group] = [*_ids(task, kind_of_group), *ids]


def _group(child: Mapping[str, Any], key: str, kind: str, parents: Sequence[str]) -> dict[str, Any]:
    """It goes on by itself, is found by the tags of its child, and kept as long.

    key: of its child: the same submission again has the same groups, and so the same child.
    """
    name = f"parents of {child.get('name') or child.get('_id', 'a task')}"[:_NAME_LENGTH_MAX]
    group = {"name": name, "state": "available", kind: list(parents)}
    if key:
        digest = hashlib.sha256("\n".join([key, kind, *parents]).encode()).hexdigest()
        # As old as the newest of them, and as hard to guess as they are.
        group |= {"_id": max(parents)[:8] + digest[:16], "dedupe_key": f"parents {digest}"}
    else:
        # `last` is the child
        group["_id"] = new_before(child["_id"]) if is_id(child.get("_id")) else new_id()
    tags = child.get("tags")
    if isinstance(tags, Mapping):
        tags = {key: value for key, value in tags.items() if key != ARRAY_TAG}
    kept = {"tags": tags, "retain": child.get("retain")}
    return {**group, **{field: value for field, value in kept.items() if value}}


def parents_first(tasks: Sequence[Mapping[str, Any]]) -> list[int]:
    """The places of the tasks of a prepared list, each parent before its children; stable.

    Errors: `invalid` for a cycle.
    """
    places = _places(tasks)
    parents = [_parents_of(task, places) for task in tasks]
    children: list[list[int]] = [[] for _ in tasks]
    for place, its_parents in enumerate(parents):
        for parent in its_parents:
            children[parent].append(place)
    waiting = [len(its_parents) for its_parents in parents]
    ordered = [place for place, count in enumerate(waiting) if not count]
    for place in ordered:  # grows while it is read
        for child in children[place]:
            waiting[child] -= 1
            if not waiting[child]:
                ordered.append(child)
    if len(ordered) < len(tasks):
        stuck = next(place for place, count in enumerate(waiting) if count)
        told = tasks[stuck].get("name") or tasks[stuck].get("_id")
        raise BanyanError("invalid", f"the edges of the list make a cycle, at task {told}")
    return ordered


def in_requests(tasks: Sequence[Mapping[str, Any]], order: Sequence[int]) -> Iterator[list[int]]:
    """The places in this order, as many at a time as one request may hold.

    Errors: `invalid` for a task that no request can carry.
    """
    places: list[int] = []
    room, edges_left = BODY_BYTES, EDGES
    for place in order:
        size, edges = len(encoded(tasks[place])), _count_edges(tasks[place])
        if places and (len(places) == BULK_ITEMS or size > room or edges > edges_left):
            yield places
            places, room, edges_left = [], BODY_BYTES, EDGES
        places.append(place)
        room -= size
        edges_left -= edges
    if places:
        yield places


def _count_edges(task: Mapping[str, Any]) -> int:
    return sum(len(_ids(task, name)) for side in CHILD_SIDE.items() for name in side)


def _ids(task: Mapping[str, Any], name: str) -> Sequence[str]:
    """Of a field with edges; none where it is anything but a list of texts."""
    value = task.get(name)
    is_good = isinstance(value, list | tuple) and all(isinstance(one, str) for one in value)
    return value if is_good and value else ()


def _places(tasks: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    places: dict[str, int] = {}
    for place, task in enumerate(tasks):
        id = task.get("_id")
        if not isinstance(id, str):
            continue
        if id in places:
            raise BanyanError("invalid", f"two tasks of the list have the _id {id}")
        places[id] = place
    return places


def _move_edges(
    parent: dict[str, Any], tasks: Sequence[dict[str, Any]], places: Mapping[str, int]
) -> None:
    if not isinstance(parent.get("_id"), str):
        return
    for parents_name, childs_name in CHILD_SIDE.items():
        children = _ids(parent, parents_name)
        elsewhere = []
        for id in children:
            child = tasks[places[id]] if id in places else {}
            if id in places and (not child.get(childs_name) or _ids(child, childs_name)):
                child[childs_name] = [*_ids(child, childs_name), parent["_id"]]
            else:
                elsewhere.append(id)
        if children:
            parent[parents_name] = elsewhere


def _parents_of(task: Mapping[str, Any], places: Mapping[str, int]) -> set[int]:
    named = (parent for side in CHILD_SIDE.values() for parent in _ids(task, side))
    return {places[parent] for parent in named if parent in places}
