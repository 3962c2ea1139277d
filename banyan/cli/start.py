"""`banyan up` and `banyan server`: the stack on this machine, or the server alone.

They only read the command line; `banyan.server.supervisor` does the work.
"""

import functools
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from banyan.cli.logging_option import log_format
from banyan.cli.owner import owner_arguments, with_owner_options
from banyan.cli.words import amounts, pairs, size_bytes
from banyan.config import data_directory, knobs
from banyan.errors import BanyanError

_NEEDED = ("eve", "pymongo", "uvicorn", "cryptography")
_FILE = click.Path(dir_okay=False, path_type=Path)


def _tls_options(command: Callable[..., int]) -> Callable[..., int]:
    """Those that say how it answers https."""
    for option in (
        click.option("--tls-key", type=_FILE, help="The key of that certificate."),
        click.option("--tls-cert", type=_FILE, help="Answer https with this certificate (PEM)."),
        click.option(
            "--tls",
            type=click.Choice(["auto"]),
            help="auto: answer https with a certificate that it makes itself.",
        ),
    ):
        command = option(command)
    return command


def _server_options(command: Callable[..., int]) -> Callable[..., int]:
    """The options that both commands have."""

    @click.option(
        "--json", "as_json", is_flag=True, help='Print {"url", "credentials"} when ready.'
    )
    @click.option(
        "--data",
        type=click.Path(file_okay=False, path_type=Path),
        help="Directory of the database and the tokens. [default: ~/.local/share/banyan]",
    )
    @click.option("--mongo", metavar="URI", help="An existing MongoDB instead of a private one.")
    @click.option("--host", help="Address to listen on. [default: 127.0.0.1]")
    @click.option(
        "--port",
        type=click.IntRange(0, 65535),
        metavar="N",
        help="0: any free one. [default: 5100]",
    )
    @_tls_options
    @click.option(
        "--behind-proxy",
        is_flag=True,
        help="A proxy ends TLS in front of it; its X-Forwarded-For is believed.",
    )
    @log_format
    @click.option(
        "--processes",
        type=click.IntRange(1, 64),
        metavar="N",
        help="Server processes. [default: 1]",
    )
    @functools.wraps(command)
    def with_options(**options: Any) -> int:
        return command(**options)

    return with_options


@click.command("up")
@_server_options
@click.option("--no-worker", is_flag=True, help="Start no worker.")
@click.option("--cores", metavar="N", help="Cores that the worker gives. [default: all]")
@click.option("--memory", metavar="SIZE", help="Memory that it gives: 8G. [default: all]")
@click.option("--gpus", metavar="N", help="GPUs that it gives. [default: all]")
@click.option("--disk", metavar="SIZE", help="Disk space that it gives. [default: without limit]")
@click.option("--custom", multiple=True, metavar="NAME=N", help="Another counted thing it has.")
@click.option("--queue", multiple=True, metavar="NAME", help="Queue that it serves; repeatable.")
@click.option("--label", multiple=True, metavar="KEY=VALUE", help="What it offers; repeatable.")
@with_owner_options
def up_command(
    no_worker: bool,
    cores: str | None,
    memory: str | None,
    gpus: str | None,
    disk: str | None,
    custom: tuple[str, ...],
    queue: tuple[str, ...],
    label: tuple[str, ...],
    **given: Any,
) -> int:
    """Server, private MongoDB and one worker, all on this machine, until SIGTERM or Ctrl-C.

    The server becomes the profile "local", so that the other commands find it. A second
    start on the same data directory goes on where the first one ended.

    \b
    Example:
      banyan up --port 0 --cores 2 --memory 4G
      banyan up --host 0.0.0.0 --tls auto
    """
    worker = owner_arguments(given)
    amounts(custom, "--custom")
    pairs(label, "--label")
    sizes = {"--memory": memory, "--disk": disk}
    for name, value in sizes.items():
        if value is not None:
            size_bytes(value, name)  # told at once, not by a worker that ends
    for name, value in {"--cores": cores, "--gpus": gpus, **sizes}.items():
        worker += [name, value] if value is not None else []
    for name, values in {"--custom": custom, "--queue": queue, "--label": label}.items():
        worker += [part for value in values for part in (name, value)]
    return _serve(with_worker=not no_worker, worker_options=worker, **given)


@click.command("server")
@_server_options
def server_command(**server: Any) -> int:
    """The server alone, until SIGTERM or Ctrl-C.

    \b
    Example:
      banyan server --host 0.0.0.0 --tls auto --processes 4
      banyan server --host 0.0.0.0 --tls-cert head.pem --tls-key head.key --processes 4
    """
    return _serve(with_worker=False, worker_options=[], **server)


def _serve(
    *,
    as_json: bool,
    data: Path | None,
    mongo: str | None,
    host: str | None,
    port: int | None,
    tls: str | None,
    tls_cert: Path | None,
    tls_key: Path | None,
    behind_proxy: bool,
    processes: int | None,
    with_worker: bool,
    worker_options: list[str],
) -> int:
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        message = f"the server's parts are not installed ({', '.join(missing)} is missing): "
        raise BanyanError("usage", f"{message}pip install 'banyan[server,worker,embedded]'")
    from banyan.server import exposure, supervisor

    given = exposure.pair(tls_cert, tls_key)
    if tls and given:
        raise BanyanError("usage", "--tls auto makes a certificate: leave --tls-cert and --tls-key")
    return supervisor.run(
        supervisor.Options(
            data=(data or data_directory()).absolute(),
            mongo_uri=mongo or knobs().MONGO_URI or None,
            host=host or knobs().HOST,
            port=knobs().PORT if port is None else port,
            processes=processes or knobs().SERVER_PROCESSES,
            tls=given,
            tls_auto=tls is not None,
            behind_proxy=behind_proxy,
            with_worker=with_worker,
            json_line=as_json,
            worker_options=worker_options,
        )
    )
