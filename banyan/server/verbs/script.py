"""GET /tasks/<id>/script: a shell script that runs the task again by hand."""

import shlex
from typing import Any

from banyan.server import scoped
from banyan.server.calls import Answer, Call
from banyan.server.store.mongo import Document


def script(call: Call) -> Answer:
    """200 with text/plain."""
    task = scoped.item(call)
    lines = [
        "#!/bin/sh",
        f"# Task {task['_id']}: {_one_line(task.get('name') or 'without a name')}",
        "set -e",
    ]
    if task.get("cwd"):
        lines.append(f"cd {shlex.quote(task['cwd'])}")
    lines += [_variable(name, value) for name, value in sorted(task["env"].items())]
    lines.append(_command(task))
    return Answer("\n".join(lines).encode() + b"\n", wait_for=[f"task:{call.item_id}"])


def _variable(name: str, value: str | dict[str, str]) -> str:
    if isinstance(value, str):
        return f"export {name}={shlex.quote(value)}"
    return f': "${{{name}:?set it to the secret {value["secret"]}}}"; export {name}'


def _one_line(text: str) -> str:
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def _command(task: Document) -> str:
    command: Any = task.get("command")
    if not command:
        return "# A group: nothing to run."
    if isinstance(command, str):
        return f"exec /bin/sh -c {shlex.quote(command)}"
    return f"exec {shlex.join(command)}"
