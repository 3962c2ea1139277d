"""What the server answers, looked at before anybody believes it.

Called by the threads that speak to the server. What makes no sense is trouble, to be asked for
again: it must never end a thread, nor come to the loop.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from banyan.domain.resources import Grant
from banyan.errors import BanyanError

# How a server may refuse a worker for good: with anything else it is asked again.
REFUSALS_OF_A_WORKER = frozenset({"unauthenticated", "forbidden", "invalid", "too_large"})
ENDS_OF_A_WORKER = frozenset({"unauthenticated", "forbidden", "not_found"})

_SECRET = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
_ID = re.compile(r"[0-9a-f]{24}")
_TEXT_OR_NONE = (str, type(None))
_NUMBER_OR_NONE = (int, float, type(None))
_OF_A_TASK: Mapping[str, Any] = {
    "command": (str, list),
    "env": (dict, type(None)),
    "cwd": _TEXT_OR_NONE,
    "name": _TEXT_OR_NONE,
    "timeout_milliseconds": _NUMBER_OR_NONE,
    "max_shutdown_time_milliseconds": _NUMBER_OR_NONE,
    "granted_resources": dict,
    "attempt_count": int,
}
_LEASE_SECONDS_MIN, _LEASE_SECONDS_MAX = 1, 86_400
_NUMBER_MAX = 2**53  # as JSON's numbers go: beyond it clocks and amounts cannot be reckoned
_WHOLE_AMOUNTS = ("memory_bytes", "gpu_count", "gpu_memory_bytes", "disk_bytes")


def results(answer: Any, ids: Sequence[str]) -> list[dict[str, Any]]:
    """What is said of each item of a report. Errors: `internal`."""
    items = _list(_member(answer, "_items"))
    if len(items) != len(ids):
        raise _nonsense(f"{len(items)} results for {len(ids)} items")
    for item, id in zip(items, ids, strict=True):
        if not isinstance(item, dict) or item.get("_id", id) != id:
            raise _nonsense("a result that belongs to no item")
        if "_error" in item:
            _expect(_member(item["_error"], "word"), str)
        elif item.get("_status") != "OK":
            raise _nonsense("a result that says neither yes nor no")
    return items


class Unusable(NamedTuple):
    """A task that was claimed and cannot be run: what is wrong with what is said of it."""

    task: str
    attempt: str
    token: str
    reason: str


def claimed(answer: Any) -> tuple[list[dict[str, Any]], list[Unusable]]:
    """The tasks that a claim has brought; one that makes no sense holds up none of the others.

    Errors: `internal` where it is not even told which tasks these are.
    """
    usable: list[dict[str, Any]] = []
    unusable: list[Unusable] = []
    for item in _list(_member(answer, "_items")):
        for name in ("_id", "attempt_id"):
            if not _is_id(_member(item, name)):
                raise _nonsense(f"{name} is no id")
        _expect(item.get("token"), str)
        try:
            _check_task(item)
            usable.append(item)
        except BanyanError as error:
            names = (item["_id"], item["attempt_id"], item["token"])
            unusable.append(Unusable(*names, error.message))
    return usable, unusable


def _check_task(item: dict[str, Any]) -> None:
    for name, kind in _OF_A_TASK.items():
        _expect(item.get(name), kind)
    _texts([item["command"]] if isinstance(item["command"], str) else item["command"])
    for value in (item.get("env") or {}).values():
        if not isinstance(value, str):
            _secret(_member(value, "secret"))
    for name in ("timeout_milliseconds", "max_shutdown_time_milliseconds"):
        _amount(item.get(name) or 0)
    _grant(item["granted_resources"])


def _secret(name: Any) -> None:
    _expect(name, str)
    if not _SECRET.fullmatch(name):
        raise _nonsense(f"{name!r:.30} is no name of a secret")


def _grant(granted: dict[str, Any]) -> None:
    for name in ("cores", "memory_bytes"):
        _member(granted, name)
    custom = granted.get("custom", {})
    _expect(custom, dict)
    whole = [granted.get(name, 0) for name in _WHOLE_AMOUNTS]
    for amount in whole:
        _expect(amount, int)
    for amount in [granted["cores"], *whole, *custom.values()]:
        _amount(amount)
    try:
        Grant.from_json(granted)
    except (TypeError, ValueError) as error:
        raise _nonsense(f"granted_resources: {error!r}") from None


def beat(answer: Any) -> dict[str, Any]:
    """The answer to a beat. Errors: `internal`."""
    _lease(answer)
    _expect(_member(answer, "mode"), str)
    for each in _list(_member(answer, "cancel")):
        _expect(_member(each, "attempt"), str)
        if not isinstance(each.get("force", False), bool):
            raise _nonsense("force is no flag")
    _texts(_list(_member(answer, "lost")))
    wanted = _member(answer, "wanted")
    _expect(_member(wanted, "number"), int)
    _amount(wanted["number"])  # it is told again with the next beat
    _texts(_list(_member(wanted, "attempts")))
    told: dict[str, Any] = answer
    return told


def registered(answer: Any) -> None:
    """The answer to a registration. Errors: `internal`."""
    _lease(answer)
    if not _is_id(_member(answer, "_id")):
        raise _nonsense("_id is no id")


def worker(answer: Any) -> None:
    """A worker, of which the mode is asked. Errors: `internal`."""
    _expect(_member(answer, "mode"), str)


def anything(answer: Any) -> None:
    """An answer that nobody reads."""


def _lease(answer: Any) -> None:
    seconds = _member(answer, "lease_seconds")
    _expect(seconds, (int, float))
    if not _LEASE_SECONDS_MIN <= seconds <= _LEASE_SECONDS_MAX:  # so for NaN too
        known = f"{_LEASE_SECONDS_MIN} to {_LEASE_SECONDS_MAX}"
        raise _nonsense(f"a lease of {seconds!r:.30} seconds, where {known} can be")


def _amount(value: Any) -> None:
    _expect(value, (int, float))
    if not 0 <= value <= _NUMBER_MAX:
        raise _nonsense(f"{value!r:.30} where an amount can stand")


def _member(value: Any, name: str) -> Any:
    if not isinstance(value, dict) or name not in value:
        raise _nonsense(f"{name} is missing")
    return value[name]


def _list(value: Any) -> list[Any]:
    _expect(value, list)
    found: list[Any] = value
    return found


def _texts(values: list[Any]) -> None:
    for value in values:
        _expect(value, str)


def _expect(value: Any, kind: Any) -> None:
    if not isinstance(value, kind) or isinstance(value, bool):
        raise _nonsense(f"a {type(value).__name__} where it cannot stand")


def _is_id(value: Any) -> bool:
    return isinstance(value, str) and _ID.fullmatch(value) is not None


def _nonsense(what: str) -> BanyanError:
    return BanyanError("internal", f"the server's answer makes no sense: {what}")
