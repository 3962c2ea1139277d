"""`#BANYAN --cores 4` in a script: options of `banyan submit` that travel with it.

Read where the command is a file that ends in .sh. What the command line says goes before;
options that may be given several times are added to.
"""

import os
import shlex
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from banyan.errors import BanyanError

MARK = "#BANYAN"


def script_of(words: Sequence[str]) -> Path | None:
    """The script that is submitted, if it is one."""
    script = Path(words[0])
    return script if words[0].endswith(".sh") and script.is_file() else None


def runnable(script: Path, words: Sequence[str]) -> list[str]:
    """The command for it, from any directory; through the shell where it is no program."""
    path = str(script.absolute())
    return [path, *words[1:]] if os.access(path, os.X_OK) else ["/bin/sh", path, *words[1:]]


def with_directives(
    script: Path, given: dict[str, Any], context: click.Context, names: Collection[str]
) -> dict[str, Any]:
    """The options `names` of the line, completed by those of the script. Errors: `usage`."""
    said = _arguments(script)
    if not said:
        return given
    known = [one for one in context.command.params if one.name in names]
    try:
        reader = click.Command(MARK, params=known, add_help_option=False)
        inner = reader.make_context(f"{script}: {MARK}", said)
    except click.ClickException as problem:
        raise BanyanError("usage", f"{script}: {MARK}: {problem.format_message()}") from None
    merged = dict(given)
    for name, value in inner.params.items():
        if inner.get_parameter_source(name) == ParameterSource.DEFAULT:
            continue
        if isinstance(value, tuple):
            merged[name] = (*value, *given[name])
        elif context.get_parameter_source(name) == ParameterSource.DEFAULT:
            merged[name] = value
    return merged


def _arguments(script: Path) -> list[str]:
    """What stands behind the marks, as far as the first line that is no comment."""
    found: list[str] = []
    try:
        lines = script.read_text(errors="replace").splitlines()
    except OSError as problem:
        raise BanyanError("usage", f"{script}: {problem.strerror}") from None
    for line in lines:
        if line.strip() and not line.lstrip().startswith("#"):
            break
        if line.split(maxsplit=1)[:1] == [MARK]:
            try:
                found += shlex.split(line[len(MARK) :], comments=True)
            except ValueError as problem:
                raise BanyanError("usage", f"{script}: {line}: {problem}") from None
    return found
