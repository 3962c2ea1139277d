"""Words that are no UTF-8 text, such as the name of a file from a Latin-1 system.

Python has their bytes as surrogates ("caf\\udce9"). JSON is text, so a task with such words is sent
as a line for /bin/sh, in ASCII, that makes them again byte for byte. Called for every new task;
what the line cannot carry is refused before it is sent. What is neither text nor a path is left as
it is: the server says what is wrong with it.
"""

import os
import re
import shlex
from collections.abc import Iterator, Mapping
from typing import Any

_BYTES = re.compile("[\udc80-\udcff]+")  # of os.fsdecode
_NAME = re.compile("[A-Za-z_][A-Za-z0-9_]*")


def carried(task: dict[str, Any]) -> dict[str, Any]:
    """The task itself, or one whose command, directory and variables are text that can be sent.

    Paths become text, as they do for `subprocess`.
    """
    task = _of_text(task)
    if not any(map(_is_of_bytes, _words(task))):
        return task
    command = task.get("command") or ""
    if not all(isinstance(word, str) for word in _listed(command)):
        return task
    env = task.get("env") or {}
    made, steps = {**task, "env": env}, []
    if isinstance(env, Mapping):
        own = {name: value for name, value in env.items() if _can_be_exported(name, value)}
        steps += [f"{name}={quoted(value)}; export {name}" for name, value in own.items()]
        made["env"] = {name: value for name, value in env.items() if name not in own}
    if _is_of_bytes(task.get("cwd")):
        steps.append(f"cd {quoted(task['cwd'])} || exit 126")
        del made["cwd"]
    if isinstance(command, str):
        steps.append(f"eval {quoted(command)}")
    else:
        steps.append(" ".join(["exec", *map(quoted, command)]))
    name = task.get("name")
    if (
        name and isinstance(name, str) and any(name in word for word in _listed(command))
    ):  # the program's
        made["name"] = _BYTES.sub("\N{REPLACEMENT CHARACTER}", name)
    return {**made, "command": ["/bin/sh", "-c", "\n".join(steps)]}


def quoted(word: str) -> str:
    """The word for /bin/sh; bytes that are no text as what `printf` makes of numbers."""
    pieces = []
    at = 0
    for found in _BYTES.finditer(word):
        numbers = "".join(f"\\{ord(one) - 0xDC00:03o}" for one in found[0])
        pieces += [shlex.quote(word[at : found.start()]) if found.start() > at else ""]
        pieces.append(f"\"$(printf '{numbers}')\"")
        at = found.end()
    return "".join(pieces) + (shlex.quote(word[at:]) if at < len(word) or not word else "")


def first_that_is_no_text(value: Any) -> str:
    """Of the texts in a value the first that cannot be sent, as Python writes bytes; or empty."""
    for text in _texts(value):
        try:
            text.encode()
        except UnicodeEncodeError:
            return _BYTES.sub(
                lambda found: ascii(found[0].encode(errors="surrogateescape"))[2:-1], text
            )
    return ""


def _of_text(task: dict[str, Any]) -> dict[str, Any]:
    """The task itself, or one with text in the place of paths."""
    if not any(isinstance(word, os.PathLike) for word in _words(task)):
        return task
    made = {name: _text(value) if name == "cwd" else value for name, value in task.items()}
    if isinstance(task.get("command"), list | tuple):
        made["command"] = [_text(word) for word in task["command"]]
    if isinstance(task.get("env"), Mapping):
        made["env"] = {name: _text(value) for name, value in task["env"].items()}
    return made


def _text(value: Any) -> Any:
    return os.fsdecode(value) if isinstance(value, os.PathLike) else value


def _is_of_bytes(word: Any) -> bool:
    return isinstance(word, str) and not word.isascii() and bool(_BYTES.search(word))


def _can_be_exported(name: Any, value: Any) -> bool:
    """Whether it is a variable that the line has to make, and can."""
    return _is_of_bytes(value) and isinstance(name, str) and bool(_NAME.fullmatch(name))


def _words(task: Mapping[str, Any]) -> Iterator[Any]:
    yield from _listed(task.get("command"))
    yield task.get("cwd")
    if isinstance(task.get("env"), Mapping):
        yield from task["env"].values()


def _listed(command: Any) -> list[Any]:
    return list(command) if isinstance(command, list | tuple) else [command]


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for name, one in value.items():
            yield from _texts(name)
            yield from _texts(one)
    elif isinstance(value, list | tuple):
        for one in value:
            yield from _texts(one)
