"""Adding and removing edges of tasks that exist, both ends in one transaction.

Adding needs an inactive parent and an inactive child, and closes no cycle: all such
transactions run one after another, so two that add half a cycle each can't both pass.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from bson import ObjectId
from pymongo import UpdateOne
from pymongo.client_session import ClientSession

from banyan.domain.continuations import CHILD_LISTS, EDGES, PARENT_LISTS
from banyan.domain.lifecycle import Change, Same
from banyan.domain.states import State
from banyan.errors import BanyanError
from banyan.server import aftermath, represent
from banyan.server.auth import scope
from banyan.server.calls import Call
from banyan.server.schemas.tasks import EDGES_MAX
from banyan.server.store import edges, tasks
from banyan.server.store.mongo import Document, new_etag, now
from banyan.server.submitters import refuse_where_off
from banyan.server.verbs.edits import Edit, decide


def write_one(call: Call, edit: Edit, task: Document) -> Document:
    """One edit with edges; the task as it is afterwards."""
    try:
        write_together(call, [edit], {task["_id"]: task})
    except BanyanError as error:
        error.issues = error.issues.get(str(task["_id"]), {})
        raise
    current = tasks.find(call.store, [task["_id"]])[task["_id"]]
    return {**represent.task(call, current), "_status": "OK"}


def write_together(call: Call, edits: Sequence[Edit], found: Mapping[ObjectId, Document]) -> None:
    """All edits in one transaction, or none. Errors: the first refusal, issues by the task's id."""
    refuse_where_off(call.caller)
    done: list[Change] = []

    def work(session: ClientSession) -> None:
        done.clear()
        for edit in edits:
            try:
                done.extend(_Linking(call, edit, session).write())
            except BanyanError as error:
                error.issues = {str(edit.task_id): error.issues} if error.issues else {}
                raise

    try:
        edges.serialised(call.store, work)
    except edges.GraphChangedError:
        states = tasks.states(call.store, found)
        message = "another request was faster; read the tasks and try again"
        state = next(iter(states.values()), None)
        raise BanyanError("conflict", message, extra={"state": state}) from None
    aftermath.follow(call.context, done, found)


