"""The options that describe a task, and the task that they make.

`banyan submit` and `banyan run` share them. What the server judges (names, states, limits)
is left to the server.
"""

import functools
import os
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import click

from banyan.cli.completing import complete_queue, complete_tasks
from banyan.cli.directives import remarks, runnable, script_of, with_directives
from banyan.cli.output import say
from banyan.cli.own_words import own_words
from banyan.cli.sections import in_sections
from banyan.cli.selecting import find_parents
from banyan.cli.words import (
    amounts,
    duration_milliseconds,
    environment,
    moment,
    pairs,
    program_name,
    retained,
    size_bytes,
)
from banyan.cli.words import cores as cores_wanted
from banyan.client.api import Client
from banyan.client.ids import new_id
from banyan.domain.units import format_time
from banyan.errors import BanyanError

Command = Callable[..., Any]

# Of the command line's context: what follows the first word of COMMAND belongs to COMMAND.
OWN_WORDS_LAST = {"allow_interspersed_args": False}

# The server's own default leaves ten minutes, which is long for a person who waits.
_GRACE = "30s"

_OPTIONS = (
    click.option("--cores", metavar="N", help="Cores, or a share of the machine's: 50%."),
    click.option("--memory", metavar="SIZE", help="512M, 8G, 1.5GiB. [default: 128M]"),
    click.option("--gpus", type=click.IntRange(min=0), metavar="N", help="GPUs."),
    click.option("--disk", metavar="SIZE", help="Disk space: 10G."),
    click.option(
        "--custom",
        multiple=True,
        metavar="NAME=N",
        help="So many of a counted thing of the worker, as licences.",
    ),
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
    click.option(
        "--env",
        multiple=True,
        metavar="KEY[=VALUE]",
        help="For its environment; KEY alone: its value here; ALL: all variables here.",
    ),
    click.option(
        "--secret", multiple=True, metavar="KEY=NAME", help="A secret of the worker, by its name."
    ),
    click.option("--cwd", metavar="DIR", help="Where it runs. [default: the directory here]"),
    click.option(
        "--not-before",
        metavar="TIME",
        help='Start it after a delay (90s, 2h30m), at a time of day (22:30), or at "2026-12-31 '
        '08:00" here.',
    ),
    click.option("--retries", type=click.IntRange(min=0), metavar="N", help="After failures."),
    click.option("--retry-delay", metavar="TIME", help="Wait so long before each."),
    click.option("--timeout", metavar="TIME", help="End it after 90s, 10m, 1h30m, 1:30:00."),
    click.option(
        "--grace",
        metavar="TIME",
        help=f"From SIGTERM to SIGKILL, at a cancel or its --timeout. [default: {_GRACE}]",
    ),
    click.option("--retain", metavar="TIME", help='Keep it so long once it ended, or "forever".'),
    click.option(
        "--dedupe-key",
        metavar="KEY",
        help="Submitted again with this key, it is the same task: for scripts that are repeated. "
        "Write its --not-before as a date and time: a delay means another task each time.",
    ),
    click.option("--shell", is_flag=True, help="COMMAND is one line for /bin/sh."),
)
_SECTIONS = {
    "Resources": ("cores", "memory", "gpus", "disk", "custom", "label"),
    "When it runs": (
        "queue", "priority", "not_before", "after", "after_fail", "after_any", "hold",
    ),
    "Ends and failures": ("retries", "retry_delay", "timeout", "grace", "retain"),
}  # fmt: skip


def task_options(command: Command) -> Command:
    """Gives the command `task`, the fields of a new task, and takes COMMAND from the line."""

    @click.argument("words", nargs=-1, required=True, metavar="COMMAND...")
    @functools.wraps(command)
    def with_task(client: Client, words: tuple[str, ...], **options: Any) -> Any:
        mine = {name: options.pop(name) for name in _NAMES}
        script = None if mine["shell"] else script_of(words)
        for remark in () if mine["shell"] else remarks(words):
            say(remark)
        if script:
            mine = with_directives(script, mine, click.get_current_context(), _NAMES)
            mine["name"] = mine["name"] or script.stem
            words = tuple(runnable(script, words))
        with own_words():
            return command(client, task=_task(client, words, **mine), **options)

    for option in reversed(_OPTIONS):
        with_task = option(with_task)
    in_sections(with_task, _SECTIONS)
    return with_task


