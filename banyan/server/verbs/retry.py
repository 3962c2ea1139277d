"""Retry: one more attempt for ended tasks; downstream, what they had cancelled waits again.

The tasks that are restored hang together by their edges, so all of it is one transaction.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

from bson import ObjectId
from pymongo import UpdateOne
from pymongo.client_session import ClientSession

from banyan.domain import continuations, lifecycle
from banyan.domain.continuations import EDGES
from banyan.domain.lifecycle import Change, Refusal
from banyan.domain.states import ENDED, Ending, State
from banyan.errors import BanyanError
from banyan.server import aftermath, represent
from banyan.server.calls import OK, Answer, Call
from banyan.server.scoped import missing
from banyan.server.settle import settle_ended
from banyan.server.store import edges
from banyan.server.store.mongo import Document, new_etag, now
from banyan.server.verbs import targets

_ROUNDS = 8  # while what is below is being settled by others
_WITHOUT = {"result": 0, "env": 0, "tags": 0}  # nothing is decided from that


def retry(call: Call) -> Answer:
    """POST /tasks/<id>/retry, POST /tasks/retry {"targets": [...], "downstream": bool}."""
    ids, options = targets.read(call, frozenset({"downstream"}))
    downstream = options.get("downstream", False)
    if not isinstance(downstream, bool):
        raise BanyanError("invalid", "see _issues", {"downstream": "true or false"})
    targets.find(call, ids, ["_id"])
    changes: list[Change] = []

    def work(session: ClientSession) -> None:
        changes[:] = _Retrying(call, ids, downstream, session).write()

    _write(call, ids, work)
    aftermath.follow(call.context, changes, {})
    if call.item_id:
        current = targets.find(call, ids)[call.item_id]
        return Answer({**represent.task(call, current), **OK})
    return Answer(OK)


def _write(call: Call, ids: list[ObjectId], work: Callable[[ClientSession], None]) -> None:
    """Settle what is retried, then retry it: an end that is half settled is not undone."""
    unsettled = ids
    for _ in range(_ROUNDS):
        settle_ended(call.store, unsettled)
        try:
            edges.serialised(call.store, work)
        except edges.GraphChangedError as error:
            unsettled = list(error.args)
        else:
            return
    raise BanyanError("conflict", "the tasks keep changing; try again")


class _Retrying:
    """What one request restores, decided and written within the transaction."""

    def __init__(
        self, call: Call, ids: Collection[ObjectId], downstream: bool, session: ClientSession
    ) -> None:
        self.store = call.store
        self.session = session
        self.retried = self._find(ids)
        for absent in set(ids) - self.retried.keys():
            raise missing("tasks", absent)  # it was forgotten a moment ago
        self.restored = self._cancelled_below(self.retried) if downstream else {}

    def _find(self, ids: Iterable[ObjectId]) -> dict[ObjectId, Document]:
        query = {"_id": {"$in": list(ids)}}
        found = self.store["tasks"].find(query, _WITHOUT, session=self.session)
        return {task["_id"]: task for task in found}

    def _cancelled_below(self, above: Mapping[ObjectId, Document]) -> dict[ObjectId, Document]:
        """All that was cancelled because of these, level by level."""
        seen: dict[ObjectId, Document] = {}
        level = set(above)
        while level:
            because = {"$in": list(level), "$type": "objectId"}  # the type makes the index serve
            query = {"cancelled_because": because, "state": State.CANCELLED}
            found = self.store["tasks"].find(query, _WITHOUT, session=self.session)
            below = {task["_id"]: task for task in found}
            level = below.keys() - seen.keys() - above.keys()
            seen.update({one: below[one] for one in level})
        return seen

    def write(self) -> list[Change]:
        """Decide and write all of it. Errors: `illegal_transition`, GraphChangedError."""
        everyone = {**self.restored, **self.retried}
        unsettled = [task["_id"] for task in everyone.values() if task.get("unsettled")]
        if unsettled:
            raise edges.GraphChangedError(*unsettled)
        parents = self._find(
            {p for task in everyone.values() for p in continuations.parents_of(task)}
        )
        coming = self._satisfiable(everyone, parents)
        changes = [
            change
            for task in everyone.values()
            if task["_id"] in coming and (change := self._change(task, coming, parents))
        ]
        _refuse_cycle(changes)
        writes = [_update(change) for change in changes]
        writes += self._list_again(
            {c.task_id: everyone[c.task_id] for c in changes}, coming, parents
        )
        if writes:
            result = self.store["tasks"].bulk_write(writes, session=self.session)
            if result.matched_count != len(writes):
                raise edges.GraphChangedError
        return changes

    def _satisfiable(
        self, everyone: Mapping[ObjectId, Document], parents: Mapping[ObjectId, Document]
    ) -> set[ObjectId]:
        """The retried, and those restored that no other ended parent keeps from running."""
        coming = set(everyone)
        while True:
            kept = {
                one
                for one in coming
                if one in self.retried or not self._broken(everyone[one], coming, parents)
            }
            if kept == coming:
                return coming
            coming = kept

    def _broken(
        self, task: Document, coming: set[ObjectId], parents: Mapping[ObjectId, Document]
    ) -> bool:
        for parent_id in continuations.parents_of(task):
            parent = parents.get(parent_id)
            if parent is None or parent_id in coming or State(parent["state"]) not in ENDED:
                continue
            if not continuations.satisfied(task, parent_id, Ending(parent["ended_as"])):
                return True
        return False

    def _open_parents(
        self, task: Document, coming: set[ObjectId], parents: Mapping[ObjectId, Document]
    ) -> list[ObjectId]:
        return [
            one
            for one in continuations.parents_of(task)
            if one in coming or (one in parents and State(parents[one]["state"]) not in ENDED)
        ]

    def _change(
        self, task: Document, coming: set[ObjectId], parents: Mapping[ObjectId, Document]
    ) -> Change | None:
        open_parents = self._open_parents(task, coming, parents)
        if task["_id"] in self.retried:
            decision = lifecycle.retry(task, open_parents, now())
        else:
            decision = lifecycle.restore(task, open_parents)
        if isinstance(decision, Refusal):
            raise BanyanError(decision.word, decision.message, extra={"state": task["state"]})
        return decision if isinstance(decision, Change) else None

    def _list_again(
        self, changed: Mapping[ObjectId, Document], coming: set[ObjectId],
        parents: Mapping[ObjectId, Document],
    ) -> list[UpdateOne]:  # fmt: skip
        """Put the children back into the lists of the parents that they wait for."""
        added: dict[ObjectId, dict[str, list[ObjectId]]] = {}
        for task in changed.values():
            waits_for = self._open_parents(task, coming, parents)
            for child_list, parent_list in EDGES.items():
                for parent in set(task[parent_list]) & set(waits_for):
                    added.setdefault(parent, {}).setdefault(child_list, []).append(task["_id"])
        # Their versions change in any case: who ends such a parent meanwhile collides with this.
        stamp = {"_etag": new_etag(), "_updated": now()}
        return [
            UpdateOne(
                {"_id": parent},
                {
                    "$addToSet": {name: {"$each": children} for name, children in lists.items()},
                    "$set": stamp,
                },
            )
            for parent, lists in added.items()
        ]


def _refuse_cycle(changes: Iterable[Change]) -> None:
    """While they had ended, new edges may have led from them back to what they wait for."""
    waits = {(parent, one.task_id) for one in changes for parent in one.set["open_parents"]}
    if continuations.on_a_cycle(waits):
        message = "these tasks would wait for each other: retry fewer of them"
        raise BanyanError("illegal_transition", message)


def _update(change: Change) -> UpdateOne:
    update: dict[str, Any] = {"$set": {**change.set, "_etag": new_etag(), "_updated": now()}}
    if change.unset:
        update["$unset"] = dict.fromkeys(change.unset, "")
    return UpdateOne({"_id": change.task_id, **change.expected}, update)
