"""POST /tasks: one task or a list, a whole graph at once, all of it or nothing.

parse -> link -> store -> settle. Edges may name tasks of the same list and tasks that
exist; what is read of those is checked again by the transaction that writes.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import chain
from time import monotonic, time_ns
from typing import Any

from bson import ObjectId
from pymongo.errors import BulkWriteError, DuplicateKeyError, OperationFailure

from banyan.config import knobs
from banyan.domain import continuations, lifecycle
from banyan.domain.continuations import CHILD_LISTS, EDGES, PARENT_LISTS
from banyan.domain.resources import normalise_request
from banyan.domain.states import ENDED, Actor, Ending, State
from banyan.errors import BanyanError
from banyan.server import keeping, represent, submitters, validation, weights
from banyan.server.auth import owned
from banyan.server.calls import Answer, Call
from banyan.server.quotas import QUOTAS
from banyan.server.schemas.tasks import DEFAULTS, SCHEMA
from banyan.server.settle import settle_ended
from banyan.server.shapes import SHAPES, of_task
from banyan.server.store import dedupe, edges, tasks
from banyan.server.store.mongo import (
    DUPLICATE_KEY,
    TRANSACTION_SECONDS_MAX,
    Document,
    now,
    unforeseen_id,
)
from banyan.server.store.told import told_etag
from banyan.server.verbs.edits import refuse_too_many_edges

_LISTS = (*CHILD_LISTS, *PARENT_LISTS)
_ATTEMPTS = 8  # at writing while others change what the new tasks hang on
_CREATE_SCHEMA = {
    **SCHEMA,
    "_id": {"type": "objectid", "coerce": "object_id"},
    "state": {"type": "string", "allowed": [State.INACTIVE.value, State.AVAILABLE.value]},
}


def submit(call: Call) -> Answer:
    """201 with what was stored; 200 where all of it was there by its dedupe_key."""
    bodies = call.body if isinstance(call.body, list) else [call.body]
    if len(bodies) > knobs().BULK_ITEMS_MAX:
        raise BanyanError("too_large", f"at most {knobs().BULK_ITEMS_MAX:,} tasks in a request")
    if not bodies:
        raise BanyanError("invalid", "an empty list: send at least one task")
    refuse_too_many_edges(bodies, _LISTS)
    try:
        stored, created = _store_new(call, submitters.bounded(call, _parse(call, bodies)))
    except BanyanError as error:
        if error.word == "already_exists":
            _confirm_that_they_exist(call, bodies)
        raise
    if not created:
        call.store.confirm(stored)
    if created:
        ended = [task["_id"] for task in stored if task.get("unsettled")]
        if ended:
            represent.announce_available(call.context, settle_ended(call.store, ended))
            fresh = tasks.find(call.store, [task["_id"] for task in stored])
            stored = [fresh.get(task["_id"], task) for task in stored]
        represent.announce(call.context, stored)
    items = [{**_shown(call, task, created), "_status": "OK"} for task in stored]
    status = 201 if created else 200
    if isinstance(call.body, list):
        return Answer({"_status": "OK", "_items": items}, status)
    return Answer(items[0], status)


def _shown(call: Call, task: Document, created: Collection[ObjectId]) -> Document:
    """A running task reads what it has just sent; of what was there, no more than was changed."""
    show = represent.task if task["_id"] in created else represent.changed
    return show(call, task)


def _confirm_that_they_exist(call: Call, bodies: Sequence[Any]) -> None:
    """Whoever sent this before, and had no answer, takes "already_exists" for one."""
    ids = [ObjectId(one["_id"]) for one in bodies if "_id" in one]
    found = tasks.find(call.store, ids, fields=["_etag"])
    if not found:
        raise BanyanError("unavailable", "the database has just undone them; send them again")
    call.store.confirm(list(found.values()))


def _parse(call: Call, bodies: Sequence[Any]) -> list[Document]:
    """Normalised tasks as the client means them. Errors: `invalid`, naming item and field."""
    checked = [validation.check(_CREATE_SCHEMA, body) for body in bodies]
    if any(issues for _, issues in checked):
        raise _invalid(call, dict(enumerate(issues for _, issues in checked)))
    given = [task for task, _ in checked]
    seen: set[ObjectId] = set()
    issues: list[dict[str, Any]] = []
    for task in given:
        repeated = task.get("_id") in seen
        seen.add(task["_id"]) if "_id" in task else None
        issues.append({"_id": "stands in the list twice"} if repeated else {})
    if any(issues):
        raise _invalid(call, dict(enumerate(issues)))
    return given


def _invalid(call: Call, issues: Mapping[int, dict[str, Any]]) -> BanyanError:
    """Of one task its fields' issues; of a list, those of its first wrong items by their index."""
    told, more = validation.items_told(issues)
    told = told if isinstance(call.body, list) else dict(issues[0])
    return BanyanError("invalid", f"nothing was stored: see _issues{more}", told)