_NAMES = (
    "cores", "memory", "gpus", "disk", "custom", "name", "queue", "priority", "label", "tag",
    "after", "after_fail", "after_any", "env", "secret", "cwd", "not_before", "retries",
    "retry_delay", "timeout", "grace", "retain", "dedupe_key", "shell",
)  # fmt: skip


def _task(client: Client, words: Sequence[str], **given: Any) -> dict[str, Any]:
    if words[0] == "-":
        raise BanyanError("usage", "no script is read from standard input: name its file")
    task = {
        "name": given["name"] or program_name(words),
        "command": " ".join(words) if given["shell"] else list(words),
        **changes({**given, "grace": given["grace"] or _GRACE}),
        "queue": given["queue"],
        "labels": pairs(given["label"], "--label"),
        "tags": pairs(given["tag"], "--tag"),
        "after": find_parents(client, given["after"]),
        "after_failure": find_parents(client, given["after_fail"]),
        "after_any": find_parents(client, given["after_any"]),
        "env": {**environment(given["env"]), **_secrets(given["secret"])},
        "cwd": os.path.abspath(given["cwd"] or os.getcwd()),
        "dedupe_key": given["dedupe_key"],
        # So it can be told whether it is new: the id of one that is there already is another.
        "_id": given["dedupe_key"] and new_id(),
    }
    return {name: value for name, value in task.items() if value not in (None, {}, [], "")}


def options_named(names: Sequence[str]) -> Callable[[Command], Command]:
    """Some of the same options, for a command that changes tasks: see `changes`."""

    def decorate(command: Command) -> Command:
        def every() -> None:
            """Takes all options, to be found by their names."""

        for option in reversed(_OPTIONS):
            option(every)
        of_all: list[click.Parameter] = every.__click_params__  # type: ignore[attr-defined]
        listed: list[click.Parameter] = getattr(command, "__click_params__", [])
        for one in of_all:
            if isinstance(one, click.Option) and one.name in names:
                one.help = (one.help or "").partition(" [default")[0]  # what is there stays
                listed.append(one)
        command.__click_params__ = listed  # type: ignore[attr-defined]
        return command

    return decorate


def changes(given: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a task for those options that may also be changed later; what is given."""
    fields: dict[str, Any] = {"requested_resources": _resources(given)}
    given = {name: value for name, value in given.items() if value is not None}
    if "priority" in given:
        fields["priority"] = _priority(given["priority"])
    if "retries" in given:
        fields["max_attempt_count"] = given["retries"] + 1
    for option, (field, least) in _DURATIONS.items():
        if option in given:
            name = f"--{option.replace('_', '-')}"
            fields[field] = duration_milliseconds(given[option], name, least)
    if "not_before" in given:
        fields["not_before"] = format_time(moment(given["not_before"], "--not-before"))
    if "retain" in given:
        fields["retain"] = retained(given["retain"])
    return {name: value for name, value in fields.items() if value != {}}


_DURATIONS = {
    "retry_delay": ("retry_delay_milliseconds", 0),
    "timeout": ("timeout_milliseconds", 1),
    "grace": ("max_shutdown_time_milliseconds", 0),
}


def _secrets(named: Sequence[str]) -> dict[str, dict[str, str]]:
    return {key: {"secret": name} for key, name in pairs(named, "--secret").items()}


def _resources(given: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {} if given["cores"] is None else cores_wanted(given["cores"])
    for name in ("memory", "disk"):
        if given[name] is not None:
            found[name] = size_bytes(given[name], f"--{name}")
    if given["gpus"] is not None:
        found["gpus"] = given["gpus"]
    if given["custom"]:
        found["custom"] = amounts(given["custom"], "--custom")
    return found


def _priority(text: str) -> int | str:
    return int(text) if re.fullmatch(r"[+-]?[0-9]{1,10}", text) else text
