"""`banyan ls`: the tasks that there are."""

import itertools
import json
import shlex
from collections.abc import Iterable
from typing import Any

import click

from banyan.cli.connection import with_client
from banyan.cli.filtering import Like, with_filters
from banyan.cli.output import (
    age,
    as_json,
    column,
    json_text,
    print_json,
    quiet,
    say,
    tell,
)
from banyan.cli.selecting import select
from banyan.cli.tables import Row, print_table
from banyan.cli.verdict import standing
from banyan.cli.working import Working
from banyan.client.api import Client
from banyan.domain.units import format_bytes
from banyan.errors import BanyanError

_LISTED = (
    "name", "command", "state", "outcome", "reason", "queue", "priority", "requested_resources",
    "attempt_count", "pending_dependency_count", "_created", "tags",
    "progress", "result", "host", "env.BANYAN_ARRAY_INDEX",
)  # fmt: skip
_TITLES = (
    "ID", "INDEX", "NAME", "STATE", "HOST", "QUEUE", "CORES", "MEMORY", "ATTEMPTS", "AGE",
    "PROGRESS", "RESULT", "COMMAND",
)  # fmt: skip
# Columns that are there where tasks have so many different things to say.
_WHERE = {"INDEX": 1, "PROGRESS": 1, "RESULT": 1, "HOST": 2}
_USUAL = {"QUEUE": ["default"], "CORES": ["1"], "MEMORY": ["128 MiB"], "ATTEMPTS": ["0", "1"]}


@click.command("ls")
@with_client()
@with_filters
@click.option("--where", metavar="JSON", help="Any filter that the API knows.")
@click.option("-n", "--limit", type=click.IntRange(min=1), default=25, show_default=True,
              metavar="N", help="How many.")  # fmt: skip
@click.option("-a", "--all", "everything", is_flag=True, help="Without a limit.")
@as_json
@quiet
def ls_command(
    client: Client,
    tasks: tuple[str, ...],
    like: Like,
    where: str | None,
    limit: int,
    everything: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """List tasks, the newest first.

    There is an index for tasks of an array, and a host where they ran on several. A narrow
    terminal leaves the least important columns out; a pipe gets them all.

    \b
    Example:
      banyan ls --state failed --tag experiment=7
      banyan ls --host rack7 --since yesterday --outcome failed
      banyan ls @6740a1b2c3d4e5f60718293a
    """
    like.conditions.extend([_filter(where)] if where else [])
    wanted = select(client, tasks, like).where if tasks or like.conditions else None
    listed = dict.fromkeys(["state"] if quiet else _LISTED, 1)
    found = client.find(
        wanted,
        sort="-_created,-_id",
        limit=None if everything else limit + 1,
        projection=None if as_json else listed,
    )
    shown = found if everything else itertools.islice(found, limit)
    if as_json:
        print_json(list(shown))
    elif quiet:
        for task in shown:
            tell(task["_id"])
    else:
        _print(shown)
    if next(found, None):
        say(f"these are the newest {limit:,}; there are more: -n N, or --all")


def _print(tasks: Iterable[dict[str, Any]]) -> None:
    rows: list[Row] = []
    with Working("listing tasks") as working:
        for task in tasks:
            rows.append(_row(task))
            working(len(rows))
    print_table(*_table(rows), _USUAL, empty="no tasks")


def _filter(text: str | None) -> dict[str, Any]:
    try:
        found = json.loads(text or "{}")
    except ValueError as problem:
        raise BanyanError("usage", f"--where is no JSON: {problem}") from None
    if not isinstance(found, dict):
        raise BanyanError("usage", "--where must be a JSON object")
    return found


def _table(rows: list[Row]) -> tuple[Row, list[Row]]:
    shown = [
        place
        for place, title in enumerate(_TITLES)
        if len({row[place] for row in rows} - {""}) >= _WHERE.get(title, 0)
    ]
    return [_TITLES[place] for place in shown], [[row[place] for place in shown] for row in rows]


def _row(task: dict[str, Any]) -> tuple[str, ...]:
    return (
        task["_id"],
        column(task, "env.BANYAN_ARRAY_INDEX"),
        column(task, "name"),
        standing(task),
        column(task, "host"),
        column(task, "queue"),
        cores(task),
        column(task, "requested_resources.cpu_memory_bytes", format_bytes),
        column(task, "attempt_count"),
        age(task.get("_created")),
        progress(task),
        result(task),
        command(task),
    )


def progress(task: dict[str, Any]) -> str:
    """How far the task says that it is: "40/100 epoch 4"."""
    told = task.get("progress") or {}
    parts = [f"{told[name]:.15g}" for name in ("done", "total") if told.get(name) is not None]
    return " ".join(filter(None, ["/".join(parts), str(told.get("message") or "")]))


def result(task: dict[str, Any]) -> str:
    """What the task has given back, as JSON."""
    value = task.get("result")
    return "" if value is None else json_text(value)


def cores(task: dict[str, Any]) -> str:
    """The cores that a task asks for, as `--cores` takes them."""
    wanted = (task.get("requested_resources") or {}).get("cpu_cores") or {}
    if wanted.get("percent"):
        return f"{wanted['percent']:g}%"
    return f"{wanted['count']:g}" if "count" in wanted else ""


def command(task: dict[str, Any]) -> str:
    """The command as one would type it."""
    given = task.get("command")
    if given is None:
        return "(group)"
    return given if isinstance(given, str) else shlex.join(given)
