"""How results are printed: tables for people, plain columns for pipes, JSON for programs.

Results go to standard output; what is said about them goes to standard error (`say`). What
other people wrote (names, commands) must never reach a terminal with its control characters.
"""

import json
import sys
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

import click

from banyan.domain.units import parse_time

as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
quiet = click.option("-q", "--quiet", is_flag=True, help="Print ids alone, one a line.")

Row = Sequence[str]


def say(text: str) -> None:
    """Tells a person something, beside the result."""
    click.echo(text, err=True)


def print_json(value: Any) -> None:
    """One JSON document."""
    indent = 2 if sys.stdout.isatty() else None
    click.echo(json.dumps(value, indent=indent, ensure_ascii=False))


def print_table(titles: Row, rows: Iterable[Row]) -> None:
    """Columns: drawn by rich on a terminal, plain and never cut in a pipe."""
    cells = [[harmless(cell) for cell in row] for row in rows]
    if sys.stdout.isatty():
        _rich_table(titles, cells)
        return
    lines = [titles, *cells]
    widths = [max(len(line[column]) for line in lines) for column in range(len(titles))]
    for line in lines:
        padded = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        click.echo("  ".join(padded).rstrip())


def harmless(text: str) -> str:
    """The text on one line, its control characters written out."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def age(time: str | None) -> str:
    """How long ago a time of the server was: "5s", "12m", "3h", "4d"."""
    if not time:
        return ""
    seconds = max(0, int((datetime.now(UTC) - parse_time(time)).total_seconds()))
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= size:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


def column(document: dict[str, Any], path: str, shown: Callable[[Any], str] = str) -> str:
    """A member of a document by its dotted path; nothing where it is missing or null."""
    value: Any = document
    for name in path.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return "" if value is None else shown(value)


def _rich_table(titles: Row, rows: Iterable[Row]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for title in titles:
        # Ids are there to be copied: whatever else must shrink, they stay whole.
        table.add_column(title, no_wrap=True, overflow="ellipsis" if title != "ID" else "fold",
                         min_width=24 if title == "ID" else None)  # fmt: skip
    for row in rows:
        table.add_row(*(Text(cell, _STYLES.get(cell, "")) for cell in row))
    Console().print(table)


_STYLES = {
    "success": "green",
    "running": "cyan",
    "failure": "red",
    "timeout": "red",
    "oom": "red",
    "lost": "red",
    "cancelled": "yellow",
    "pending_cancellation": "yellow",
}
