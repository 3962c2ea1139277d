"""`banyan worker list`, `drain`, `resume` and `remove`: the workers that there are."""

import base64
import shlex
from pathlib import Path

import click

from banyan.addresses import server_url, socket_in
from banyan.cli.asking import assured, yes
from banyan.cli.completing import complete_workers
from banyan.cli.connection import with_client
from banyan.cli.curl import plain
from banyan.cli.output import as_json, print_json, print_table, quiet, say, tell
from banyan.cli.working import counted
from banyan.client.api import Client
from banyan.errors import BanyanError

_OTHERS = "for others' it takes an operator's token: see 'banyan account create --help'"
# In the home directory: where it is typed, somebody else's file, link or pipe may lie.
_TOKEN_THERE, _CA_THERE = "~/banyan-worker.token", "~/banyan-ca.pem"
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
    from banyan.cli.top import worker_row

    workers = sorted(client.workers(), key=lambda one: (one.get("host", ""), one["_id"]))
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
        print_table(_TITLES, rows, empty="no workers; start one with: banyan worker")


@click.command("drain", short_help="Let workers finish what they run, and take nothing new.")
@with_client("worker")
@_workers
def drain_command(client: Client, workers: tuple[str, ...]) -> None:
    """Let workers (ids, their beginnings, or hosts) finish what they run, and take nothing new.

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


@click.command("remove", short_help="End workers; what they run runs elsewhere.")
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
    assured(f"Remove {counted(len(ids), 'worker')}?", len(ids), yes)
    for id in ids:
        client.remove_worker(id)
    say(f"{counted(len(ids), 'worker')} removed; what was running there runs elsewhere")


@click.command(
    "invite", short_help="Print a command that starts a worker elsewhere, and its token."
)
@with_client("admin")
@click.argument("name")
@click.option("--address", metavar="URL", help="Of this server, as the other machine sees it.")
@click.option(
    "--queue", "queues", multiple=True, metavar="NAME",
    help="A queue that it may serve and see; repeatable. [default: all]",
)  # fmt: skip
def invite_command(client: Client, name: str, address: str | None, queues: tuple[str, ...]) -> None:
    """Create an account for a worker; print the command that starts it elsewhere, and its token.

    The command asks for the token, so that it stays out of the shell's history, and keeps it in
    ~/banyan-worker.token. The token is not shown again. Needs the token of an admin.

    \b
    Example:
      banyan worker invite rack7 --address https://head:5100
    """
    url = address or client.transport.url
    server = None if socket_in(url) else server_url(url)
    ca_file, trust = _trust_there(client.transport.tls_ca)
    serve = "".join(f" --queue {shlex.quote(queue)}" for queue in queues)
    token = client.create_account(name, ["worker"], queues)["token"]
    say("run this on the other machine:")
    click.echo(
        f"(umask 077 && head -n 1 > {_TOKEN_THERE}{ca_file}) && "
        f"banyan worker --url {shlex.quote(url)} --token-file {_TOKEN_THERE}{trust}{serve}"
    )
    say("and type this token when it waits:")
    tell(token)
    if server is None or server.is_loopback:
        there = "give --address, as the other machine sees it"
        say(f"{url} is for this machine alone: {there} ('A second machine' in the README)")


def _trust_there(tls_ca: str) -> tuple[str, str]:
    """What makes the other machine trust whom this one does: a command, and an option."""
    if not tls_ca:
        return "", ""
    encoded = base64.b64encode(Path(tls_ca).read_bytes()).decode()
    return f" && echo {encoded} | base64 -d > {_CA_THERE}", f" --tls-ca {_CA_THERE}"


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
            raise BanyanError("not_found", f"you have no worker {text}; {_OTHERS}")
        found += at_host or begins
    return list(dict.fromkeys(found))
