"""Words that are no UTF-8 text, such as the name of a file from a Latin-1 system.

Python has their bytes as surrogates ("caf\\udce9"). JSON is text, so a task with such words is sent
as a line for /bin/sh, in ASCII, that makes them again byte for byte. Called for every new task;
what the line cannot carry is refused before it is sent.
"""

import re
import shlex
from collections.abc import Iterator, Mapping
from typing import Any

_BYTES = re.compile("[\udc80-\udcff]+")  # of os.fsdecode
_NAME = re.compile("[A-Za-z_][A-Za-z0-9_]*")


def carried(task: dict[str, Any]) -> dict[str, Any]:
    """The task itself, or one whose command, directory and variables are ASCII."""
    if all(word.isascii() or not _BYTES.search(word) for word in _words(task)):
        return task
    made = {**task, "env": dict(task.get("env") or {})}
    steps = []
    for name, value in (task.get("env") or {}).items():
        if isinstance(value, str) and _BYTES.search(value) and _NAME.fullmatch(name):
            steps.append(f"{name}={quoted(value)}; export {name}")
            del made["env"][name]
    if _BYTES.search(task.get("cwd") or ""):
        steps.append(f"cd {quoted(task['cwd'])} || exit 126")
        del made["cwd"]
    command = task.get("command") or ""
    if isinstance(command, str):
        steps.append(f"eval {quoted(command)}")
    else:
        steps.append(" ".join(["exec", *map(quoted, command)]))
    name = task.get("name") or ""
    if name and any(name in word for word in _words({"command": command})):  # the program's
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


def _words(task: Mapping[str, Any]) -> Iterator[str]:
    command = task.get("command")
    yield from [command] if isinstance(command, str) else command or ()
    yield task.get("cwd") or ""
    yield from filter(lambda value: isinstance(value, str), (task.get("env") or {}).values())


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
