"""The options of a command's help, in sections: submit has forty of them.

What adds options to a command says in which section of its help they stand; what nobody names
stands in the first one.
"""

from collections.abc import Callable, Collection, Mapping
from types import MethodType
from typing import Any

import click

FIRST = "Options"


def in_sections(command: Callable[..., Any], sections: Mapping[str, Collection[str]]) -> None:
    """Has options that decorators have added stand in sections: title -> names of parameters."""
    titles = {name: title for title, names in sections.items() for name in names}
    for parameter in getattr(command, "__click_params__", ()):
        if parameter.name in titles and not hasattr(parameter, "section"):
            parameter.section = titles[parameter.name]


def with_sections(command: click.Command) -> click.Command:
    """The command, and those below it, whose help has sections."""
    command.format_options = MethodType(_write_options, command)  # type: ignore[method-assign]
    if isinstance(command, click.Group):
        for below in command.commands.values():
            with_sections(below)
    return command


def _write_options(
    command: click.Command, context: click.Context, formatter: click.HelpFormatter
) -> None:
    sections: dict[str, list[tuple[str, str]]] = {FIRST: []}
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if record and isinstance(parameter, click.Option):
            sections.setdefault(getattr(parameter, "section", FIRST), []).append(record)
    for title, records in sections.items():
        if records:
            with formatter.section(title):
                formatter.write_dl(records)
    if isinstance(command, click.Group):
        command.format_commands(context, formatter)
