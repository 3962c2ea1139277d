"""`banyan show`: all about one task, what goes without saying left out."""

from collections.abc import Mapping, Sequence
from typing import Any

import click

from banyan.cli.completing import complete_tasks
from banyan.cli.connection import with_client
from banyan.cli.ls import command, cores, progress, result
from banyan.cli.output import age, as_json, column, print_json
from banyan.cli.selecting import find_id
from banyan.cli.tables import print_table
from banyan.cli.verdict import say_hints
from banyan.client.api import Client
from banyan.domain.units import counted, format_bytes, format_duration, parse_time
from banyan.printable import harmless

# Other tasks: those that it waits for, and those that wait for it.
_OF_LIST = {
    "after": "after",
    "after_failure": "after fail",
    "after_any": "after any",
    "continuations": "followed by",
    "failure_continuations": "if it fails by",
    "final_continuations": "in any case by",
}
_NAMED_MAX = 3  # of the ids of other tasks; JSON has them all
_TITLES = ("ATTEMPT", "EXIT STATUS", "HOST", "WORKER", "CLAIMED", "TOOK", "PEAK MEMORY", "REASON")
_USUAL = {"HOST": [""], "TOOK": [""], "PEAK MEMORY": [""], "REASON": [""]}


@click.command("show")
@with_client()
@click.argument("task", shell_complete=complete_tasks)
@as_json
def show_command(client: Client, task: str, as_json: bool) -> None:
    """All about one task and its attempts.

    \b
    Example:
      banyan show last
    """
    known = client.get(find_id(client, task))
    where = {"task": known["_id"]}
    attempts = list(client.find(where, sort="attempt_count", resource="attempts"))
    if as_json:
        print_json({**known, "attempts": attempts})
        return
    facts = {name: value for name, value in _facts(known).items() if value}
    width = max(map(len, facts))
    for name, value in facts.items():
        click.echo(f"{name.ljust(width)}  {harmless(value)}")
    if attempts:
        click.echo()
        print_table(_TITLES, [_attempt_row(attempt) for attempt in attempts], _USUAL)
        say_hints([(known, str(attempts[-1].get("exit_status")))])


def _facts(task: dict[str, Any]) -> dict[str, str]:
    created = column(task, "_created")
    return {
        "id": task["_id"],
        "name": column(task, "name"),
        "state": column(task, "state"),
        "outcome": column(task, "outcome"),
        "reason": column(task, "reason"),
        "command": command(task),
        "cwd": column(task, "cwd"),
        "env": _pairs({name: _shown(one) for name, one in (task.get("env") or {}).items()}),
        "queue": column(task, "queue"),
        "priority": column(task, "priority"),
        "cores": cores(task),
        "memory": column(task, "requested_resources.cpu_memory_bytes", format_bytes),
        "gpus": column(task, "requested_resources.gpu_count", _some),
        "disk": column(task, "requested_resources.disk_bytes", _format_some_bytes),
        "custom": _pairs((task.get("requested_resources") or {}).get("custom")),
        "labels": _pairs(task.get("labels")),
        "tags": _pairs(task.get("tags")),
        "timeout": column(task, "timeout_milliseconds", format_duration),
        "grace": column(task, "max_shutdown_time_milliseconds", format_duration),
        "dedupe key": column(task, "dedupe_key"),
        "not before": column(task, "not_before"),
        "retain": column(task, "retain", _format_retained),
        "host": column(task, "host"),
        "attempts": _attempts(task),
        **{_OF_LIST[name]: _named(task.get(name) or ()) for name in _OF_LIST},
        "waits for": column(task, "pending_dependency_count", _some_tasks),
        "progress": progress(task),
        "result": result(task),
        "owner": column(task, "owner"),
        "created": f"{created} ({age(created)} ago)",
    }


def _attempt_row(attempt: dict[str, Any]) -> tuple[str, ...]:
    return (
        column(attempt, "attempt_count"),
        column(attempt, "exit_status") or "(not ended)",
        column(attempt, "host"),
        column(attempt, "worker"),
        age(column(attempt, "time_claimed")) + " ago",
        _took(attempt),
        column(attempt, "peak_memory_bytes", format_bytes),
        column(attempt, "reason"),
    )


def _attempts(task: dict[str, Any]) -> str:
    count, most = task.get("attempt_count") or 0, task.get("max_attempt_count") or 0
    more = f"{count}: {most} without those lost and those retried"
    return f"{count} of {most}" if count <= most else more


def _took(attempt: dict[str, Any]) -> str:
    start, end = attempt.get("time_started"), attempt.get("time_terminated")
    if not start or not end:
        return ""
    return format_duration(round((parse_time(end) - parse_time(start)).total_seconds() * 1000))


def _some(count: int) -> str:
    return str(count) if count else ""


def _some_tasks(count: int) -> str:
    return counted(count) if count else ""


def _named(ids: Sequence[str]) -> str:
    left = len(ids) - _NAMED_MAX
    more = f" and {left:,} more" if left > 0 else ""
    return " ".join(ids[:_NAMED_MAX]) + more


def _format_some_bytes(size: int) -> str:
    return format_bytes(size) if size else ""


def _format_retained(time: int | str) -> str:
    return time if isinstance(time, str) else format_duration(time)


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else f"(secret {value['secret']})"


def _pairs(mapping: Mapping[str, Any] | None) -> str:
    return " ".join(f"{name}={value}" for name, value in (mapping or {}).items())
