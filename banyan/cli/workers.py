"""`banyan worker list`, `drain` and `remove`: the workers that there are."""

import click

from banyan.cli.asking import assured, yes
from banyan.cli.connection import with_client
from banyan.cli.curl import plain
from banyan.cli.output import as_json, print_json, print_table, quiet
from banyan.client.api import Client
from banyan.errors import BanyanError

_TITLES = ("ID", "HOST", "MODE", "CORES", "MEMORY", "GPUS", "QUEUES", "BEAT")
_workers = click.argument("workers", nargs=-1, required=True, metavar="WORKER...")


@click.command("list")
@with_client()
@as_json
@quiet
def list_command(client: Client, as_json: bool, quiet: bool) -> None:
    """List the workers: what tasks hold of what they have.

    \b
    Example:
      banyan worker list
    """
    from banyan.cli.top import worker_row

    workers = sorted(client.workers(), key=lambda one: (one.get("host", ""), one["_id"]))
    if as_json:
        print_json(workers)
    elif quiet:
        for one in workers:
            click.echo(one["_id"])
    else:
        rows = []
        for one in workers:
            *first, _, beat = worker_row(one, 0)
            rows.append((*first, ",".join(one.get("queues", ())), beat))
        print_table(_TITLES, rows)


@click.command("drain")
@with_client("worker")
@_workers
def drain_command(client: Client, workers: tuple[str, ...]) -> None:
    """Let workers (ids, their beginnings, or hosts) finish what they run, and take nothing new.

    \b
    Example:
      banyan worker drain rack7
    """
    for id in _find(client, workers):
        client.drain_worker(id)


@click.command("remove")
@with_client("worker")
@_workers
@yes
def remove_command(client: Client, workers: tuple[str, ...], yes: bool) -> None:
    """End workers; what they run is given back and runs elsewhere. Several: it asks first.

    \b
    Example:
      banyan worker remove rack7
    """
    ids = _find(client, workers)
    assured(f"Remove {len(ids)} workers?", len(ids), yes)
    for id in ids:
        client.remove_worker(id)


def _find(client: Client, texts: tuple[str, ...]) -> list[str]:
    """The ids that are meant; a host stands for all its workers. Errors: `not_found`, `usage`."""
    known = plain(client).workers()
    found: list[str] = []
    for text in texts:
        at_host = [one["_id"] for one in known if one.get("host") == text]
        begins = [one["_id"] for one in known if len(text) >= 4 and one["_id"].startswith(text)]
        if not at_host and len(begins) > 1:
            raise BanyanError("usage", f"several workers' ids begin with {text}: write more of it")
        if not at_host and not begins:
            raise BanyanError("not_found", f"there is no worker {text}")
        found += at_host or begins
    return list(dict.fromkeys(found))
