"""`banyan worker invite`: a command that starts a worker on another machine, and its token.

Nothing is made before it is clear that the command can work there: an account that was made for
nothing would keep its name.
"""

import base64
import shlex
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import click

from banyan.addresses import is_loopback, server_url, socket_in
from banyan.cli.connection import with_client
from banyan.cli.curl import plain
from banyan.cli.output import say, tell
from banyan.client.api import Client
from banyan.client.transport import Transport
from banyan.client.trust import context_of
from banyan.errors import BanyanError

# In the home directory: where it is typed, somebody else's file, link or pipe may lie.
_TOKEN_THERE, _CA_THERE = "~/banyan-worker.token", "~/banyan-ca.pem"
_SECONDS = 3.0  # for a connection from this machine to itself
_HTTPS_PORT = 443
_ANYWHERE = ("192.0.2.1", 9)  # an address of nobody (RFC 5737), to which nothing is sent


@click.command(
    "invite", short_help="Print a command that starts a worker elsewhere, and its token."
)
@with_client("admin")
@click.argument("name")
@click.option(
    "--address",
    metavar="URL",
    help="Of this server, as the other machine sees it. [default: as this machine is seen]",
)
@click.option(
    "--queue", "queues", multiple=True, metavar="NAME",
    help="A queue that it may serve and see; repeatable. [default: all]",
)  # fmt: skip
def invite_command(client: Client, name: str, address: str | None, queues: tuple[str, ...]) -> None:
    """Create an account for a worker; print the command that starts it elsewhere, and its token.

    The command asks for the token, so that it stays out of the shell's history, and keeps it in
    ~/banyan-worker.token. The token is not shown again: to invite the same NAME again makes one
    more. Needs the token of an admin.

    \b
    Example:
      banyan worker invite rack7 --address https://head:5100
    """
    url = _checked(client.transport, address) if address else _seen_elsewhere(client.transport)
    ca_file, trust = _trust_there(client.transport.tls_ca)
    serve = "".join(f" --queue {shlex.quote(queue)}" for queue in queues)
    token = _token(client, name, queues)
    say("run this on the other machine:")
    tell(
        f"(umask 077 && head -n 1 > {_TOKEN_THERE}{ca_file}) && "
        f"banyan worker --url {shlex.quote(url)} --token-file {_TOKEN_THERE}{trust}{serve}"
    )
    say("and type this token when it waits:")
    tell(token)
    say("as root there, add --run-as USER: whose processes the tasks are to be")
    if is_loopback(server_url(url).host):
        say(f"{url} leads back to the machine on which it is used: there it takes a tunnel")


def _token(client: Client, name: str, queues: tuple[str, ...]) -> str:
    """Of a new account, or one more of a worker's. Errors: `already_exists` for any other."""
    known = next((one for one in plain(client).accounts() if one.get("name") == name), None)
    if known is None:
        return str(client.create_account(name, ["worker"], queues)["token"])
    if known.get("roles") != ["worker"] or sorted(known.get("queues") or ()) != sorted(queues):
        message = f"there is another account {name!r}, with other roles or queues: say another name"
        raise BanyanError("already_exists", message)
    say(f"{name} was invited before: this is one more token, and earlier ones stay as they are")
    return str(client.issue_token(known["_id"])["token"])


def _checked(transport: Transport, address: str) -> str:
    """Errors: `usage` for what is no URL, and where the server's certificate is not for it."""
    host = server_url(address).host
    names = _names_of(transport) if address.lower().startswith("https:") else []
    if names and not any(_is_for(name, host) for name in names):
        message = f"the server's certificate is not for {host}, and no worker would trust it there"
        told = f"it is for {', '.join(names)}"
        raise BanyanError("usage", f"{message}: {told}; use one of these, or make one for {host}")
    return address


def _seen_elsewhere(transport: Transport) -> str:
    """The server's URL, with an address that others can use. Errors: `usage`: there is none."""
    url = transport.url
    if not socket_in(url) and not is_loopback(server_url(url).host):
        return url
    parts = urlsplit(url)
    port = parts.port or _HTTPS_PORT
    names = [name for name in _names_of(transport) if "*" not in name and not is_loopback(name)]
    found = [name for name in names if _listens(name, port)]
    if not found:
        message = f"{url} is for this machine alone: let the server listen beyond it (see 'A second"
        message += " machine' in the README), or say --address, as the other machine sees it"
        raise BanyanError("usage", message)
    own = _own_address()
    best = own if own in found else found[0]
    others = [name for name in names if name != best]
    if others:
        say(f"if the other machine does not reach {best}, say --address https://NAME:{port}, with")
        say(f"  one of the certificate's other names: {', '.join(others)}")
    return f"https://[{best}]:{port}" if ":" in best else f"https://{best}:{port}"


def _names_of(transport: Transport) -> list[str]:
    """Whom the server's certificate is for; none where it has none, or can't be asked."""
    parts = urlsplit(transport.url)
    if parts.scheme != "https" or not parts.hostname:
        return []
    context = context_of(transport.tls_ca) if transport.tls_ca else ssl.create_default_context()
    context.check_hostname = False  # it is only read: whether it is for an address is asked here
    place = (parts.hostname, parts.port or _HTTPS_PORT)
    try:
        with (
            socket.create_connection(place, _SECONDS) as connection,
            context.wrap_socket(connection, server_hostname=parts.hostname) as secured,
        ):
            told = secured.getpeercert() or {}
    except OSError:
        return []
    return list(_alternatives(told))


def _alternatives(certificate: object) -> Iterator[str]:
    from ipaddress import ip_address

    for kind, name in dict(certificate).get("subjectAltName", ()):  # type: ignore[call-overload]
        if kind in ("DNS", "IP Address"):
            yield str(ip_address(name)) if kind == "IP Address" else name.lower()


def _is_for(name: str, host: str) -> bool:
    return name == host or (name.startswith("*.") and host.partition(".")[2] == name[2:])


def _listens(name: str, port: int) -> bool:
    """Whether the server is reached by this name, from a machine that is not this one."""
    try:
        with socket.create_connection((name, port), _SECONDS) as connection:
            return not is_loopback(connection.getpeername()[0])
    except OSError:
        return False


def _own_address() -> str:
    """From where this machine speaks to the world."""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_way:
            any_way.connect(_ANYWHERE)
            return str(any_way.getsockname()[0])
    except OSError:
        return ""


def _trust_there(tls_ca: str) -> tuple[str, str]:
    """What makes the other machine trust whom this one does: a command, and an option."""
    if not tls_ca:
        return "", ""
    encoded = base64.b64encode(Path(tls_ca).read_bytes()).decode()
    return f" && echo {encoded} | base64 -d > {_CA_THERE}", f" --tls-ca {_CA_THERE}"
