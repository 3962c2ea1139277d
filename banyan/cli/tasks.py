"""`banyan ls` and `banyan show`: the tasks that there are, and all about one of them."""

import json
import shlex
from typing import Any

import click

from banyan.cli.connection import with_client
from banyan.cli.output import age, as_json, column, harmless, print_json, print_table, quiet
from banyan.cli.selecting import find_id, in_state
from banyan.cli.verdict import standing
from banyan.cli.words import pairs
from banyan.client.api import Client
from banyan.domain.units import format_bytes, format_duration
from banyan.errors import BanyanError

_LISTED = (
    "name", "command", "state", "outcome", "reason", "queue", "priority", "requested_resources",
    "attempt_count", "pending_dependency_count", "_created", "tags",
)  # fmt: skip
_TITLES = ("ID", "NAME", "STATE", "QUEUE", "CORES", "MEMORY", "ATTEMPTS", "AGE", "COMMAND")


@click.command("ls")
@with_client()
@click.option("--state", help="A state or an outcome; also: failed, open.")
@click.option("--name", help="Only of this name.")
@click.option("--queue", help="Only of this queue.")
@click.option("--tag", multiple=True, metavar="KEY=VALUE", help="Only with this tag.")
@click.option("--where", metavar="JSON", help="Any filter that the API knows.")
@click.option("-n", "--limit", type=click.IntRange(min=1), default=25, show_default=True)
@click.option("-a", "--all", "everything", is_flag=True, help="Without a limit.")
@as_json
@quiet
def ls_command(
    client: Client,
    state: str | None,
    name: str | None,
    queue: str | None,
    tag: tuple[str, ...],
    where: str | None,
    limit: int,
    everything: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """List tasks, the newest first.

    \b
    Example:
      banyan ls --state failed --tag experiment=7
    """
    wanted: dict[str, Any] = {**_filter(where), **(in_state(state) if state else {})}
    wanted.update({key: value for key, value in (("name", name), ("queue", queue)) if value})
    wanted.update({f"tags.{key}": value for key, value in pairs(tag, "--tag").items()})
    projection = {"state": 1} if quiet else dict.fromkeys(_LISTED, 1)
    found = client.find(
        wanted or None,
        sort="-_created,-_id",
        limit=None if everything else limit,
        projection=None if as_json else projection,
    )
    if as_json:
        print_json(list(found))
    elif quiet:
        for task in found:
            click.echo(task["_id"])
    else:
        print_table(_TITLES, [_row(task) for task in found])


@click.command("show")
@with_client()
@click.argument("id")
@as_json
def show_command(client: Client, id: str, as_json: bool) -> None:
    """All about one task and its attempts.

    \b
    Example:
      banyan show last
    """
    task = client.get(find_id(client, id))
    where = {"task": task["_id"]}
    attempts = list(client.find(where, sort="attempt_count", resource="attempts"))
    if as_json:
        print_json({**task, "attempts": attempts})
        return
    lines = {**_facts(task), **_others(task)}
    width = max(map(len, lines))
    for name, value in lines.items():
        click.echo(f"{name.ljust(width)}  {harmless(value)}")
    if attempts:
        click.echo()
        print_table(
            ("ATTEMPT", "EXIT STATUS", "WORKER", "CLAIMED", "TOOK", "PEAK MEMORY"),
            [_attempt_row(attempt) for attempt in attempts],
        )


def _filter(text: str | None) -> dict[str, Any]:
    try:
        found = json.loads(text or "{}")
    except ValueError as problem:
        raise BanyanError("usage", f"--where is no JSON: {problem}") from None
    if not isinstance(found, dict):
        raise BanyanError("usage", "--where must be a JSON object")
    return found


def _row(task: dict[str, Any]) -> tuple[str, ...]:
    return (
        task["_id"],
        column(task, "name"),
        standing(task),
        column(task, "queue"),
        _cores(task),
        column(task, "requested_resources.cpu_memory_bytes", format_bytes),
        column(task, "attempt_count"),
        age(task.get("_created")),
        _command(task),
    )


def _attempt_row(attempt: dict[str, Any]) -> tuple[str, ...]:
    return (
        column(attempt, "attempt_count"),
        column(attempt, "exit_status") or "(not ended)",
        column(attempt, "worker"),
        column(attempt, "time_claimed"),
        _took(attempt),
        column(attempt, "peak_memory_bytes", format_bytes),
    )


def _facts(task: dict[str, Any]) -> dict[str, str]:
    """What everybody wants to know first."""
    facts = {
        "id": task["_id"],
        "name": column(task, "name"),
        "state": column(task, "state"),
        "outcome": column(task, "outcome"),
        "reason": column(task, "reason"),
        "command": _command(task),
        "cores": _cores(task),
        "memory": column(task, "requested_resources.cpu_memory_bytes", format_bytes),
        "timeout": column(task, "timeout_milliseconds", format_duration),
    }
    return {name: value for name, value in facts.items() if value}


def _others(task: dict[str, Any]) -> dict[str, str]:
    """The fields that `_facts` has not told, as they are; the empty ones left out."""
    told = {"name", "state", "outcome", "reason", "command", "timeout_milliseconds", "attempt_id"}
    return {
        name: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        for name, value in task.items()
        if name not in told and not name.startswith("_") and value not in (None, [], {}, "")
    } | {"created": column(task, "_created")}


def _cores(task: dict[str, Any]) -> str:
    cores = (task.get("requested_resources") or {}).get("cpu_cores") or {}
    if cores.get("percent"):
        return f"{cores['percent']:g}%"
    return f"{cores['count']:g}" if "count" in cores else ""


def _command(task: dict[str, Any]) -> str:
    command = task.get("command")
    if command is None:
        return "(group)"
    return command if isinstance(command, str) else shlex.join(command)


def _took(attempt: dict[str, Any]) -> str:
    from banyan.domain.units import parse_time

    start, end = attempt.get("time_started"), attempt.get("time_terminated")
    if not start or not end:
        return ""
    return format_duration(round((parse_time(end) - parse_time(start)).total_seconds() * 1000))
