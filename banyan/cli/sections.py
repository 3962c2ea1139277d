"""A command's help: what its arguments may be, and its options in sections: submit has forty.

What adds options to a command says in which section of its help they stand; what nobody names
stands in the first one.
"""

from collections.abc import Callable, Collection, Mapping
from types import MethodType
from typing import Any

import click

FIRST = "Options"
_SEVERAL = "several are parted by blanks or commas"
# What the arguments of this name may be, wherever they stand: "..." is for several.
_ARGUMENTS = {
    "TASK": "An id, or how one begins (4 digits or more); last: your newest; @NAME: where one task "
    "has that name.",
    "TASK...": "An id, or how one begins (4 digits or more); last: your newest task or array; "
    f"@NAME: all of that name; @ID: an array, as 'banyan submit' prints it; {_SEVERAL}.",
    "WORKER...": "A host: all its workers; or an id, or how one begins (4 digits or more).",
    "ACCOUNT": "Its name or its id.",
}


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
    arguments = [one for one in command.get_params(context) if isinstance(one, click.Argument)]
    told = [(name, _ARGUMENTS[name]) for name in map(_name_of, arguments) if name in _ARGUMENTS]
    if told:
        with formatter.section("Arguments"):
            formatter.write_dl(told)
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


def _name_of(argument: click.Argument) -> str:
    """As the first line of the help has it, without brackets."""
    return (argument.metavar or str(argument.name).upper()).replace("[", "").replace("]", "")
