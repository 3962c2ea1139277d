"""GET /tasks/<id>/script: a shell script that runs the task again by hand."""

import re
import shlex
from typing import Any

from banyan.server import scoped
from banyan.server.calls import Answer, Call
from banyan.server.store.mongo import Document

_NAME = r"[A-Za-z_][A-Za-z0-9_]*"


def script(call: Call) -> Answer:
    """200 with text/plain."""
    task = scoped.item(call)
    lines = [
        "#!/bin/sh",
        f"# Task {task['_id']}: {_one_line(task.get('name') or 'without a name')}",
        "set -e",
    ]
    if place := task.get("cwd"):
        # `cd` would take it for an option.
        lines.append(f"cd {shlex.quote(f'./{place}' if place.startswith('-') else place)}")
    named = sorted(task["env"].items())
    lines += [_variable(name, value) for name, value in named if _is_shells(name)]
    lines.append(_command(task, [pair for pair in named if not _is_shells(pair[0])]))
    return Answer("\n".join(lines).encode() + b"\n", wait_for=[f"task:{call.item_id}"])


def _is_shells(name: str) -> bool:
    """Whether a shell can have a variable of this name."""
    return re.fullmatch(_NAME, name) is not None


def _variable(name: str, value: str | dict[str, str]) -> str:
    if isinstance(value, str):
        return f"export {name}={shlex.quote(value)}"
    return f': "${{{name}:?set it to the secret {value["secret"]}}}"; export {name}'


def _one_line(text: str) -> str:
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def _command(task: Document, others: list[tuple[str, Any]]) -> str:
    """others: variables that go along by `env`; of a secret its name stands there.

    A name may look like an option of `env`: those end before it.
    """
    command: Any = task.get("command")
    if not command:
        return "# A group: nothing to run."
    words = ["/bin/sh", "-c", command] if isinstance(command, str) else command
    pairs = [
        f"{name}={value if isinstance(value, str) else value['secret']}" for name, value in others
    ]
    return f"exec {shlex.join(['env', '--', *pairs, *words] if pairs else words)}"
