"""Retry: one more attempt for ended tasks; downstream, what they had cancelled waits again.

The tasks that are restored hang together by their edges, so all of it is one transaction.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from time import monotonic
from typing import Any, NamedTuple

from bson import ObjectId
from pymongo import UpdateOne
from pymongo.client_session import ClientSession

from banyan.domain import continuations, lifecycle
from banyan.domain.continuations import CHILD_LISTS, EDGES, PARENT_LISTS
from banyan.domain.lifecycle import Change, Refusal, Same
from banyan.domain.resources import changed_request
from banyan.domain.scheduling import DURATIONS
from banyan.domain.states import ENDED, Ending, State
from banyan.errors import BanyanError
from banyan.server import aftermath, represent, validation
from banyan.server.calls import OK, Answer, Call
from banyan.server.quotas import OPEN_TASKS, QUOTAS
from banyan.server.schemas.answers import RETRIED
from banyan.server.scoped import missing
from banyan.server.settle import settle_ended
from banyan.server.shapes import SHAPES, of_task
from banyan.server.store import edges, walks
from banyan.server.store.mongo import (
    BATCH,
    TRANSACTION_SECONDS_MAX,
    Document,
    new_etag,
    now,
)
from banyan.server.verbs import targets

# What is decided by; a task's payload and result are not.
_TASK = ["state", "owner", "unsettled", "command", "not_before", "max_attempt_count",
         "attempt_count", "revival_count", "shape", *CHILD_LISTS, *PARENT_LISTS]  # fmt: skip
# And what a shape is made of, and its place in the queue.
_SHAPED = ["requested_resources", "queue", "labels", "priority", "seq", *DURATIONS]
_PARENT = ["state", "owner", "ended_as"]
_ROUNDS = 8  # while what is below is being settled by others


def retry(call: Call) -> Answer:
    """POST /tasks/<id>/retry, POST /tasks/retry {"targets": [...], "downstream": bool, ...}.

    Besides, what of the retried tasks is to be another: see RETRIED.
    """
    ids, options = targets.read(call, frozenset({"downstream", *RETRIED}))
    downstream = options.pop("downstream", False)
    if not isinstance(downstream, bool):
        raise BanyanError("invalid", "see _issues", {"downstream": "true or false"})
    changed = _Changed(validation.demand(RETRIED, options), options.get("requested_resources"))
    targets.find(call, ids, ["_id"])
    changes: list[Change] = []

    def work(session: ClientSession) -> None:
        changes[:] = _Retrying(call, ids, downstream, changed, session).write()

    _write(call, ids, work)
    aftermath.follow(call.context, changes, {})
    if call.item_id:
        current = targets.find(call, ids)[call.item_id]
        return Answer({**represent.task(call, current), **OK})
    return Answer(OK)


def _write(call: Call, ids: list[ObjectId], work: Callable[[ClientSession], None]) -> None:
    """Settle what is retried, then retry it: an end that is half settled is not undone."""
    unsettled = ids
    until = monotonic() + TRANSACTION_SECONDS_MAX
    for _ in range(_ROUNDS):
        settle_ended(call.store, unsettled)
        try:
            call.store.transaction(work, until)
        except edges.GraphChangedError as error:
            unsettled = list(error.args)
        else:
            return
    raise BanyanError("conflict", "the tasks keep changing; try again")


class _Changed(NamedTuple):
    """What is to be another about the tasks that are retried.

    resources: of `requested_resources` what the client sent; the rest of them stays.
    """

    fields: Mapping[str, Any]
    resources: Mapping[str, Any] | None

    def of(self, task: Document) -> dict[str, Any]:
        """The fields to write."""
        fields = dict(self.fields)
        if self.resources is not None:
            stored = task["requested_resources"]
            fields["requested_resources"] = changed_request(stored, self.resources)
        return {**fields, "shape": of_task({**task, **fields})} if fields else {}


class _Retrying:
    """What one request restores, decided and written within the transaction."""

    def __init__(
        self,
        call: Call,
        ids: Collection[ObjectId],
        downstream: bool,
        changed: _Changed,
        session: ClientSession,
    ) -> None:
        self.store = call.store
        self.session = session
        self.is_operator = call.caller.has("operator")
        self.changed = changed
        self.retried = self._find(ids, [*_TASK, *_SHAPED])
        for absent in set(ids) - self.retried.keys():
            raise missing("tasks", absent)  # it was forgotten a moment ago
        self.restored = self._cancelled_below(self.retried) if downstream else {}

    def _find(self, ids: Iterable[ObjectId], fields: Sequence[str]) -> dict[ObjectId, Document]:
        query = {"_id": {"$in": list(ids)}}
        found = self.store["tasks"].find(query, fields, batch_size=BATCH, session=self.session)
        return {task["_id"]: task for task in walks.bounded(found)}

    def _cancelled_below(self, above: Mapping[ObjectId, Document]) -> dict[ObjectId, Document]:
        """All that was cancelled because of these, level by level."""
        walker = walks.Walker(self.store, _TASK, session=self.session)
        # What was cancelled because of a task that is gone is no concern of who has taken its id.
        owners = sorted({task["owner"] for task in above.values()})
        whose = {} if self.is_operator else {"owner": {"$in": owners}}
        seen: dict[ObjectId, Document] = {}
        level = set(above)
        while level:
            because = {"$in": list(level), "$type": "objectId"}  # the type makes the index serve
            query = {"cancelled_because": because, "state": State.CANCELLED, **whose}
            try:
                below = {task["_id"]: task for task in walker.level(query)}
            except walks.TooFarError:
                raise _too_many() from None
            level = below.keys() - seen.keys() - above.keys()
            seen.update({one: below[one] for one in level})
        return seen

    def _parents(self, everyone: Collection[Document]) -> dict[ObjectId, Document]:
        """Of all of them, whose edges are guarded from now on. Errors: `invalid`."""
        lists = (*PARENT_LISTS, *CHILD_LISTS)
        if sum(len(task[name]) for task in everyone for name in lists) > walks.NAMES_MAX:
            raise _too_many()
        parents = {one for task in everyone for one in continuations.parents_of(task)}
        children = {one for task in everyone for one in continuations.children_of(task)}
        found = self._find(parents, _PARENT)
        self._leave_out_strangers(everyone, found)
        owners = {task["owner"] for task in (*everyone, *found.values())}
        others = edges.owners_of(self.store, children, self.session)
        edges.guard(self.store, owners | others, self.session)
        return found

    def _leave_out_strangers(
        self, everyone: Collection[Document], parents: dict[ObjectId, Document]
    ) -> None:
        """Take from the parents who has the id of one that was forgotten.

        It is somebody else's, and names none of these tasks as its child.
        """
        together = {task["_id"] for task in everyone}
        foreign = {
            one
            for task in everyone
            for one in continuations.parents_of(task)
            if one in parents and one not in together and parents[one]["owner"] != task["owner"]
        }
        named = edges.children_among(self.store, foreign, together, self.session)
        for task in everyone if foreign else ():
            for name in PARENT_LISTS:
                task[name] = [
                    one
                    for one in task[name]
                    if one not in foreign
                    or parents[one]["owner"] == task["owner"]
                    or task["_id"] in named[one]
                ]
        for one in foreign - {p for task in everyone for p in continuations.parents_of(task)}:
            del parents[one]

    def write(self) -> list[Change]:
        """Decide and write all of it. Errors: `illegal_transition`, GraphChangedError."""
        everyone = {**self.restored, **self.retried}
        unsettled = [task["_id"] for task in everyone.values() if task.get("unsettled")]
        if unsettled:
            raise edges.GraphChangedError(*unsettled)
        parents = self._parents(everyone.values())
        coming = self._satisfiable(everyone, parents)
        changes = [
            change
            for task in everyone.values()
            if task["_id"] in coming and (change := self._change(task, coming, parents))
        ]
        _refuse_cycle(changes)
        changes = self._with_changes(changes)
        self._let_in([{**everyone[one.task_id], **one.set} for one in changes])
        writes = [_update(change) for change in changes]
        writes += self._list_again(
            {c.task_id: everyone[c.task_id] for c in changes}, coming, parents
        )
        if writes:
            result = self.store["tasks"].bulk_write(writes, session=self.session)
            if result.matched_count != len(writes):
                raise edges.GraphChangedError
        return changes

    def _with_changes(self, changes: list[Change]) -> list[Change]:
        """With what is to be another."""
        return [
            replace(one, set={**one.set, **self.changed.of(self.retried[one.task_id])})
            if one.task_id in self.retried
            else one
            for one in changes
        ]

    def _let_in(self, coming: Collection[Document]) -> None:
        """They are open again, and count as if they had just been submitted.

        Errors: `quota_exceeded`.
        """
        for owner, count in Counter(task["owner"] for task in coming).items():
            QUOTAS.admit(self.store, owner, count, OPEN_TASKS)
        SHAPES.admit_stored(self.store, coming)
        SHAPES.note(self.store, [task for task in coming if task["_id"] in self.retried])

    def _satisfiable(
        self, everyone: Mapping[ObjectId, Document], parents: Mapping[ObjectId, Document]
    ) -> set[ObjectId]:
        """The retried, and those restored that no other ended parent keeps from running."""
        coming = set(everyone)
        below: dict[ObjectId, list[tuple[str, ObjectId]]] = {}
        for task in everyone.values():
            for name in PARENT_LISTS:
                for parent in task[name]:
                    below.setdefault(parent, []).append((name, task["_id"]))
        may_stay = self.restored.keys() - self.retried.keys()
        broken = [one for one in may_stay if self._broken(everyone[one], coming, parents)]
        while broken:
            one = broken.pop()
            if one not in coming:
                continue
            coming.discard(one)
            # Each edge is looked at once: a task may have thousands of parents that stay as well.
            for name, child in below.get(one, ()):
                if child in may_stay and self._breaks(name, one, parents):
                    broken.append(child)
        return coming

    def _breaks(self, name: str, one: ObjectId, parents: Mapping[ObjectId, Document]) -> bool:
        """Whether a parent that stays as it is keeps from running what waits for it in this way."""
        parent = parents.get(one)
        if parent is None or State(parent["state"]) not in ENDED:
            return False
        return not continuations.satisfied({name: (one,)}, one, Ending(parent["ended_as"]))

    def _broken(
        self, task: Document, coming: set[ObjectId], parents: Mapping[ObjectId, Document]
    ) -> bool:
        named = {name: set(task[name]) for name in PARENT_LISTS}
        for parent_id in continuations.parents_of(task):
            parent = parents.get(parent_id)
            if parent is None or parent_id in coming or State(parent["state"]) not in ENDED:
                continue
            if not continuations.satisfied(named, parent_id, Ending(parent["ended_as"])):
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
        if isinstance(decision, Same) and self.changed.fields and task["_id"] in self.retried:
            decision = Refusal(
                "illegal_transition", "it waits to run again: change the task itself"
            )
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


def _too_many() -> BanyanError:
    message = (
        f"with what they had cancelled these are more than {walks.BOUNDS_TOLD}: "
        "retry fewer of them, or what was cancelled one part after the other"
    )
    return BanyanError("invalid", message)


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
