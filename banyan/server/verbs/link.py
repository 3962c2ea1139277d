"""Adding and removing edges of tasks that exist, both ends in one transaction.

Adding needs an inactive parent and an inactive child, and closes no cycle: all such
transactions of one owner run one after another, so two that add half a cycle each can't both
pass.
"""

from bisect import bisect_left
from collections.abc import Collection, Mapping, Sequence
from itertools import chain
from typing import Any

from bson import ObjectId
from pymongo import UpdateOne
from pymongo.client_session import ClientSession

from banyan.domain import continuations
from banyan.domain.continuations import CHILD_LISTS, EDGES
from banyan.domain.lifecycle import Change, Same
from banyan.domain.states import State
from banyan.errors import BanyanError
from banyan.server import aftermath, represent
from banyan.server.auth import owned
from banyan.server.calls import Call
from banyan.server.schemas.tasks import EDGES_MAX
from banyan.server.scoped import missing
from banyan.server.shapes import SHAPES
from banyan.server.store import edges, tasks, walks
from banyan.server.store.mongo import BATCH, Document, new_etag, now
from banyan.server.submitters import refuse_where_off
from banyan.server.verbs.edits import Edit, decide

_PARENT = ["state", "owner", "submitted_by", "_etag", *CHILD_LISTS]
_CHILD = ["state", "owner", "submitted_by"]
_PROBLEMS_TOLD_MAX = 10


def write_one(call: Call, edit: Edit, task: Document) -> Document:
    """One edit with edges; the task as it is afterwards."""
    try:
        write_together(call, [edit], {task["_id"]: task})
    except BanyanError as error:
        error.issues = error.issues.get(str(task["_id"]), {})
        raise
    current = tasks.find(call.store, [task["_id"]]).get(task["_id"])
    if current is None:
        raise missing("tasks", task["_id"])  # it was forgotten a moment ago
    return {**represent.changed(call, current), "_status": "OK"}


def write_together(call: Call, edits: Sequence[Edit], found: Mapping[ObjectId, Document]) -> None:
    """All edits in one transaction, or none. Errors: the first refusal, issues by the task's id."""
    refuse_where_off(call.caller)
    done: list[Change] = []

    def work(session: ClientSession) -> None:
        done[:] = _Linking(call, edits, session).write()

    try:
        call.store.transaction(work)
    except edges.GraphChangedError:
        states = tasks.states(call.store, found)
        message = "another request was faster; read the tasks and try again"
        state = next(iter(states.values()), None)
        raise BanyanError("conflict", message, extra={"state": state}) from None
    aftermath.follow(call.context, done, found)


class _Linking:
    """The edges of some edits, decided and written within the transaction.

    All that they name is read at once, all is written at once: a request may name a hundred
    thousand pairs of tasks.
    """

    def __init__(self, call: Call, edits: Sequence[Edit], session: ClientSession) -> None:
        self.call = call
        self.edits = edits
        self.session = session
        whole = any(edit.fields or edit.state for edit in edits)
        fields = tasks.WITHOUT_RESULT if whole else _PARENT
        self.parents = self._read([edit.task_id for edit in edits], fields)
        self.children: dict[ObjectId, Document] = {}

    def write(self) -> list[Change]:
        """Write both ends; returns the parents' own changes where there are any."""
        ends = [self._ends(edit) for edit in self.edits]
        named = {child for end in ends for child in end.named}
        self.children = self._read(named, _CHILD)
        changes = [change for end in ends if (change := self._decided(end))]
        added = [edge for end in ends for edge in end.added]
        self._refuse_cycle(added)
        reshaped = [one for one in changes if "shape" in one.set]
        as_new = [{**self.parents[one.task_id], **one.set} for one in reshaped]
        SHAPES.admit_stored(self.call.store, as_new)
        SHAPES.note(self.call.store, as_new)
        writes = [
            *map(_parent_write, changes),
            *_child_additions(added),
            *self._child_removals(ends),
        ]
        more = {child for _, _, child in added}
        edges.write_links(self.call.store, writes, more, self.session)
        return changes

    def _read(
        self, ids: Collection[ObjectId], fields: Sequence[str] | Mapping[str, Any]
    ) -> dict[ObjectId, Document]:
        query = {"$and": [{"_id": {"$in": list(ids)}}, owned(self.call.caller)]}
        found = self.call.store["tasks"].find(query, fields, batch_size=BATCH, session=self.session)
        return {task["_id"]: task for task in walks.bounded(found)}

    def _ends(self, edit: Edit) -> "_Ends":
        if edit.task_id not in self.parents:
            raise BanyanError("conflict", "the task is gone")
        return _Ends(edit, self.parents[edit.task_id])

    def _decided(self, end: "_Ends") -> Change | None:
        try:
            issues = {**self._addition_issues(end), **end.removal_issues()}
            if issues:
                state = {"state": end.parent["state"]}
                raise BanyanError("invalid", "see _issues", issues, state)
            return end.change()
        except BanyanError as error:
            raise _of_task(error, end.edit.task_id) from None

    def _addition_issues(self, end: "_Ends") -> dict[str, Any]:
        """The children that are named in additions must all be there and inactive."""
        issues: dict[str, Any] = {}
        for name, ids in end.edit.added.items():
            problems = [problem for child in ids if (problem := self._problem(end, child))]
            if problems:
                issues[f"add_{name}"] = problems[:_PROBLEMS_TOLD_MAX]
            elif ids and end.parent["state"] != State.INACTIVE:
                issues[f"add_{name}"] = [_not_inactive(end.parent)]
            elif ids and len(end.lists[name]) > EDGES_MAX:
                issues[f"add_{name}"] = [f"the list would be longer than {EDGES_MAX}"]
        return issues

    def _problem(self, end: "_Ends", child: ObjectId) -> str | None:
        if child == end.edit.task_id:
            return "a task can't continue itself"
        if child not in self.children or self._is_to_read(end.parent, self.children[child]):
            return f"there is no task {child} for you"
        state = self.children[child]["state"]
        return None if state == State.INACTIVE else f"the child {child} is {state}, not inactive"

    def _is_to_read(self, parent: Document, child: Document) -> bool:
        """Whether a running task lets one of its account's tasks read another of these.

        What waits for a task reads its output, and so does the worker of that. Of what it has
        submitted itself, see `scoped.to_read`.
        """
        task = self.call.caller.task
        return task is not None and task not in (
            parent.get("submitted_by"),
            child.get("submitted_by"),
        )

    def _refuse_cycle(self, added: Sequence[edges.Edge]) -> None:
        """Errors: `invalid`, of the first parent whose edges close a cycle with those before."""
        if not added:
            return
        parents = {parent for _, parent, _ in added}
        children = {child for _, _, child in added}
        owners = {task["owner"] for task in (*self.parents.values(), *self.children.values())}
        try:
            there = edges.waits_around(self.call.store, parents, children, owners, self.session)
        except BanyanError as error:
            raise _of_task(error, added[0][1]) from None
        pairs = [(parent, child) for _, parent, child in added]
        bad = continuations.on_a_cycle(chain(there, pairs))
        if not bad:
            return
        near = [pair for pair in there if bad.issuperset(pair)]
        counts = range(1, len(pairs) + 1)
        least = bisect_left(
            counts, True, key=lambda n: bool(continuations.on_a_cycle(chain(near, pairs[:n])))
        )
        name, parent, child = added[least]
        issues = {f"add_{name}": [f"the edge to {child} makes a cycle"]}
        raise _of_task(BanyanError("invalid", "see _issues", issues), parent)

    def _child_removals(self, ends: Sequence["_Ends"]) -> list[UpdateOne]:
        """Take parents off each child's lists; one stays open where another edge is left."""
        lists: dict[ObjectId, dict[str, list[ObjectId]]] = {}
        closed: dict[ObjectId, list[ObjectId]] = {}
        for end in ends:
            still = {child for after in end.lists.values() for child in after}
            for name, parent, child in end.removed:
                lists.setdefault(child, {}).setdefault(EDGES[name], []).append(parent)
                closed.setdefault(child, []).extend([] if child in still else [parent])
        return [
            UpdateOne(
                {"_id": child, "state": self.children[child]["state"]},
                edges.without_parents(closed[child], lists[child]),
            )
            for child in lists.keys() & self.children.keys()
        ]


