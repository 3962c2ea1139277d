"""`banyan worker`: one more worker, for a server here or elsewhere; what it leads to.

It only reads the command line; `banyan.worker.agent` does the work.
"""

import importlib.util
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from banyan import profiles
from banyan.addresses import server_url, socket_in
from banyan.cli.connection import TLS_CA_HELP
from banyan.cli.inviting import invite_command
from banyan.cli.logging_option import log_format
from banyan.cli.owner import owner_options, with_owner_options
from banyan.cli.words import amounts, duration_seconds, host, pairs, size_bytes
from banyan.cli.workers import drain_command, list_command, remove_command, resume_command
from banyan.errors import EXIT_OK, BanyanError
from banyan.profiles import Credentials

if TYPE_CHECKING:
    from banyan.worker.options import Options


@click.group("worker", invoke_without_command=True)
@click.option("--url", help="The server. [default: of the profile]")
@click.option(
    "--token-file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="A worker's token, or the credentials file of 'banyan up'. [default: of the profile]",
)
@click.option("--tls-ca", metavar="FILE", help=TLS_CA_HELP)
@click.option(
    "--socket",
    type=click.Path(dir_okay=False),
    help="The unix socket of a server here, for the worker itself. [default: of the profile]",
)
@click.option("--profile", help="Which profile, where URL and token are left out.")
@click.option("--cores", type=float, metavar="N", help="Cores to give. [default: all]")
@click.option("--memory", metavar="SIZE", help="Memory to give: 8G. [default: all]")
@click.option(
    "--gpus", type=click.IntRange(min=0), metavar="N", help="GPUs to give; 0: tasks see none."
)
@click.option("--disk", metavar="SIZE", help="Disk space to give. [default: without limit]")
@click.option("--custom", multiple=True, metavar="NAME=N", help="Another counted thing.")
@click.option("--queue", multiple=True, metavar="NAME", help="Queue to serve. [default: default]")
@click.option("--label", multiple=True, metavar="KEY=VALUE", help="What it offers to tasks.")
@click.option("--host", help="Name to register under. [default: of the machine]")
@click.option(
    "--state-directory",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where it keeps what the next worker here takes over.",
)
@click.option(
    "--shutdown",
    metavar="TIME",
    default="5s",
    show_default=True,
    help="What tasks get to end in, at the second SIGTERM.",
)
@click.option(
    "--time-limit",
    metavar="TIME",
    help="End after this; take only what says that it ends before, give back what does not.",
)
@click.option("--idle-limit", metavar="TIME", help="End after this time with nothing to do.")
@click.option("--ready-fd", type=int, hidden=True)  # what `banyan up` waits for
@with_owner_options
@log_format
@click.option(
    "--standalone",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Run the tasks of a file (JSON lines) to their ends, without a server.",
)
@click.option(
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Where those tasks write, and what has succeeded is kept. [default: FILE.d]",
)
@click.pass_context
def worker_command(
    context: click.Context,
    /,
    url: str | None,
    token_file: Path | None,
    tls_ca: str | None,
    socket: str | None,
    profile: str | None,
    **given: Any,
) -> int:
    """Claims tasks that fit on this machine and runs them, until it is told to end.

    With --standalone it asks no server, and ends with 1 where a task failed; called again, it
    skips what has succeeded.

    The first SIGTERM or Ctrl-C lets running tasks finish and takes no new ones; the second
    ends them.

    \b
    Example:
      banyan worker --url https://head:5100 --token-file worker.token --cores 4 --queue night
      banyan worker --standalone tasks.jsonl --cores 8
    """
    if context.invoked_subcommand is not None:
        return EXIT_OK
    if importlib.util.find_spec("psutil") is None:
        message = "the worker's parts are not installed: pip install 'banyan[worker]'"
        raise BanyanError("usage", message)
    if given["standalone"]:
        from banyan.worker.standalone import run

        return run.main(
            _options(Credentials("", Path()), given), given["standalone"], given["output"]
        )
    server = _server(url, token_file, socket, profile)
    from banyan.worker import agent

    return agent.main(_options(server, given, profiles.find_tls_ca(server.url, tls_ca, profile)))


for _command in (list_command, invite_command, drain_command, resume_command, remove_command):
    worker_command.add_command(_command)


def _server(
    url: str | None, token_file: Path | None, socket: str | None, profile: str | None
) -> Credentials:
    """Which server, and how: said, or of a profile. Errors: `usage`."""
    if url is None or token_file is None:
        url, token_file, known = profiles.find_credentials(url, token_file, profile)
        socket = socket or known
    if socket_in(url):
        message = "tasks ask by http: give that address with --url, and the socket with --socket"
        raise BanyanError("usage", message)
    server_url(url)  # else nothing is begun
    if not token_file.is_file():
        raise BanyanError("usage", f"there is no file {token_file}: give one with --token-file")
    return Credentials(url, token_file.absolute(), os.path.abspath(socket) if socket else "")


def _options(server: Credentials, given: Mapping[str, Any], tls_ca: str = "") -> "Options":
    from banyan.worker.options import Options

    return Options(
        url=server.url,
        token_file=server.file,
        tls_ca=tls_ca,
        socket=server.socket,
        state_directory=given["state_directory"],
        cores=given["cores"],
        memory_bytes=given["memory"] and size_bytes(given["memory"], "--memory"),
        gpu_count=given["gpus"],
        disk_bytes=given["disk"] and size_bytes(given["disk"], "--disk"),
        custom=amounts(given["custom"], "--custom"),
        queues=given["queue"] or ("default",),
        labels=pairs(given["label"], "--label"),
        host=given["host"] and host(given["host"]),
        shutdown_seconds=duration_seconds(given["shutdown"], "--shutdown"),
        time_limit_seconds=_seconds(given["time_limit"], "--time-limit"),
        idle_limit_seconds=_seconds(given["idle_limit"], "--idle-limit"),
        ready_fd=given["ready_fd"],
        **owner_options(given),
    )


def _seconds(text: str | None, option: str) -> float | None:
    return None if text is None else duration_seconds(text, option)
