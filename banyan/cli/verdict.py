"""How a task ended, as an exit code and in words.

Called by `run`, `wait`, `ls` and `show`.
"""

import re
import signal
from typing import Any

from banyan.cli.output import say
from banyan.client.api import Client
from banyan.errors import EXIT_OK, EXIT_TASK_FAILED


def standing(task: dict[str, Any]) -> str:
    """One word for a list: how it ended, else its state."""
    return str(task.get("outcome") or task.get("state") or "")


def exit_code_of(client: Client, task: dict[str, Any]) -> int:
    """The task's own code; 128 + n for signal n; 1 where it ended in another way, which is told."""
    if task.get("outcome") == "success":
        return EXIT_OK
    status = exit_status(client, task["_id"])
    code = _code(status)
    if code is None:
        reason = f" ({task['reason']})" if task.get("reason") else ""
        say(f"banyan: task {task['_id']}: {status or standing(task)}{reason}")
    return EXIT_TASK_FAILED if code is None else code


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
    try:
        return 128 + signal.Signals[found[2]].value
    except KeyError:  # a real-time signal, which has no name of its own
        return EXIT_TASK_FAILED
