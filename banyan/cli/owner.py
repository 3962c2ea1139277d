"""What a machine's owner keeps, as options of `banyan worker` and of `banyan up`.

`with_owner_options` adds them to a command; `owner_options` reads what was given for the
worker, `owner_arguments` hands it on to a worker's command line.
"""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click

from banyan.cli.words import size_bytes
from banyan.errors import BanyanError

_NAMES = (
    "reserve_cores", "reserve_memory", "nice", "affinity", "polite", "memory_enforcement",
    "max_processes", "max_tasks", "run_as", "containers", "secrets_file",
)  # fmt: skip
_PERCENT = re.compile(r"([0-9]{1,3}(?:\.[0-9]+)?) ?%")
_PROCESSES_DEFAULT = 4096
_ENFORCEMENTS = ("best", "cgroup", "watch", "none")

_OPTIONS = (
    click.option(
        "--reserve-cores", type=click.FloatRange(min=0), metavar="N", help="Cores to keep."
    ),
    click.option("--reserve-memory", metavar="SIZE", help='Memory to keep: "2 GiB" or "10%".'),
    click.option("--nice", type=click.IntRange(0, 19), metavar="N", help="Niceness of tasks."),
    click.option("--affinity", is_flag=True, help="Bind each task to its cores."),
    click.option("--polite", is_flag=True, help="Leave cores that other processes keep busy."),
    click.option("--run-as", metavar="USER", help="Whose processes tasks are; takes root."),
    click.option(
        "--containers",
        is_flag=True,
        help="With --run-as: let tasks make containers (Apptainer, Podman). With these they can"
        " take memory that nothing bounds, and hold up others' starts.",
    ),
    click.option(
        "--secrets-file",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        help="JSON, name -> value: what tasks get that name a secret. Mode 0600.",
    ),
    click.option(
        "--memory-enforcement",
        type=click.Choice(_ENFORCEMENTS),
        help="How tasks are held to the memory they asked for. [default: best]",
    ),
    click.option(
        "--max-processes",
        type=click.IntRange(min=0),
        metavar="N",
        help="Processes that a task may have at one time; 0: any number. [default: 4096]",
    ),
    click.option(
        "--max-tasks",
        type=click.IntRange(min=1),
        metavar="N",
        help="Tasks at one time, whatever they ask for. [default: 16 a core, 64 at least]",
    ),
)


def with_owner_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the options to a command."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def owner_options(given: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of the worker's Options."""
    percent, size = _memory(given["reserve_memory"])
    most = given["max_processes"]
    return {
        "reserve_cores": given["reserve_cores"] or 0.0,
        "reserve_memory_bytes": size,
        "reserve_memory_percent": percent,
        "nice": given["nice"] or 0,
        "affinity": given["affinity"],
        "polite": given["polite"],
        "run_as": given["run_as"],
        "containers": given["containers"],
        "secrets_file": given["secrets_file"] and given["secrets_file"].absolute(),
        "memory_enforcement": given["memory_enforcement"] or "best",
        "max_processes": _PROCESSES_DEFAULT if most is None else most,
        "max_tasks": given["max_tasks"],
    }


def owner_arguments(given: dict[str, Any]) -> list[str]:
    """Takes the options out of `given`: the same for `banyan worker`."""
    arguments: list[str] = []
    for name in _NAMES:
        value = given.pop(name)
        if value is not None and value is not False:
            arguments.append(f"--{name.replace('_', '-')}")
            arguments += [] if value is True else [str(value)]
    return arguments


def _memory(text: str | None) -> tuple[float, int]:
    """(percent, bytes); one of them is 0."""
    if text is None:
        return 0.0, 0
    percent = _PERCENT.fullmatch(text.strip())
    if percent is None:
        return 0.0, size_bytes(text, "--reserve-memory")
    if float(percent[1]) > 100:
        raise BanyanError("usage", f"--reserve-memory {text!r} is more than there is")
    return float(percent[1]), 0
