"""The file of tasks: JSON lines in, tasks as the domain knows them out.

Called once, before anything is started. It must never let a file through in which a name is
missing or a task would wait for ever.
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from banyan.domain import variables
from banyan.domain.continuations import EDGES, PARENT_LISTS, on_a_cycle, parents_of
from banyan.domain.resources import ResourceError, normalise_request
from banyan.domain.states import State
from banyan.domain.units import parse_duration_milliseconds
from banyan.errors import BanyanError

Task = dict[str, Any]

_NAME_LENGTH_MAX = 256
_HALF = re.compile("[\ud800-\udfff]")
_NEAR = 20  # characters that are shown before it
_KEYED = ("command", "requested_resources", "env", "cwd")  # what makes it another task


def read_tasks(path: Path) -> list[Task]:
    """The tasks of a file, in its order. Errors: BanyanError `usage`, which names the line."""
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        raise BanyanError("usage", f"{path} cannot be read: {error}") from None
    tasks: dict[str, Task] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            given = json.loads(line)
            if "\\u" in line:
                _demand_whole(given)
            task = _task(given, number)
            if task["name"] in tasks:
                raise ValueError(f"the name {task['name']!r} is used twice")
        except ResourceError as error:
            raise BanyanError("usage", f"{path}:{number}: {error.issues}") from None
        except ValueError as error:
            raise BanyanError("usage", f"{path}:{number}: {error}") from None
        tasks[task["name"]] = task
    _link(path, tasks)
    return list(tasks.values())


def _demand_whole(given: Any) -> None:
    """All that a line holds is text that can be written. Errors: ValueError."""
    said = json.dumps(given, ensure_ascii=False)
    if half := _HALF.search(said):
        near = said[max(half.start() - _NEAR, 0) : half.end()]
        raise ValueError(f"{half[0]!a} is half a character, which no text can have, in {near!a}")


def _task(given: Any, number: int) -> Task:
    if not isinstance(given, dict):
        raise ValueError("a JSON object on each line, please")
    said = {name: value for name, value in given.items() if value is not None}
    unknown = said.keys() - _READERS.keys()
    if unknown:
        raise ValueError(f"{min(unknown)!r} is no field of a task here ({', '.join(_READERS)})")
    read = {name: reader(said[name]) for name, reader in _READERS.items() if name in said}
    name = read.get("name", str(number))
    task: Task = {
        "_id": name, "name": name, "seq": number, "owner": "", "state": State.INACTIVE,
        "command": read.get("command"), "env": read.get("env", {}), "cwd": read.get("cwd"),
        "requested_resources": normalise_request(said.get("requested_resources")),
        "priority": read.get("priority", 0), "queue": "", "labels": {},
        "timeout_milliseconds": read.get("timeout"),
        "max_shutdown_time_milliseconds": read.get("max_shutdown_time"),
        "max_attempt_count": read.get("retries", 0) + 1, "max_lost_count": 3,
        "retry_delay_milliseconds": read.get("retry_delay", 0), "retry_backoff": 1,
        **{name: read.get(name, []) for name in PARENT_LISTS}, **{name: [] for name in EDGES},
    }  # fmt: skip
    text = json.dumps([name, *(task[field] for field in _KEYED)], sort_keys=True)
    return {**task, "key": hashlib.sha256(text.encode()).hexdigest()[:16]}


def _link(path: Path, tasks: Mapping[str, Task]) -> None:
    """Writes each edge at its other end too."""
    for task in tasks.values():
        missing = [parent for parent in parents_of(task) if parent not in tasks]
        if missing:
            message = (
                f"{path}: task {task['name']!r} comes after {missing[0]!r}, which is not there"
            )
            raise BanyanError("usage", message)
        for children, parents in EDGES.items():
            for parent in task[parents]:
                tasks[parent][children].append(task["_id"])
        task["open_parents"] = parents_of(task)
    cycle = on_a_cycle(_edges(tasks))
    if cycle:
        raise BanyanError("usage", f"{path}: these wait for each other: {', '.join(sorted(cycle))}")


def _edges(tasks: Mapping[str, Task]) -> Iterator[tuple[str, str]]:
    for task in tasks.values():
        for parent in task["open_parents"]:
            yield parent, task["_id"]


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value or len(value) > _NAME_LENGTH_MAX:
        raise ValueError(f"a name has 1 to {_NAME_LENGTH_MAX} characters, not {value!r}")
    return value


def _command(value: Any) -> str | list[str]:
    words = [value] if isinstance(value, str) else value
    good = isinstance(words, list) and words and all(isinstance(word, str) for word in words)
    if not good or "\0" in "".join(words):
        raise ValueError(f"command is text for the shell, or a list of texts, not {value!r}")
    return value if isinstance(value, str) else list(words)


def _env(value: Any) -> dict[str, str]:
    if not isinstance(value, dict):
        raise ValueError(f"env is an object of texts, not {value!r}")
    for name, text in value.items():
        if not re.fullmatch(variables.NAME, name) or not isinstance(text, str) or "\0" in text:
            raise ValueError(f"env: {name!r} is no variable with a text")
    if wrong := variables.wrong_with_sizes(value):
        raise ValueError(f"env: {wrong}")
    return dict(value)


def _path(value: Any) -> str:
    if not isinstance(value, str) or not value or "\0" in value:
        raise ValueError(f"cwd is a path, not {value!r}")
    return value


def _integer(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"{value!r} is no whole number")
    return value


def _count(value: Any) -> int:
    if _integer(value) < 0:
        raise ValueError(f"{value!r} is less than none")
    return int(value)


def _names(value: Any) -> list[str]:
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"after: names of tasks, not {value!r}")
    return list(dict.fromkeys(names))


_READERS: Mapping[str, Callable[[Any], Any]] = {
    "name": _text,
    "command": _command,
    "requested_resources": lambda value: value,  # judged by the domain
    "env": _env,
    "cwd": _path,
    "priority": _integer,
    "retries": _count,
    "retry_delay": parse_duration_milliseconds,
    "timeout": parse_duration_milliseconds,
    "max_shutdown_time": parse_duration_milliseconds,
    **dict.fromkeys(PARENT_LISTS, _names),
}
