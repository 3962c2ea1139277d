"""`banyan worker list`, `drain`, `resume` and `remove`: the workers that there are."""

from collections.abc import Sequence

import click

from banyan.cli.asking import assured, yes
from banyan.cli.completing import complete_workers
from banyan.cli.connection import with_client
from banyan.cli.curl import plain
from banyan.cli.output import as_json, print_json, quiet, say, tell
from banyan.cli.tables import print_table
from banyan.client.api import Client, Document
from banyan.domain.units import counted
from banyan.errors import BanyanError

_OTHERS = "for others' it takes an operator's token: see 'banyan account create --help'"
_OF_LOST = (
    "a lost worker was not heard of in time: what it held runs elsewhere. If it comes back it has "
    "another id; 'banyan worker remove ID' takes it off this list"
)
_TITLES = ("ID", "HOST", "MODE", "CORES", "MEMORY", "GPUS", "QUEUES", "BEAT")
_workers = click.argument(
    "workers", nargs=-1, required=True, metavar="WORKER...", shell_complete=complete_workers
)


@click.command("list", short_help="List the workers, and how full they are.")
@with_client()
@as_json
@quiet
def list_command(client: Client, as_json: bool, quiet: bool) -> None:
    """List the workers: what tasks hold of what they have.

    \b
    Example:
      banyan worker list
    """
    from banyan.cli.top import USUAL, in_order, is_gone, worker_row

    workers = in_order(client.workers())
    if as_json:
        print_json(workers)
    elif quiet:
        for one in workers:
            tell(one["_id"])
    else:
        rows = []
        for one in workers:
            *first, _, beat = worker_row(one, 0)
            rows.append((*first, ",".join(one.get("queues", ())), beat))
        print_table(_TITLES, rows, USUAL, empty="no workers; start one with: banyan worker")
        if any(map(is_gone, workers)):
            say(_OF_LOST)


@click.command("drain", short_help="Let workers finish what they run, and take nothing new.")
@with_client("worker")
@_workers
def drain_command(client: Client, workers: tuple[str, ...]) -> None:
    """Let workers finish what they run, and take nothing new.

    \b
    Example:
      banyan worker drain rack7
    """
    ids = _find(client, workers)
    for id in ids:
        client.drain_worker(id)
    them = (
        "it finishes what it runs, and takes"
        if len(ids) == 1
        else "they finish what they run, and take"
    )
    say(f"{counted(len(ids), 'worker')} draining: {them} nothing new until 'banyan worker resume'")


@click.command("resume")
@with_client("worker")
@_workers
def resume_command(client: Client, workers: tuple[str, ...]) -> None:
    """Let drained workers take tasks again.

    \b
    Example:
      banyan worker resume rack7
    """
    ids = _find(client, workers)
    for id in ids:
        client.resume_worker(id)
    say(f"{counted(len(ids), 'worker')} resumed")


@click.command("remove", short_help="Stop workers; their tasks are run elsewhere.")
@with_client("worker")
@_workers
@yes
def remove_command(client: Client, workers: tuple[str, ...], yes: bool) -> None:
    """Stop workers; their tasks are run elsewhere. More than one: it asks first.

    \b
    Example:
      banyan worker remove rack7
    """
    ids = _find(client, workers, gone_too=True)
    assured(f"Remove {counted(len(ids), 'worker')}?", len(ids), yes)
    for id in ids:
        client.remove_worker(id)
    say(f"{counted(len(ids), 'worker')} removed; what was running there runs elsewhere")


def _find(client: Client, texts: tuple[str, ...], gone_too: bool = False) -> list[str]:
    """The ids that are meant; a host stands for all its workers. Errors: `not_found`, `usage`.

    gone_too: those that are lost, too; nobody hears there.
    """
    from banyan.cli.top import is_gone

    known = plain(client).workers()
    found: list[str] = []
    for text in texts:
        meant = _meant(known, text)
        heard = [one["_id"] for one in meant if gone_too or not is_gone(one)]
        if not meant:
            raise BanyanError("not_found", f"you have no worker {text}; {_OTHERS}")
        if not heard:
            raise BanyanError("not_found", f"worker {text} is lost: nothing is heard of it")
        found += heard
    return list(dict.fromkeys(found))


def _meant(known: Sequence[Document], text: str) -> list[Document]:
    """All at a host of this name, or the one whose id begins so."""
    at_host = [one for one in known if one.get("host") == text]
    begins = [one for one in known if len(text) >= 4 and one["_id"].startswith(text)]
    if not at_host and len(begins) > 1:
        raise BanyanError("usage", f"several workers' ids begin with {text}: write more of it")
    return at_host or begins
