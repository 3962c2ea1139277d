"""Many documents, each with fields of its own, in one statement: the write of the hot paths.

Called by the other files of this folder. A bulk write plans each of its updates by itself,
which costs MongoDB more than the update; here one plan by `_id` serves for all of them, and
each document finds its own fields in a list. The price: it tells how many documents were
written, not which. Never for what may be missing, and never for keys with dots.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from bson import ObjectId
from pymongo.errors import BulkWriteError, WTimeoutError
from pymongo.write_concern import WriteConcern

from banyan.server.store.mongo import Document, Store

# Each document looks for its place in the list; longer lists would be looked at for longer.
_AT_ONCE = 250


class Written(NamedTuple):
    """How many documents matched, and in which term of the primary they were written."""

    matched: int
    term: Any


@dataclass(frozen=True)
class Each:
    """Documents that are changed alike.

    guard: what holds for each of them, beside its `_id`, if it is to be written.
    own:   the fields of each document, by its `_id`.
    peaks: of those, the fields that only grow.
    unset: fields that are taken away.
    """

    guard: Mapping[str, Any]
    own: Mapping[ObjectId, Mapping[str, Any]]
    peaks: Sequence[str] = ()
    unset: Sequence[str] = ()


def update(store: Store, collection: str, groups: Sequence[Each], concern: WriteConcern) -> Written:
    """One command. It is not sent again by itself: who may not repeat it must not use it.

    Errors: BulkWriteError, WTimeoutError.
    """
    reply = store.database.command(
        {
            "update": collection,
            "updates": [part for group in groups for part in _parts(group)],
            "ordered": False,
            "writeConcern": concern.document,
        }
    )
    if reply.get("writeErrors"):
        raise BulkWriteError(reply)
    if "writeConcernError" in reply:
        raise WTimeoutError("the write is not acknowledged yet", details=reply)
    # A router does not say it: then no two writes are known to be of one term.
    return Written(reply["n"], reply.get("electionId", object()))


def _parts(group: Each) -> list[Document]:
    ids = list(group.own)
    pieces = [ids[start : start + _AT_ONCE] for start in range(0, len(ids), _AT_ONCE)]
    return [
        {
            "q": {"_id": {"$in": piece}, **group.guard},
            "u": _pipeline(group, piece),
            "multi": True,
            "hint": {"_id": 1},
        }
        for piece in pieces
    ]


def _pipeline(group: Each, ids: list[ObjectId]) -> list[Document] | Document:
    first = group.own[ids[0]]
    if not group.peaks and all(group.own[one] == first for one in ids):
        return {"$set": dict(first), **_unset(group)}
    listed = {"$literal": [group.own[one] for one in ids]}
    each = {"$arrayElemAt": [listed, _place_in(ids)]}
    grown = {
        name: {"$ifNull": [{"$max": [f"${name}", f"$$own.{name}"]}, "$$REMOVE"]}
        for name in group.peaks
    }
    merged = {"$mergeObjects": ["$$ROOT", "$$own", *([grown] if grown else [])]}
    stages: list[Document] = [{"$replaceWith": {"$let": {"vars": {"own": each}, "in": merged}}}]
    return [*stages, {"$unset": list(group.unset)}] if group.unset else stages


def _unset(group: Each) -> Document:
    return {"$unset": dict.fromkeys(group.unset, "")} if group.unset else {}


def _place_in(ids: list[ObjectId]) -> Document:
    return {"$indexOfArray": [{"$literal": ids}, "$_id"]}
