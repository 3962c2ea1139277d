"""Tables: drawn for a terminal, plain in a pipe; and what of them a narrow terminal shows.

What people copy (ids, hosts) and what they look for (states) is never cut. Where there is no room,
columns give way in the order of their worth, the same in all tables: long texts are shortened, then
the least worthy column is left out. In a pipe there is everything, without colours.
"""

import sys
from collections.abc import Collection, Iterable, Mapping, Sequence

import click

from banyan.cli.output import say
from banyan.printable import harmless

Row = Sequence[str]

_GAP = 2
# Texts that may be shortened, down to so many columns.
_SHORTENED = {
    "NAME": 12, "COMMAND": 16, "REASON": 16, "RESULT": 12, "PROGRESS": 12, "QUEUES": 12,
}  # fmt: skip
# What may be left out, the least worthy first. All other columns stay whatever the room.
_LEFT_OUT = (
    "PEAK MEMORY", "CLAIMED", "WORKER", "GPU h", "GPUS", "QUEUES", "ATTEMPTS", "MEMORY", "QUEUE",
    "ROLES", "FAILED", "GiB h", "CORES", "BEAT", "RESULT", "TASKS", "TOOK", "AGE", "RUNS",
    "PROGRESS", "COMMAND", "REASON", "NAME",
)  # fmt: skip
_COLOURED = ("STATE", "MODE", "EXIT STATUS")
_STYLES = {
    "success": "green",
    "running": "cyan",
    "failure": "red",
    "timeout": "red",
    "oom": "red",
    "lost": "red",
    "revoked": "red",
    "cancelled": "yellow",
    "draining": "yellow",
    "pending_cancellation": "yellow",
}


def print_table(
    titles: Row,
    rows: Iterable[Row],
    usual: Mapping[str, Collection[str]] | None = None,
    empty: str = "",
    whole: Collection[str] = (),
) -> None:
    """Columns: drawn on a terminal, plain and never cut in a pipe.

    usual: title -> what goes without saying; on a terminal a column that holds nothing else is
           left out.
    empty: what a person is told in place of a table without rows.
    whole: titles of columns that stay, and are not shortened here.
    """
    titles = [harmless(title) for title in titles]  # of results, others have named them
    cells = [[harmless(cell) for cell in row] for row in rows]
    if sys.stdout.isatty():
        if empty and not cells:
            say(empty)
            return
        _draw(*_worth_showing(titles, cells, usual or {}), whole)
        return
    lines = [titles, *cells]
    widths = [max(len(line[column]) for line in lines) for column in range(len(titles))]
    for line in lines:
        padded = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        click.echo("  ".join(padded).rstrip())


def fitted(
    titles: Row, widths: Sequence[int], room: int, whole: Collection[str] = ()
) -> dict[int, int]:
    """Which columns of these widths are shown in that room: place -> width there."""
    least = {
        place: width if titles[place] in whole else min(width, _SHORTENED.get(titles[place], width))
        for place, width in enumerate(widths)
    }
    for title in _LEFT_OUT:
        if _total(least) <= room:
            break
        if title in titles and title not in whole:
            least.pop(titles.index(title), None)
    shown = {place: max(least[place], min(widths[place], room)) for place in least}
    while _total(shown) > room and shown != least:
        longest = max(shown, key=lambda place: (shown[place] > least[place], shown[place]))
        shown[longest] -= 1
    return shown


def _total(widths: Mapping[int, int]) -> int:
    return sum(widths.values()) + _GAP * (len(widths) - 1)


def _worth_showing(
    titles: Row, rows: Sequence[Row], usual: Mapping[str, Collection[str]]
) -> tuple[Row, Sequence[Row]]:
    kept = [
        place
        for place, title in enumerate(titles)
        if not rows or not all(row[place] in usual.get(title, ()) for row in rows)
    ]
    return [titles[place] for place in kept], [[row[place] for place in kept] for row in rows]


def _draw(titles: Row, rows: Sequence[Row], whole: Collection[str]) -> None:
    from rich import box
    from rich.cells import cell_len
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    widths = [max(cell_len(row[place]) for row in [titles, *rows]) for place in range(len(titles))]
    console = Console()
    shown = fitted(titles, widths, console.width, whole)
    if _total(shown) > console.width:  # the terminal goes on in its next line, and nothing is cut
        console = Console(width=_total(shown))
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for place, width in shown.items():
        table.add_column(Text(titles[place]), width=width, no_wrap=True, overflow="ellipsis")
    styles = {place: _STYLES if titles[place] in _COLOURED else {} for place in shown}
    for row in rows:
        table.add_row(*(Text(row[place], styles[place].get(row[place], "")) for place in shown))
    console.print(table)
