"""The guarded write of many tasks at once that claims and reports make: half its usual price.

As `tasks.apply`, whose rules hold here too, but one statement for all changes of a kind
instead of one for each. What it does not learn that way is which tasks were lost; it reads
them again where not all were won. A task that was won, and changed again by somebody before
that, then counts as lost. So it is only for those who look at the task anew when they have
lost: a claim does not hand it out, a report decides again. See docs/adr/0006.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from bson import ObjectId
from pymongo.errors import BulkWriteError, DocumentTooLarge, OperationFailure

from banyan.domain.lifecycle import Change
from banyan.server.store import sizes, tasks, together
from banyan.server.store.mongo import BATCH, MAJORITY, Document, Store, now
from banyan.server.store.told import told_etag

Indexed = Mapping[int, Change]
# One statement for a thousand tasks is one document, which MongoDB limits to 16 MiB.
_LARGE = {"result"}


class Outcome(NamedTuple):
    """For each change the fields that were written, None where it lost a race, or `TOO_LARGE`.

    term: as `together.Written` has it.
    """

    written: list[Document | None]
    term: Any


def apply(store: Store, changes: Sequence[Change]) -> Outcome:
    """Write what still is as it is expected, and wait until a majority has it."""
    whole, others = _sorted(changes)
    written: dict[int, Document | None] = dict.fromkeys(range(len(changes)))
    term = None
    if whole:
        etag, time = told_etag(), now()
        stamp = {"_etag": etag, "_updated": time}
        own = {index: {**change.set, **stamp} for index, change in whole.items()}
        try:
            matched, term = together.update(store, "tasks", _alike(whole, own), MAJORITY)
            won = whole if matched == len(whole) else _won(store, whole, etag)
        except (OperationFailure, DocumentTooLarge) as error:
            _pass_over_size(error)
            # One was too large, and those behind it were left: each for itself.
            won = _won(store, whole, etag)
            left = whole.keys() - set(won)
            others = {index: changes[index] for index in sorted(others.keys() | left)}
        written.update({index: own[index] for index in won})
    written.update(zip(others, tasks.apply(store, list(others.values())), strict=True))
    return Outcome([written[index] for index in range(len(changes))], term)


def _pass_over_size(error: OperationFailure | DocumentTooLarge) -> None:
    """Errors: the error itself where something else is wrong, too."""
    codes = {one["code"] for one in _write_errors(error)}
    unconfirmed = isinstance(error, BulkWriteError) and error.details.get("writeConcernError")
    if not sizes.is_too_large(error) or not codes <= sizes.CODES or unconfirmed:
        raise error


def _write_errors(error: OperationFailure | DocumentTooLarge) -> Sequence[Document]:
    return error.details["writeErrors"] if isinstance(error, BulkWriteError) else ()


def _sorted(changes: Sequence[Change]) -> tuple[dict[int, Change], dict[int, Change]]:
    """What sets whole and small fields, once for each task; and the others. By their places."""
    whole: dict[int, Change] = {}
    others: dict[int, Change] = {}
    seen: set[ObjectId] = set()
    for index, change in enumerate(changes):
        if change.task_id in seen or any("." in name or name in _LARGE for name in change.set):
            others[index] = change
        else:
            whole[index] = change
        seen.add(change.task_id)
    return whole, others


def _alike(changes: Indexed, own: Mapping[int, Document]) -> list[together.Each]:
    """One group for all that expect and take away the same."""
    kinds: dict[str, dict[int, Change]] = {}
    for index, change in changes.items():
        expected = {name: v for name, v in change.expected.items() if name != _ATTEMPT}
        kinds.setdefault(repr((expected, change.unset)), {})[index] = change
    return [
        together.Each(
            _guard(list(alike.values())),
            {change.task_id: own[index] for index, change in alike.items()},
            unset=next(iter(alike.values())).unset,
        )
        for alike in kinds.values()
    ]


_ATTEMPT = "holder.attempt"


def _guard(alike: Sequence[Change]) -> dict[str, Any]:
    """What they expect. An attempt is one task's for ever, so any of theirs will do."""
    expected = dict(alike[0].expected)
    if _ATTEMPT in expected:
        expected[_ATTEMPT] = {"$in": [change.expected[_ATTEMPT] for change in alike]}
    return expected


def _won(store: Store, changes: Indexed, etag: str) -> Collection[int]:
    query = {"_id": {"$in": [change.task_id for change in changes.values()]}}
    found = store["tasks"].find(query, ["_etag", _ATTEMPT], batch_size=BATCH)
    now_there = {task["_id"]: task for task in found}
    won = []
    for index, change in changes.items():
        task = now_there.get(change.task_id, {})
        claimed = "holder" in change.set and _attempt_in(task) == change.attempt_id
        if claimed or task.get("_etag") == etag:
            won.append(index)
    return won


def _attempt_in(task: Document) -> Any:
    return task.get("holder", {}).get("attempt")