class _Linking:
    """One edit's edges, decided and written within the transaction."""

    def __init__(self, call: Call, edit: Edit, session: ClientSession) -> None:
        self.call = call
        self.edit = edit
        self.session = session
        self.parent = self._read([edit.task_id]).get(edit.task_id)

    def write(self) -> list[Change]:
        """Write both ends; returns the parent's own change where there is one."""
        if self.parent is None:
            raise BanyanError("conflict", "the task is gone")
        lists = {name: self._list_after(name) for name in CHILD_LISTS}
        added, removed = self._difference(lists)
        children = self._children(added)
        self._refuse_cycle(added)
        change = self._parent_change(lists if added or removed else {})
        child_writes = [
            *self._child_additions(added, children),
            *self._child_removals(removed, lists),
        ]
        parent_write = self._parent_write(change) if change else None
        more = {child for _, _, child in added}
        edges.write_links(self.call.store, parent_write, child_writes, more, self.session)
        return [change] if change else []

    def _read(self, ids: Sequence[ObjectId]) -> dict[ObjectId, Document]:
        query = {"$and": [{"_id": {"$in": list(ids)}}, scope(self.call.caller, "tasks")]}
        found = self.call.store["tasks"].find(query, session=self.session)
        return {task["_id"]: task for task in found}

    def _list_after(self, name: str) -> list[ObjectId]:
        """Additions first, then removals."""
        assert self.parent is not None  # noqa: S101 - looked at in `write`
        held = self.parent[name]
        held = [*held, *(c for c in self.edit.added.get(name, ()) if c not in held)]
        gone = set(self.edit.removed.get(name, ()))
        return [child for child in held if child not in gone]

    def _difference(
        self, lists: Mapping[str, list[ObjectId]]
    ) -> tuple[list[edges.Edge], list[edges.Edge]]:
        assert self.parent is not None  # noqa: S101 - looked at in `write`
        added, removed = [], []
        for name, after in lists.items():
            before = self.parent[name]
            added += [(name, self.parent["_id"], c) for c in after if c not in set(before)]
            removed += [(name, self.parent["_id"], c) for c in before if c not in set(after)]
        return added, removed

    def _children(self, added: Sequence[edges.Edge]) -> dict[ObjectId, Document]:
        """The children that are named in additions; all must be there and inactive."""
        assert self.parent is not None  # noqa: S101 - looked at in `write`
        asked = {f"add_{name}": ids for name, ids in self.edit.added.items()}
        children = self._read(list({child for ids in asked.values() for child in ids}))
        issues: dict[str, Any] = {}
        for name, ids in asked.items():
            problems = [problem for child in ids if (problem := self._problem(child, children))]
            if problems:
                issues[name] = problems
            elif ids and self.parent["state"] != State.INACTIVE:
                issues[name] = [
                    f"the parent {self.parent['_id']} is {self.parent['state']}, not inactive"
                ]
            elif ids and len(self._list_after(name.removeprefix("add_"))) > EDGES_MAX:
                issues[name] = [f"the list would be longer than {EDGES_MAX}"]
        issues.update(self._removal_issues())
        if issues:
            raise BanyanError("invalid", "see _issues", issues, {"state": self.parent["state"]})
        return children

    def _problem(self, child: ObjectId, children: Mapping[ObjectId, Document]) -> str | None:
        if child == self.edit.task_id:
            return "a task can't continue itself"
        if child not in children:
            return f"there is no task {child} for you"
        state = children[child]["state"]
        return None if state == State.INACTIVE else f"the child {child} is {state}, not inactive"

    def _removal_issues(self) -> dict[str, Any]:
        """Edges are taken off while the parent is inactive; what is not there may stay so."""
        assert self.parent is not None  # noqa: S101 - looked at in `write`
        if self.parent["state"] == State.INACTIVE:
            return {}
        return {
            f"remove_{name}": [
                f"the parent {self.parent['_id']} is {self.parent['state']}, not inactive"
            ]
            for name, ids in self.edit.removed.items()
            if set(ids) & set(self.parent[name])
        }

    def _refuse_cycle(self, added: Sequence[edges.Edge]) -> None:
        if not added:
            return
        below = edges.descendants(self.call.store, [child for _, _, child in added], self.session)
        if self.edit.task_id in below:
            issues = {f"add_{name}": ["this edge makes a cycle"] for name, _, _ in added}
            raise BanyanError("invalid", "see _issues", issues)

    def _parent_change(self, lists: Mapping[str, list[ObjectId]]) -> Change | None:
        assert self.parent is not None  # noqa: S101 - looked at in `write`
        change = decide(self.edit, {**self.parent, **lists})
        if isinstance(change, Same):
            if not lists:
                return None
            change = Change(self.parent["_id"], {"state": self.parent["state"]}, {})
        expected = {name: v for name, v in change.expected.items() if name not in CHILD_LISTS}
        return Change(change.task_id, expected, {**lists, **change.set}, change.unset)

    def _parent_write(self, change: Change) -> UpdateOne:
        fields = {**change.set, "_etag": new_etag(), "_updated": now()}
        update: dict[str, Any] = {"$set": fields}
        if change.unset:
            update["$unset"] = dict.fromkeys(change.unset, "")
        return UpdateOne({"_id": change.task_id, **change.expected}, update)

    def _child_additions(
        self, added: Sequence[edges.Edge], children: Mapping[ObjectId, Document]
    ) -> list[UpdateOne]:
        lists: dict[ObjectId, dict[str, list[ObjectId]]] = {}
        for name, parent, child in added:
            lists.setdefault(child, {}).setdefault(EDGES[name], []).append(parent)
        return [
            UpdateOne({"_id": child, "state": State.INACTIVE}, edges.with_parents(by_list))
            for child, by_list in lists.items()
        ]

    def _child_removals(
        self, removed: Sequence[edges.Edge], lists: Mapping[str, list[ObjectId]]
    ) -> list[UpdateOne]:
        """Take the parent off each child's lists; it stays open where another edge is left."""
        children = self._read([child for _, _, child in removed])
        still = {child for after in lists.values() for child in after}
        writes = []
        for child_id in {child for _, _, child in removed} & children.keys():
            child = children[child_id]
            gone = {EDGES[name] for name, _, other in removed if other == child_id}
            kept = {
                name: [p for p in child[name] if p != self.edit.task_id]
                for name in PARENT_LISTS
                if name in gone
            }
            parents = [] if child_id in still else [self.edit.task_id]
            writes.append(
                UpdateOne(
                    {"_id": child_id, "state": child["state"]}, edges.without_parents(parents, kept)
                )
            )
        return writes