class _Ends:
    """One edit, and what it makes of its parent's lists.

    lists: as they are afterwards; added, removed: the edges that come and go by that.
    """

    def __init__(self, edit: Edit, parent: Document) -> None:
        self.edit = edit
        self.parent = parent
        self.lists = {name: self._list_after(name) for name in CHILD_LISTS}
        self.added: list[edges.Edge] = []
        self.removed: list[edges.Edge] = []
        for name, after in self.lists.items():
            before, left = set(parent[name]), set(after)
            self.added += [(name, parent["_id"], c) for c in after if c not in before]
            self.removed += [(name, parent["_id"], c) for c in parent[name] if c not in left]

    @property
    def named(self) -> set[ObjectId]:
        """The children that are to be looked at."""
        asked = {child for ids in self.edit.added.values() for child in ids}
        return asked | {child for _, _, child in self.removed}

    def _list_after(self, name: str) -> list[ObjectId]:
        """Additions first, then removals."""
        every = dict.fromkeys([*self.parent[name], *self.edit.added.get(name, ())])
        gone = set(self.edit.removed.get(name, ()))
        return [child for child in every if child not in gone]

    def removal_issues(self) -> dict[str, Any]:
        """Edges are taken off while the parent is inactive; what is not there may stay so."""
        if self.parent["state"] == State.INACTIVE:
            return {}
        return {
            f"remove_{name}": [_not_inactive(self.parent)]
            for name, ids in self.edit.removed.items()
            if not set(ids).isdisjoint(self.parent[name])
        }

    def change(self) -> Change | None:
        """The parent's own change, its lists among it. Errors: its refusal."""
        lists = self.lists if self.added or self.removed else {}
        change = decide(self.edit, {**self.parent, **lists})
        if isinstance(change, Same):
            if not lists:
                return None
            change = Change(self.parent["_id"], {"state": self.parent["state"]}, {})
        expected = {name: v for name, v in change.expected.items() if name not in CHILD_LISTS}
        return Change(change.task_id, expected, {**lists, **change.set}, change.unset)


def _of_task(error: BanyanError, task_id: ObjectId) -> BanyanError:
    """The refusal of one edit among several."""
    error.issues = {str(task_id): error.issues} if error.issues else {}
    return error


def _not_inactive(parent: Document) -> str:
    return f"the parent {parent['_id']} is {parent['state']}, not inactive"


def _parent_write(change: Change) -> UpdateOne:
    fields = {**change.set, "_etag": new_etag(), "_updated": now()}
    update: dict[str, Any] = {"$set": fields}
    if change.unset:
        update["$unset"] = dict.fromkeys(change.unset, "")
    return UpdateOne({"_id": change.task_id, **change.expected}, update)


def _child_additions(added: Sequence[edges.Edge]) -> list[UpdateOne]:
    lists: dict[ObjectId, dict[str, list[ObjectId]]] = {}
    for name, parent, child in added:
        lists.setdefault(child, {}).setdefault(EDGES[name], []).append(parent)
    return [
        UpdateOne({"_id": child, "state": State.INACTIVE}, edges.with_parents(by_list))
        for child, by_list in lists.items()
    ]
