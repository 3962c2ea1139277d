"""How a task ended, as an exit code and in words.

Called by `run`, `wait`, `explain`, `ls` and `show`.
"""

import re
import signal
from collections.abc import Iterable
from typing import Any

from banyan.cli.output import say
from banyan.client.api import Client
from banyan.errors import EXIT_OK, EXIT_TASK_FAILED
from banyan.printable import harmless

_NOT_FOUND = "failure (127)"
_UNTOLD = ("", "failure", _NOT_FOUND)  # reasons that say no more than the code


def standing(task: dict[str, Any]) -> str:
    """One word for a list: how it ended, else its state."""
    return str(task.get("outcome") or task.get("state") or "")


def exit_code_of(client: Client, task: dict[str, Any]) -> int:
    """The task's own code; 128 + n for signal n; 1 where it ended in another way, which is told."""
    if task.get("outcome") == "success":
        if task.get("reason"):  # its output was lost, say
            say(f"banyan: task {task['_id']}: {harmless(task['reason'])}")
        return EXIT_OK
    status = exit_status(client, task["_id"])
    code = _code(status)
    told = in_words(task, status)
    if code is None or told != status:  # what the code says need not be said
        say(f"banyan: task {task['_id']}: {told}")
    say_hints([(task, status)])
    return EXIT_TASK_FAILED if code is None else code


def in_words(task: dict[str, Any], status: str) -> str:
    """How it ended, and why where that says more. status: of its last attempt, if known."""
    short = status or standing(task)
    reason = str(task.get("reason") or short)
    if reason.startswith(short) or reason == standing(task):
        return harmless(max(short, reason, key=len))
    return f"{short}: {harmless(reason)}"


def hint_for(task: dict[str, Any], status: str) -> str:
    """What would help where a program was not found; empty for all else. status: as above."""
    reason = str(task.get("reason") or "")
    if status != _NOT_FOUND or not (reason.startswith("no program") or reason in _UNTOLD):
        return ""
    command, env = task.get("command"), task.get("env") or {}
    if isinstance(command, list) and len(command) == 1 and len(command[0].split()) > 1:
        return (
            f"banyan: {command[0]!r} is taken for the name of a program; is it a line for --shell?"
        )
    if "PATH" in env:
        return ""
    return (
        "banyan: it had the PATH of its worker; --env PATH gives it yours, --env ALL all variables"
    )


def say_hints(ended: Iterable[tuple[dict[str, Any], str]]) -> None:
    """As `hint_for`, of each (task, status); the same is said once."""
    for hint in dict.fromkeys(hint_for(task, status) for task, status in ended):
        if hint:
            say(hint)


def exit_status(client: Client, id: str) -> str:
    """`exit_status` of the task's last attempt; empty where there was none."""
    body = client.transport.request("GET", f"/tasks/{id}/exit_status").body
    return str(body.get("exit_status") or "")


def _code(status: str) -> int | None:
    found = re.fullmatch(r"failure \((?:(\d+)|(SIG[A-Z0-9+]+))\)", status)
    if not found:
        return None
    if found[1]:
        return int(found[1])
    number = found[2].removeprefix("SIG")
    if number.isdecimal():  # a real-time signal, which has no name of its own
        return 128 + int(number)
    known = signal.Signals.__members__.get(found[2])
    return EXIT_TASK_FAILED if known is None else 128 + known
