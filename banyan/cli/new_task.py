"""The options that describe a task, and the task that they make.

`banyan submit` and `banyan run` share them. What the server judges (names, states, limits)
is left to the server.
"""

import functools
import os
from collections.abc import Callable, Sequence
from typing import Any

import click

from banyan.cli.completing import complete_queue, complete_tasks
from banyan.cli.directives import runnable, script_of, with_directives
from banyan.cli.selecting import find_parents
from banyan.cli.words import cores as cores_wanted
from banyan.cli.words import (
    duration_milliseconds,
    environment,
    pairs,
    program_name,
    retained,
)
from banyan.client.api import Client
from banyan.errors import BanyanError

Command = Callable[..., Any]

# Of the command line's context: what follows the first word of COMMAND belongs to COMMAND.
OWN_WORDS_LAST = {"allow_interspersed_args": False}

_OPTIONS = (
    click.option("--cores", metavar="N", help='Cores, or a share of the machine\'s: "50%".'),
    click.option("--memory", metavar="SIZE", help='"1 GiB". [default: 128 MiB]'),
    click.option("--gpus", type=click.IntRange(min=0), metavar="N", help="GPUs."),
    click.option("--disk", metavar="SIZE", help="Disk space."),
    click.option("--name", help="A name to find it by. [default: of the program]"),
    click.option(
        "--queue",
        metavar="NAME",
        help="The queue. [default: default; in a running task its own]",
        shell_complete=complete_queue,
    ),
    click.option("--priority", metavar="N", help="Larger first; or backfill, low, normal, high."),
    click.option("--label", multiple=True, metavar="KEY=VALUE", help="What the worker must offer."),
    click.option("--tag", multiple=True, metavar="KEY=VALUE", help="A tag to find it by."),
    click.option(
        "--after",
        multiple=True,
        metavar="TASK",
        help="Wait until it succeeded: an id, last, @NAME; several with commas.",
        shell_complete=complete_tasks,
    ),
    click.option(
        "--after-fail",
        multiple=True,
        metavar="TASK",
        help="Wait until it failed: an id, last, @NAME; several with commas.",
        shell_complete=complete_tasks,
    ),
    click.option(
        "--after-any",
        multiple=True,
        metavar="TASK",
        help="Wait until it ended: an id, last, @NAME; several with commas.",
        shell_complete=complete_tasks,
    ),
    click.option("--env", multiple=True, metavar="KEY[=VALUE]", help="For its environment."),
    click.option(
        "--secret", multiple=True, metavar="KEY=NAME", help="A secret of the worker, by its name."
    ),
    click.option("--cwd", metavar="DIR", help="Where it runs. [default: the directory here]"),
    click.option("--retries", type=click.IntRange(min=0), metavar="N", help="After failures."),
    click.option("--timeout", metavar="TIME", help='End it after "90s", "10 minutes", "1:30:00".'),
    click.option("--retain", metavar="TIME", help='Keep it so long once it ended, or "forever".'),
    click.option("--shell", is_flag=True, help="COMMAND is one line for /bin/sh."),
)


def task_options(command: Command) -> Command:
    """Gives the command `task`, the fields of a new task, and takes COMMAND from the line."""

    @click.argument("words", nargs=-1, required=True, metavar="COMMAND...")
    @functools.wraps(command)
    def with_task(client: Client, words: tuple[str, ...], **options: Any) -> Any:
        mine = {name: options.pop(name) for name in _NAMES}
        script = script_of(words)
        if script and not mine["shell"]:
            mine = with_directives(script, mine, click.get_current_context(), _NAMES)
            mine["name"] = mine["name"] or script.stem
            words = tuple(runnable(script, words))
        return command(client, task=_task(client, words, **mine), **options)

    for option in reversed(_OPTIONS):
        with_task = option(with_task)
    return with_task


_NAMES = (
    "cores", "memory", "gpus", "disk", "name", "queue", "priority", "label", "tag", "after",
    "after_fail", "after_any", "env", "secret", "cwd", "retries", "timeout", "retain", "shell",
)  # fmt: skip


def _task(client: Client, words: Sequence[str], **given: Any) -> dict[str, Any]:
    task = {
        "name": given["name"] or program_name(words),
        "command": " ".join(words) if given["shell"] else list(words),
        "requested_resources": _resources(given),
        "queue": given["queue"],
        "priority": _priority(given["priority"]),
        "labels": pairs(given["label"], "--label"),
        "tags": pairs(given["tag"], "--tag"),
        "after": _ids(client, given["after"]),
        "after_failure": _ids(client, given["after_fail"]),
        "after_any": _ids(client, given["after_any"]),
        "env": {**environment(given["env"]), **_secrets(given["secret"])},
        "cwd": os.path.abspath(given["cwd"] or os.getcwd()),
        "max_attempt_count": None if given["retries"] is None else given["retries"] + 1,
        "timeout_milliseconds": given["timeout"]
        and duration_milliseconds(given["timeout"], "--timeout"),
        "retain": given["retain"] and retained(given["retain"]),
    }
    return {name: value for name, value in task.items() if value not in (None, {}, [], "")}


def _secrets(named: Sequence[str]) -> dict[str, dict[str, str]]:
    return {key: {"secret": name} for key, name in pairs(named, "--secret").items()}


def _resources(given: dict[str, Any]) -> dict[str, Any]:
    found = {name: given[name] for name in ("memory", "gpus", "disk") if given[name] is not None}
    return {**found, **(cores_wanted(given["cores"]) if given["cores"] else {})}


def _priority(text: str | None) -> int | str | None:
    if text is None or not text.lstrip("+-").isdecimal():
        return text
    return int(text)


def _ids(client: Client, named: Sequence[str]) -> list[str]:
    split = [one for text in named for one in text.split(",") if one]
    if named and not split:
        raise BanyanError("usage", "the id of a task is missing")
    return find_parents(client, split)
