"""What is asked of many tasks, in as many requests as it takes. Called by the Client."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from banyan.client.failures import error_of
from banyan.client.graph import BULK_ITEMS
from banyan.client.transport import Transport

Document = dict[str, Any]
OnPiece = Callable[[int], Any]  # called with how many are done so far


def act(
    transport: Transport,
    action: str,
    ids: Iterable[str],
    more: Mapping[str, Any],
    on_piece: OnPiece | None = None,
    *,
    repeatable: bool = True,
    always_list: bool = False,
) -> None:
    """An action on tasks; `more`: of its body, besides the targets."""
    targets = list(ids)
    if len(targets) == 1 and not always_list:
        path = f"/tasks/{targets[0]}/{action}"
        transport.request("POST", path, json=dict(more), repeatable=repeatable)
        return
    for done, piece in _pieces(targets):
        body = {"targets": piece, **more}
        transport.request("POST", f"/tasks/{action}", json=body, repeatable=repeatable)
        if on_piece:
            on_piece(done)


def release(transport: Transport, ids: Iterable[str], on_piece: OnPiece | None = None) -> None:
    """See `Client.release`."""
    for done, piece in _pieces(list(ids)):
        for item in _patch(transport, piece, {"state": "available"}):
            _check(item)
        if on_piece:
            on_piece(done)


def change(
    transport: Transport,
    ids: Iterable[str],
    fields: Mapping[str, Any],
    on_piece: OnPiece | None = None,
) -> None:
    """See `Client.change`."""
    for done, piece in _pieces(list(ids)):
        refused = [one for one in _patch(transport, piece, fields) if one["_status"] != "OK"]
        waiting = [one["_id"] for one in refused if _is_only_waiting(one)]
        for item in refused:
            if item["_id"] not in waiting:
                raise error_of(422, item)
        # A worker may claim them at any moment: changed is what is still available then.
        for item in _patch(transport, waiting, {**fields, "state": "available"}) if waiting else ():
            _check(item)
        if on_piece:
            on_piece(done)


def _is_only_waiting(item: Mapping[str, Any]) -> bool:
    """Whether it was refused for its state alone, and might be changed if the request says it."""
    return item["_error"]["word"] == "invalid" and item.get("state") == "available"


def _patch(
    transport: Transport, ids: Sequence[str], fields: Mapping[str, Any]
) -> list[Mapping[str, Any]]:
    items = [{"_id": id, **fields} for id in ids]
    answered = transport.request(
        "PATCH", "/tasks", json=items, prefer="return=minimal", repeatable=True
    )
    told: list[Mapping[str, Any]] = answered.body["_items"]
    return told


def _check(item: Mapping[str, Any]) -> None:
    if item["_status"] != "OK":
        raise error_of(422, item)


def _pieces(ids: Sequence[str]) -> Iterator[tuple[int, Sequence[str]]]:
    """(how many are done after it, the ids of a request)."""
    for start in range(0, len(ids), BULK_ITEMS):
        piece = ids[start : start + BULK_ITEMS]
        yield start + len(piece), piece
