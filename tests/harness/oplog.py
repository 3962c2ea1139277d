"""The tasks' whole life, write by write, read again from the database's own log.

Read through a change stream from a moment on, so that only what a majority has kept is seen,
transactions are taken apart, and it does not matter which member is asked. `replay` holds each
write against the rules: only legal moves, one live lease a task, one accepted end a life.
"""

import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from pymongo import MongoClient

from banyan.domain.states import ENDED, HELD, TRANSITIONS, State

Event = Mapping[str, Any]
Document = dict[str, Any]

_SENTINEL = "oplog_sentinels"
_TIMEOUT_MILLISECONDS = 20_000


class Oplog:
    """Made before what is to be seen; `events()` is all that was written to tasks since."""

    def __init__(self, uri: str) -> None:
        self._uri = uri
        with self._client() as client:
            self._start = client.admin.command("ping")["operationTime"]

    def events(self) -> Iterator[Event]:
        """The writes to tasks, in the order in which they took effect."""
        mark = uuid.uuid4().hex
        wanted = [{"$match": {"ns.coll": {"$in": ["tasks", _SENTINEL]}}}]
        with self._client() as client:
            database = client.get_default_database()
            database[_SENTINEL].insert_one({"_id": mark})
            with database.watch(wanted, start_at_operation_time=self._start) as stream:
                for event in stream:
                    if event["ns"]["coll"] == "tasks":
                        yield event
                    elif event["documentKey"]["_id"] == mark:
                        return

    def _client(self) -> MongoClient[Document]:
        return MongoClient(self._uri, serverSelectionTimeoutMS=_TIMEOUT_MILLISECONDS, tz_aware=True)


@dataclass
class Life:
    """One task as the writes have left it so far."""

    document: Document
    over: set[Any] = field(default_factory=set)  # attempts that hold it no more
    moves: list[str] = field(default_factory=list)

    @property
    def attempt(self) -> Any:
        """The attempt that holds it; None where none does."""
        held = self.document.get("state") in HELD
        return (self.document.get("holder") or {}).get("attempt") if held else None


@dataclass(frozen=True)
class Wrong:
    """A write that should not have been."""

    task: Any
    message: str


def replay(events: Iterable[Event]) -> tuple[list[Wrong], dict[Any, Life]]:
    """What is wrong with these writes, and the tasks as they are at last."""
    lives: dict[Any, Life] = {}
    wrong: list[Wrong] = []
    for event in events:
        task = event["documentKey"]["_id"]
        kind = event["operationType"]
        if kind == "delete":
            lives.pop(task, None)
            continue
        before = lives.get(task)
        document = _after(before.document if before else {}, event)
        if before is None:
            lives[task] = Life(document, moves=[str(document.get("state"))])
            continue
        after = Life(document, before.over, before.moves)
        wrong += [Wrong(task, message) for message in _judge(before, after)]
        lives[task] = after
    return wrong, lives


def _after(before: Document, event: Event) -> Document:
    if event["operationType"] in ("insert", "replace"):
        return dict(event["fullDocument"])
    after = dict(before)
    change = event["updateDescription"]
    for path in change["removedFields"]:
        _set(after, path.split("."), None)
    for path, value in change["updatedFields"].items():
        _set(after, path.split("."), value)
    return after


def _set(document: Document, path: list[str], value: Any) -> None:
    """Sets one field of nested objects; what lies within lists is not looked at."""
    for name in path[:-1]:
        inner = document.get(name)
        if not isinstance(inner, dict):
            return
        document[name] = document = dict(inner)
    document[path[-1]] = value


def _judge(before: Life, after: Life) -> Iterator[str]:
    """What is wrong with the step from the one to the other; notes the step in `after`."""
    old, new = State(before.document["state"]), State(after.document["state"])
    same_life = _revivals(before) == _revivals(after)
    if old != new:
        after.moves.append(str(new))
        # A group that may run is done at once: retried, it goes from one end to the other.
        at_once = not same_life and new == State.TERMINATED and not after.document.get("command")
        if (old, new) not in TRANSITIONS and not at_once:
            yield f"{old} became {new}"
        if same_life and old in ENDED:
            yield f"{old} became {new}, and nobody had it retried"
    elif old in ENDED and same_life and _end(before) != _end(after):
        yield f"its end changed from {_end(before)} to {_end(after)}"
    if before.attempt != after.attempt:
        yield from _judge_leases(before, after)


def _judge_leases(before: Life, after: Life) -> Iterator[str]:
    if before.attempt is not None:
        after.over.add(before.attempt)
        if after.attempt is not None and before.document["holder"]["started"]:
            yield f"attempt {after.attempt} took it from {before.attempt}, which had started"
    if after.attempt is None:
        return
    if after.attempt in after.over:
        yield f"attempt {after.attempt} had ended, and holds it again"
    step = after.document["attempt_count"] - before.document["attempt_count"]
    if step != 1:
        yield f"the number of attempts grew by {step} with one claim"


def _revivals(life: Life) -> int:
    return life.document.get("revival_count") or 0


def _end(life: Life) -> tuple[Any, Any, Any]:
    return tuple(life.document.get(name) for name in ("outcome", "ended_as", "attempt_id"))  # type: ignore[return-value]
