"""What `Executor.submit` is given -> the fields of a new task. Called by the Executor only."""

import os
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any

from banyan.client import module_paths
from banyan.client.calls import packed_call

Fields = dict[str, Any]

_RESOURCES = ("cores", "memory", "gpus", "disk", "custom")
_MERGED = ("env", "tags", "labels", "requested_resources")
_EDGES = ("after", "after_failure", "after_any")


def joined(defaults: Mapping[str, Any], own: Mapping[str, Any]) -> Fields:
    """Fields with short forms spelled out; own ones before defaults, mappings merged."""
    first, second = _spelled(defaults), _spelled(own)
    merged = {
        name: {**first.get(name, {}), **second.get(name, {})}
        for name in _MERGED
        if name in first or name in second
    }
    return {**first, **second, **merged}


def of_command(command: str | Sequence[str], args: Sequence[Any]) -> Fields:
    """A command; each `{}` in it stands for the next argument. Errors: TypeError for a misfit."""
    texts = [str(one) for one in args]
    words = [command] if isinstance(command, str) else [str(word) for word in command]
    if sum(word.count("{}") for word in words) != len(texts):
        raise TypeError(f"{len(texts)} arguments for the {{}} in {command!r}")
    if isinstance(command, str):
        texts = [shlex.quote(text) for text in texts]
    following = iter(texts)
    filled = [_filled(word, following) for word in words]
    name = os.path.basename((shlex.split(filled[0]) or [""])[0]) if filled else ""
    return {"command": filled[0] if isinstance(command, str) else filled, "name": name}


def of_call(
    call: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any], python: str
) -> Fields:
    """A Python callable; the task's Python looks for modules where this one does.

    Banyan itself it never takes from the directory where it starts, which others may write to.
    """
    env = packed_call(call, args, kwargs)
    places = module_paths.of_program()
    paths = {
        "PYTHONPATH": module_paths.of_environment(),
        module_paths.VARIABLE: places,
        module_paths.NAMES_VARIABLE: module_paths.names_in(places),
    }
    env |= {name: os.pathsep.join(places) for name, places in paths.items() if places}
    command = [python or sys.executable, "-P", "-m", "banyan.client.call"]
    return {"command": command, "name": getattr(call, "__name__", ""), "env": env}


def _filled(word: str, following: Any) -> str:
    first, *rest = word.split("{}")
    return first + "".join(next(following) + part for part in rest)


def _spelled(fields: Mapping[str, Any]) -> Fields:
    found = dict(fields)
    wanted = {name: found.pop(name) for name in _RESOURCES if name in found}
    if wanted:
        found["requested_resources"] = {**found.get("requested_resources", {}), **wanted}
    if "retries" in found:
        found["max_attempt_count"] = found.pop("retries") + 1
    if "timeout" in found:
        limit = found.pop("timeout")
        seconds = isinstance(limit, int | float)
        found["timeout_milliseconds"] = round(limit * 1000) if seconds else limit
    for name in _EDGES:
        if name in found:
            found[name] = [_id_of(one) for one in _as_list(found[name])]
    return found


def _as_list(value: Any) -> list[Any]:
    return [value] if isinstance(value, str | Future) else list(value)


def _id_of(parent: Any) -> str:
    return str(getattr(parent, "task_id", parent))
