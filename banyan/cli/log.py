"""`banyan log`: what tasks have written."""

import sys
from contextlib import nullcontext

import click

from banyan.cli.connection import with_client
from banyan.cli.following import follow_to_here, write
from banyan.cli.output import say
from banyan.cli.patience import told_why_it_waits
from banyan.cli.selecting import Selection, selection_options
from banyan.cli.streams import while_read
from banyan.cli.verdict import standing
from banyan.cli.working import Working
from banyan.client.api import Client
from banyan.errors import BanyanError
from banyan.printable import harmless

_LOST = "output lost"  # so a worker says it


@click.command("log")
@with_client()
@selection_options
@click.option("-f", "--follow", is_flag=True, help="Go on as it comes, until the task has ended.")
@click.option("--attempt", type=click.IntRange(min=1), help="Which one. [default: the last]")
@click.option("--stream", type=click.Choice(["stdout", "stderr"]), help="Only this one.")
@click.option("--tail", type=click.IntRange(min=1), metavar="N", help="Only the last N lines.")
@click.option(
    "--no-titles", is_flag=True, help="Of several tasks: their output alone, without titles."
)
@click.option("--raw", is_flag=True, help="Let control characters through to the terminal.")
def log_command(
    client: Client,
    chosen: Selection,
    follow: bool,
    attempt: int | None,
    stream: str | None,
    tail: int | None,
    no_titles: bool,
    raw: bool,
) -> None:
    """What a task has written, both streams in the order in which it came.

    In a pipe the bytes are those that the task wrote. With -f each stream goes to one of its
    own, where this command has two. Of an array, a name or a tag the oldest task comes first,
    with a title; with --no-titles a last line that has no end gets one.

    \b
    Example:
      banyan log -f last
      banyan log --state failed --tag sweep=7 --tail 20
      banyan log --no-titles --stream stdout @6740a1b2c3d4e5f60718293a > all.csv
    """
    ids = chosen.find_ids(client)
    if follow and (len(ids) > 1 or tail):
        raise BanyanError("usage", "-f follows one task, from its beginning")
    if follow:
        _follow(client, ids[0], attempt, stream, raw)
        return
    titled = chosen.broad and not no_titles
    with Working("reading output", len(ids)) if not sys.stdout.isatty() else nullcontext() as work:
        for place, id in enumerate(ids):
            if titled:
                _title(client, id, first=place == 0)
            output = _output(client, id, attempt, stream, several=len(ids) > 1)
            shown = _last_lines(output, tail) if tail else output
            is_cut = no_titles and len(ids) > 1 and shown and not shown.endswith(b"\n")
            write([shown, b"\n" if is_cut else b""], 1, raw)
            _tell_of_lack(client, id, nothing=not output and stream is None)
            if work:
                work(place + 1)


def _follow(client: Client, id: str, attempt: int | None, stream: str | None, raw: bool) -> None:
    with told_why_it_waits(client, id):
        if attempt is None and stream is None:
            follow_to_here(client.transport, id, raw)
        else:
            pieces = client.follow(id, attempt=attempt, stream=stream)
            while_read(lambda: write(pieces, 1, raw))
    _tell_of_lack(client, id)


def _output(
    client: Client, id: str, attempt: int | None, stream: str | None, several: bool
) -> bytes:
    """Of several tasks one whose output is gone is told of, and hides no other's."""
    try:
        return client.log(id, attempt=attempt, stream=stream)
    except BanyanError as error:
        if not several or error.word != "not_found":
            raise
        say(f"banyan: {error.message}")
        return b""


def _tell_of_lack(client: Client, id: str, nothing: bool = False) -> None:
    """A log that lacks its end looks like a whole one; a task that could not begin has none."""
    task = client.get(id)
    reason = harmless(task.get("reason") or "")
    if nothing and reason and task.get("outcome") not in (None, "success"):
        say(f"banyan: task {id} has written nothing: {reason}")
    elif _LOST in reason:
        say(f"banyan: task {id}: {reason}")


def _title(client: Client, id: str, first: bool) -> None:
    task = client.get(id)
    told = " ".join(filter(None, (id, task.get("name"), standing(task))))
    index = (task.get("env") or {}).get("BANYAN_ARRAY_INDEX")
    number = f" [{index}]" if index else ""
    click.echo(f"{'' if first else chr(10)}==> {harmless(told + number)} <==")
    sys.stdout.flush()


def _last_lines(output: bytes, count: int) -> bytes:
    return b"".join(output.splitlines(keepends=True)[-count:])
