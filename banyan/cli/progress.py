"""`banyan progress`: how far tasks are, by state, until all have ended.

With a number, inside a task, it is `banyan.cli.telling` that does the work.
"""

import os
import sys
import time
from collections.abc import Callable
from typing import Any

import click

from banyan.cli.connection import with_client
from banyan.cli.output import as_json, print_json, tell
from banyan.cli.selecting import Selection, selection_options
from banyan.cli.streams import while_read
from banyan.cli.telling import is_number, tell_progress_command
from banyan.client.api import Client
from banyan.client.progress import Counts, changes, done, summary
from banyan.errors import EXIT_OK, EXIT_TASK_FAILED, BanyanError

_COLOURS = {
    "succeeded": "green",
    "failed": "red",
    "cancelled": "yellow",
    "running": "cyan",
    "waiting": "white",
    "held": "bright_black",
}
_PIPE_SECONDS = 5.0
_BAR_COLUMNS = 40

_Show = Callable[[Counts, bool], None]


class _TellOrShow(click.Command):
    """`progress 40 --of 100` tells, where there is a task to tell it of; all else shows."""

    def make_context(
        self,
        info_name: str | None,
        args: list[str],
        parent: click.Context | None = None,
        **extra: Any,
    ) -> click.Context:
        """That of the command which is meant."""
        in_task = "BANYAN_TASK_ID" in os.environ
        if (in_task and args and is_number(args[0])) or any(_is_total(one) for one in args):
            return tell_progress_command.make_context(info_name, args, parent, **extra)
        return super().make_context(info_name, args, parent, **extra)


def _is_total(argument: str) -> bool:
    return argument == "--of" or argument.startswith("--of=")


@click.command("progress", cls=_TellOrShow)
@with_client()
@selection_options
@click.option("--once", is_flag=True, help="How it is now, and end.")
@as_json
def progress_command(client: Client, chosen: Selection, once: bool, as_json: bool) -> int:
    """Bars by state, until all the tasks have ended; 1 if one of them did not succeed.

    On a terminal they move; in a pipe there is a line now and then, and one at the end.

    Inside a task, with a number, it tells how far that task is (--of N: of how many).

    \b
    Example:
      banyan progress last
      banyan progress 40 --of 100 "epoch 4"
    """
    last: Counts = {}
    while_read(lambda: last.update(_shown(client, chosen, once, _shower(as_json))))
    return EXIT_TASK_FAILED if not once and last["failed"] + last["cancelled"] else EXIT_OK


def _shown(client: Client, chosen: Selection, once: bool, show: _Show) -> Counts:
    """Shows how far they are until they have ended; how it was at last."""
    counts: Counts = {}
    for found in changes(client, chosen.where):
        counts = found or counts
        if not sum(counts.values()):
            raise BanyanError("not_found", "there is no such task")
        over = once or done(counts)
        show(counts, over)
        if over:
            break
    return counts


def _shower(as_json: bool) -> _Show:
    if as_json:
        return lambda counts, over: print_json(counts) if over else None
    return _Bars() if sys.stdout.isatty() else _Lines()


class _Lines:
    """For a pipe: not more often than somebody would read."""

    def __init__(self) -> None:
        self._next = 0.0

    def __call__(self, counts: Counts, over: bool) -> None:
        if over or time.monotonic() >= self._next:
            tell(summary(counts))
            sys.stdout.flush()
            self._next = time.monotonic() + _PIPE_SECONDS


class _Bars:
    """For a terminal: drawn over one another."""

    def __init__(self) -> None:
        self._height = 0

    def __call__(self, counts: Counts, over: bool) -> None:
        lines = [*_bars(counts), summary(counts)]
        up = f"\x1b[{self._height}A" if self._height else ""
        click.echo(up + "".join(f"\x1b[2K{line}\n" for line in lines), nl=False)
        sys.stdout.flush()
        self._height = len(lines)


def _bars(counts: Counts) -> list[str]:
    total = max(1, sum(counts.values()))
    lines = []
    for name, colour in _COLOURS.items():
        width = -(-counts[name] * _BAR_COLUMNS // total)  # one task is seen among a million
        bar = click.style("█" * width, fg=colour) + " " * (_BAR_COLUMNS - width)
        lines.append(f"{name:<10}{bar} {counts[name]:>7} {100 * counts[name] // total:>3}%")
    return lines
