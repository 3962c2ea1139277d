"""A script as COMMAND: `#BANYAN --cores 4` in it are options of `banyan submit`.

Read where the command is a file that ends in .sh. What the command line says goes before;
options that may be given several times are added to. A script that is not executable is run by
what its `#!` line names.
"""

import contextlib
import os
import shlex
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from banyan.errors import BanyanError

MARK = "#BANYAN"
_MARKS_OF_OTHERS = ("#SBATCH", "#PBS", "#BSUB", "#$", "#HQ", "#OAR", "#COBALT")
_SHELL = "/bin/sh"
_LINE_BYTES_MAX = 256


def script_of(words: Sequence[str]) -> Path | None:
    """The script that is submitted, if it is one."""
    script = Path(words[0])
    return script if words[0].endswith(".sh") and script.is_file() else None


def runnable(script: Path, words: Sequence[str]) -> list[str]:
    """The command for it, from any directory; by its interpreter where it is no program."""
    path = str(script.absolute())
    return [*([] if os.access(path, os.X_OK) else _interpreter(script)), path, *words[1:]]


def remarks(words: Sequence[str]) -> list[str]:
    """What in the program that is submitted would surprise, a sentence each."""
    script = script_of(words)
    text = _read(script) if script else _first_line(words[0])
    found = []
    if script and text.startswith("\ufeff"):
        found.append("it begins with a byte order mark, which no shell expects; save it without")
    if "\r\n" in text:
        ends = "its lines end as in DOS (CR LF), which breaks scripts"
        found.append(f"{ends}; convert it, as with dos2unix")
    first_words = {line.split(maxsplit=1)[0] for line in _comments(text)}
    for mark in sorted(first_words.intersection(_MARKS_OF_OTHERS)):
        found.append(f"its {mark} lines are not read; options stand in {MARK} lines")
    return [f"banyan: {words[0]}: {remark}" for remark in found]


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


def _interpreter(script: Path) -> list[str]:
    """What its `#!` line names, and as the kernel reads it at most one argument; or the shell."""
    first = _read(script).removeprefix("\ufeff").partition("\n")[0]
    named = first[2:].split(maxsplit=1) if first.startswith("#!") else []
    return [word.strip() for word in named] or [_SHELL]


def _arguments(script: Path) -> list[str]:
    """What stands behind the marks."""
    found: list[str] = []
    for line in _comments(_read(script)):
        if line.split(maxsplit=1)[0] == MARK:
            try:
                found += shlex.split(line[len(MARK) :], comments=True)
            except ValueError as problem:
                raise BanyanError("usage", f"{script}: {line}: {problem}") from None
    return found


def _comments(text: str) -> Iterator[str]:
    """Those at its top, as far as the first line that is none."""
    for line in map(str.strip, text.removeprefix("\ufeff").splitlines()):
        if line.startswith("#"):
            yield line
        elif line:
            return


def _first_line(program: str) -> str:
    """Of a file here that names its interpreter; empty for all else."""
    line = b""
    with contextlib.suppress(OSError):
        if "/" in program and os.path.isfile(program):
            with open(program, "rb") as file:
                line = file.readline(_LINE_BYTES_MAX)
    return line.decode(errors="replace") if line.startswith(b"#!") else ""


def _read(script: Path) -> str:
    try:
        return script.read_bytes().decode(errors="replace")
    except OSError as problem:
        raise BanyanError("usage", f"{script}: {problem.strerror}") from None