def _store_new(call: Call, given: list[Document]) -> tuple[list[Document], set[ObjectId]]:
    """Store what is not there by its dedupe_key; returns all of it, in order, and what is new."""
    until = monotonic() + TRANSACTION_SECONDS_MAX
    for tries in range(_ATTEMPTS):
        found = dedupe.find(call.store, call.caller.account, call.caller.task, given)
        fresh = _first_of_each_key(given, found)
        try:
            graph = _Graph(call, fresh) if fresh else None
            if graph and not tries:
                graph.admit()
            built = graph.store(until) if graph else []
        except edges.GraphChangedError:
            continue
        except (DuplicateKeyError, BulkWriteError, OperationFailure) as error:
            if _is_duplicate(error) and _dedupe_race(error):
                continue
            raise _translate(error) from error
        by_key = {**found, **{task["dedupe_key"]: task for task in built if task["dedupe_key"]}}
        rest = iter([task for task in built if not task["dedupe_key"]])
        keys = [task.get("dedupe_key") for task in given]
        return [by_key[key] if key else next(rest) for key in keys], {t["_id"] for t in built}
    raise BanyanError("conflict", "the graph around these tasks keeps changing; try again")


def _first_of_each_key(given: Sequence[Document], found: Collection[str]) -> dict[int, Document]:
    """What is to be stored, by its index; equal items with the same dedupe_key are one task too."""
    seen = set(found)
    kept = {}
    for index, task in enumerate(given):
        key = task.get("dedupe_key")
        if key not in seen:
            kept[index] = task
        if key:
            seen.add(key)
    return kept


def _is_duplicate(error: Exception) -> bool:
    codes = [getattr(error, "code", None)]
    codes += [
        one.get("code") for one in (getattr(error, "details", None) or {}).get("writeErrors", [])
    ]
    return DUPLICATE_KEY in codes


def _dedupe_race(error: Exception) -> bool:
    details = getattr(error, "details", None) or {}
    refused = details.get("writeErrors") or [details]
    return any("dedupe_key" in one.get("keyPattern", {}) for one in refused)


def _translate(error: Exception) -> Exception:
    if not _is_duplicate(error):
        return error
    return _already_exists()


def _already_exists() -> BanyanError:
    return BanyanError(
        "already_exists", "a task with one of these _id's exists; nothing was stored"
    )


