"""How results are printed: tables for people, plain columns for pipes, JSON for programs.

Results go to standard output; what is said about them goes to standard error (`say`). What
other people wrote (names, commands) must never reach a terminal with its control characters.
"""

import json
import re
import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import click

from banyan.domain.units import parse_time
from banyan.printable import harmless, harmless_lines

as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
quiet = click.option("-q", "--quiet", is_flag=True, help="Print ids alone, one a line.")

Row = Sequence[str]


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


def print_table(
    titles: Row,
    rows: Iterable[Row],
    usual: Mapping[str, Collection[str]] | None = None,
    empty: str = "",
) -> None:
    """Columns: drawn by rich on a terminal, plain and never cut in a pipe.

    usual: title -> what goes without saying; on a terminal, where room is scarce, a column
           that holds nothing else is left out.
    empty: what a person is told in place of a table without rows.
    """
    cells = [[harmless(cell) for cell in row] for row in rows]
    if sys.stdout.isatty():
        if empty and not cells:
            say(empty)
            return
        _rich_table(*_worth_showing(titles, cells, usual or {}))
        return
    lines = [titles, *cells]
    widths = [max(len(line[column]) for line in lines) for column in range(len(titles))]
    for line in lines:
        padded = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        click.echo("  ".join(padded).rstrip())


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


def _worth_showing(
    titles: Row, rows: Sequence[Row], usual: Mapping[str, Collection[str]]
) -> tuple[Row, Sequence[Row]]:
    kept = [
        place
        for place, title in enumerate(titles)
        if not rows or not all(row[place] in usual.get(title, ()) for row in rows)
    ]
    return [titles[place] for place in kept], [[row[place] for place in kept] for row in rows]


def _rich_table(titles: Row, rows: Sequence[Row]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for title, width in zip(titles, _widths(titles, rows, console.width), strict=True):
        table.add_column(title, width=width, no_wrap=True, overflow="ellipsis")
    for row in rows:
        table.add_row(*(Text(cell, _STYLES.get(cell, "")) for cell in row))
    console.print(table)


_ELASTIC = {"NAME", "COMMAND", "REASON"}  # what is cut where a terminal is narrow
_ELASTIC_LEAST = 8
_GAP = 2


def _widths(titles: Row, rows: Sequence[Row], room: int) -> list[int]:
    """The widths of the columns: what people copy stays whole, the longest text is cut first."""
    widths = [max(len(row[place]) for row in [titles, *rows]) for place in range(len(titles))]
    elastic = [place for place, title in enumerate(titles) if title in _ELASTIC]
    excess = sum(widths) + _GAP * (len(widths) - 1) - room
    while excess > 0 and any(widths[place] > _ELASTIC_LEAST for place in elastic):
        longest = max(elastic, key=lambda place: widths[place])
        widths[longest] -= 1
        excess -= 1
    return widths


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
