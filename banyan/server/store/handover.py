"""Attempts that the server ends itself: the task and the record of its attempt in one transaction.

A worker repeats the end that it reports until it is answered, so that record and task may be
written one after the other. What the server takes from a worker (released, stolen, lost with
its lease) nobody would say again if a server was killed between the two.
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from bson import ObjectId
from pymongo.client_session import ClientSession
from pymongo.errors import DocumentTooLarge, OperationFailure

from banyan.domain.lifecycle import Change
from banyan.server.store import attempts, sizes, tasks
from banyan.server.store.attempts import Addition
from banyan.server.store.mongo import BATCH, Document, Store

logger = logging.getLogger(__name__)


def apply(
    store: Store, changes: Sequence[Change], ends: Iterable[Addition] = ()
) -> list[Document | None]:
    """As `tasks.apply`, and what the changes say of their attempts is written with them.

    ends: records of further attempts, each written if the change of its task is.
    """
    if not changes:
        return []
    also = list(ends)
    try:
        return _together(store, changes, also)
    except (OperationFailure, DocumentTooLarge) as error:
        if not sizes.is_too_large(error):
            raise
    return [_alone(store, change, also) for change in changes]


def _alone(store: Store, change: Change, also: Sequence[Addition]) -> Document | None:
    """One of several of which one is too large, or all together are."""
    for smaller in (change, *tasks.without_payload(change)):
        try:
            return _together(store, [smaller], also)[0]
        except (OperationFailure, DocumentTooLarge) as error:
            if not sizes.is_too_large(error):
                raise
    logger.error("task %s is too large to be given back", change.task_id)
    return tasks.TOO_LARGE


def _together(
    store: Store, changes: Sequence[Change], also: Sequence[Addition]
) -> list[Document | None]:
    written: list[Document | None] = []

    def work(session: ClientSession) -> None:
        holding = _unchanged(store, changes, session)
        winners = [change for change in changes if change.task_id in holding]
        fields = tasks.write(store, winners, session)
        mine = [Addition(one.attempt_id, one.task_id, one.attempt) for one in winners]
        attempts.write(store, [*(one for one in also if one.task_id in holding), *mine], session)
        by_task = {one.task_id: of for one, of in zip(winners, fields, strict=True)}
        written[:] = [by_task.get(change.task_id) for change in changes]

    store.transaction(work)
    return written


def _unchanged(store: Store, changes: Sequence[Change], session: ClientSession) -> set[ObjectId]:
    """The tasks that still are as the changes expect; the snapshot keeps them so."""
    query = {"_id": {"$in": [change.task_id for change in changes]}}
    fields = {path.partition(".")[0]: 1 for change in changes for path in change.expected}
    found = store["tasks"].find(query, fields, session=session, batch_size=BATCH)
    tasks_now = {task["_id"]: task for task in found}
    return {
        change.task_id
        for change in changes
        if change.task_id in tasks_now and _holds(tasks_now[change.task_id], change.expected)
    }


def _holds(task: Document, expected: Mapping[str, Any]) -> bool:
    return all(_value(task, path) == value for path, value in expected.items())


def _value(task: Document, path: str) -> Any:
    value: Any = task
    for name in path.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return value
