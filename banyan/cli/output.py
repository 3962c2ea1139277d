"""How results are printed: text for people, JSON for programs; tables are in `banyan.cli.tables`.

Results go to standard output; what is said about them goes to standard error (`say`). What
other people wrote (names, commands) must never reach a terminal with its control characters.
"""

import json
import re
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import click

from banyan.domain.units import parse_time
from banyan.printable import harmless_lines

as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
quiet = click.option("-q", "--quiet", is_flag=True, help="Print ids only, one per line.")


def say(text: str) -> None:
    """Tells a person something, beside the result."""
    click.echo(harmless_lines(text), err=True)


def tell(text: str) -> None:
    """A result in lines of text. What a server says goes by this, `say` or a table alone."""
    click.echo(harmless_lines(str(text)))


def print_json(value: Any) -> None:
    """One JSON document."""
    click.echo(json_text(value, indent=2 if sys.stdout.isatty() else None))


def json_text(value: Any, indent: int | None = None) -> str:
    """JSON that people read: letters of all languages as they are, what acts on a terminal not.

    Controls, directions of writing and separators of lines are \\u escapes: the same JSON.
    """
    encoding = sys.stdout.encoding or "utf-8"  # JSON is UTF-8 or ASCII, whatever the terminal is
    ascii_only = encoding.lower().replace("-", "") != "utf8"
    return _NOT_PLAIN.sub(_escaped, json.dumps(value, indent=indent, ensure_ascii=ascii_only))


_NOT_PLAIN = re.compile(r"[^ -~\n]")  # what has to be looked at; line ends are json's own


def _escaped(found: re.Match[str]) -> str:
    return found[0] if found[0].isprintable() else json.dumps(found[0]).strip('"')


def age(time: str | None) -> str:
    """How long ago a time of the server was: "5s", "12m", "3h", "4d"."""
    if not time:
        return ""
    seconds = max(0, int((datetime.now(UTC) - parse_time(time)).total_seconds()))
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= size:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


def in_local_time(time: str) -> str:
    """A time of the server as the clock here has it: "2026-12-31 08:00:00"."""
    return parse_time(time).astimezone().isoformat(" ", "seconds")[: len("2026-12-31 08:00:00")]


def column(document: dict[str, Any], path: str, shown: Callable[[Any], str] = str) -> str:
    """A member of a document by its dotted path; nothing where it is missing or null."""
    value: Any = document
    for name in path.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return "" if value is None else shown(value)