class _Graph:
    """New tasks with their edges, ready to be stored."""

    def __init__(self, call: Call, indexed: Mapping[int, Document]) -> None:
        given = list(indexed.values())
        self.indexes = list(indexed)  # of the tasks in the request
        self.call = call
        self.store_of = call.store
        self.now = now()
        self.seq = time_ns() // 1000
        self.etag = told_etag()  # of all of them: a version is told apart within one task only
        self.tasks = [self._complete(task, index, call) for index, task in enumerate(given)]
        self.by_id = {task["_id"]: task for task in self.tasks}
        self.asked = [task.get("state", State.INACTIVE) for task in given]
        self.linked = [task for task in self.tasks if any(task[name] for name in _LISTS)]
        self.named: dict[tuple[ObjectId, str], set[ObjectId]] = {}  # what its lists name
        self.outside: dict[ObjectId, Document] = {}
        self.to_children: dict[edges.Edge, None] = {}
        self.to_parents: dict[edges.Edge, None] = {}
        if self.linked:
            self._link(call)
        self.drafts = [dict(task) for task in self.tasks]
        self._place()

    def _complete(self, given: Mapping[str, Any], index: int, call: Call) -> Document:
        task: Document = {
            "_id": unforeseen_id(),
            **DEFAULTS,
            **{name: [] for name in _LISTS},
            "requested_resources": DEFAULT_REQUEST,
            **given,
            "state": State.INACTIVE,
            "owner": call.caller.account,
            **submitters.origin(call.caller),
            "open_parents": [],
            "pending_dependency_count": 0,
            "seq": self.seq + index,
            "unsettled": False,
            "_created": self.now,
            "_updated": self.now,
            "_etag": self.etag,
        }
        if given.get("dedupe_key"):
            task["dedupe_hash"] = dedupe.digest(given)
        task["shape"] = of_task(task)
        return {**task, **keeping.mark(task), **weights.mark(task)}

    def _link(self, call: Call) -> None:
        """Write each edge on both ends, and sort out which ends are stored already."""
        named = {other for task in self.linked for name in _LISTS for other in task[name]}
        strangers = named - self.by_id.keys()
        if strangers:
            mine = owned(call.caller)
            self.outside = tasks.find(call.store, strangers, mine, edges.PARENT_FIELDS)
        self._refuse([self._issues_of(task) for task in self.tasks])
        for task in self.linked:
            for child_list, parent_list in EDGES.items():
                for child in list(task[child_list]):
                    self._edge(child_list, task["_id"], child)
                for parent in list(task[parent_list]):
                    self._edge(child_list, parent, task["_id"])
        self._refuse_cycles(())

    def _refuse(self, issues: Sequence[dict[str, Any]]) -> None:
        """A request that is repeated is told so, and not what it meets of its own making."""
        if not any(issues):
            return
        if tasks.find(self.store_of, list(self.by_id), fields=["_id"]):
            raise _already_exists()
        raise _invalid(self.call, dict(zip(self.indexes, issues, strict=True)))

    def _issues_of(self, task: Document) -> dict[str, Any]:
        issues: dict[str, Any] = {}
        for name in _LISTS:
            for other in task[name]:
                if other == task["_id"]:
                    issues[name] = "a task can't continue itself"
                elif other not in self.by_id and other not in self.outside:
                    issues[name] = f"there is no task {other} for you"
                elif name in CHILD_LISTS and other in self.outside:
                    state = self.outside[other]["state"]
                    if state != State.INACTIVE:
                        issues[name] = f"the child {other} is {state}, not inactive"
        return issues

    def _edge(self, child_list: str, parent: ObjectId, child: ObjectId) -> None:
        edge = (child_list, parent, child)
        if parent in self.by_id:
            self._name(parent, child_list, child)
        else:
            self.to_parents[edge] = None
        if child in self.by_id:
            self._name(child, EDGES[child_list], parent)
        else:
            self.to_children[edge] = None

    def _name(self, task_id: ObjectId, name: str, other: ObjectId) -> None:
        """Put a task into another's list, once; a list of a thousand is not searched for that."""
        listed = self.by_id[task_id][name]
        known = self.named.get((task_id, name))
        if known is None:
            known = self.named[task_id, name] = set(listed)
        if other not in known:
            known.add(other)
            listed.append(other)

    def _refuse_cycles(self, others: Iterable[tuple[Any, Any]]) -> None:
        """others: edges, parent first, of tasks that exist."""
        pairs = (
            (task["_id"], child)
            for task in self.tasks
            for name in CHILD_LISTS
            for child in task[name]
        )
        bad = continuations.on_a_cycle(chain(pairs, others))
        if not bad:
            return
        problem = {"continuations": "these edges make a cycle"}
        self._refuse([problem if task["_id"] in bad else {} for task in self.tasks])

    def _place(self) -> None:
        """The state that each task starts in."""
        endings = {
            other_id: Ending(other["ended_as"])
            for other_id, other in self.outside.items()
            if State(other["state"]) in ENDED
        }
        for task, draft, asked in zip(self.tasks, self.drafts, self.asked, strict=True):
            task.clear()  # of what it was when its parents were otherwise
            task.update(draft)
            parents = continuations.parents_of(task) if self.linked else []
            named = {name: set(task[name]) for name in PARENT_LISTS} if endings else {}
            wrong = [
                parent
                for parent in parents
                if parent in endings and not continuations.satisfied(named, parent, endings[parent])
            ]
            task["open_parents"] = [parent for parent in parents if parent not in endings]
            task["pending_dependency_count"] = len(task["open_parents"])
            if wrong:
                self._cancel(task, wrong[0])
            elif asked == State.AVAILABLE and not task["open_parents"]:
                task.update(lifecycle.activated(task, self.now))

    def _cancel(self, task: Document, parent: ObjectId) -> None:
        reason = f"parent {parent} ended the wrong way before"
        change = lifecycle.cancelled(task, Actor.SERVER, reason, parent)
        if isinstance(change, lifecycle.Change):
            task.update(change.set)

    def admit(self) -> None:
        """See that they are not too many. Errors: `quota_exceeded`, but not of a repetition."""
        owner, by_task = self.call.caller.account, self.call.caller.task is not None
        shapes = {one["shape"] for one in self.tasks}
        try:
            QUOTAS.admit(self.store_of, owner, len(self.tasks), by_task=by_task)
            SHAPES.admit(self.store_of, owner, shapes, by_task)
            submitters.count(self.call, len(self.tasks))
        except BanyanError:
            if tasks.find(self.store_of, list(self.by_id), fields=["_id"]):
                raise _already_exists() from None
            raise

    def store(self, until: float) -> list[Document]:
        """Errors: GraphChangedError where a task that the new ones hang on has changed.

        until: as `Store.transaction` has it.
        """
        SHAPES.note(self.store_of, self.tasks)
        if len(self.tasks) == 1 and not self.to_children and not self.to_parents:
            edges.insert(self.store_of, self.tasks, (), None)
        elif self.to_children and self.to_parents:
            self.store_of.transaction(self._write_checked, until)
        else:
            self.store_of.transaction(self._write, until)
        return self.tasks

    def _write(self, session: Any) -> None:
        if self.to_parents:
            linked = edges.link_parents(self.store_of, self.to_parents, session)
            if any(task["owner"] != self.outside[one]["owner"] for one, task in linked.items()):
                raise edges.GraphChangedError  # it was forgotten, and somebody else has its id
            self.outside |= linked
            self._place()
        edges.insert(self.store_of, self.tasks, self.to_children, session)

    def _write_checked(self, session: Any) -> None:
        """Between existing parents and existing children the new tasks might close a cycle."""
        parents = {parent for _, parent, _ in self.to_parents}
        children = {child for _, _, child in self.to_children}
        owners = {task["owner"] for task in self.outside.values()}
        others = edges.waits_around(self.store_of, parents, children, owners, session)
        self._refuse_cycles(others | {(parent, child) for _, parent, child in self.to_parents})
        self._write(session)


DEFAULT_REQUEST: Mapping[str, Any] = normalise_request(None)
