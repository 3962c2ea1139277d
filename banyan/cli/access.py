"""`banyan login` and `banyan account`: which server, and who may use it."""

import os
import re

import click

from banyan import profiles
from banyan.addresses import server_url, socket_in
from banyan.cli.connection import read_token_file, with_client
from banyan.cli.curl import plain
from banyan.cli.output import age, as_json, column, print_json, quiet, say, tell
from banyan.cli.tables import print_table
from banyan.client.api import Client, Document
from banyan.errors import BanyanError


@click.command("login")
@click.argument("url")
@click.option(
    "--token-file",
    metavar="FILE",
    help="The token's file, or a credentials file; -: standard input. [default: it is asked for]",
)
@click.option("--tls-ca", metavar="FILE", help="Whom to trust as the server (PEM); is kept.")
@click.option("--name", default="", help="Of the profile. [default: the server's host name]")
def login_command(url: str, token_file: str | None, tls_ca: str | None, name: str) -> None:
    """Remember a server and a token as the profile that other commands use.

    The token is tried first. It is kept in ~/.config/banyan/config.toml, readable by you
    alone; of a credentials file (as 'banyan up' writes it) only the place is kept.

    \b
    Example:
      banyan login https://head:5100 --token-file my.token
    """
    if not socket_in(url):
        server_url(url)  # else nothing is asked for
    if token_file is None:
        token: str = click.prompt("Token", hide_input=True, err=True).strip()
    else:
        token = read_token_file(token_file, "provider")
    with Client(url, token, retry_seconds=3.0, tls_ca=tls_ca) as client:
        client.transport.request("GET", "/")
        trusted = client.transport.tls_ca
    name = name or re.sub(r"[^A-Za-z0-9_-]", "-", url.split("//")[-1].split(":")[0].strip("/"))
    profiles.remember_login(name, _profile(url, token, token_file, trusted))
    say(f"{url} is the default now, as profile {name}")


def _profile(url: str, token: str, token_file: str | None, tls_ca: str) -> profiles.Profile:
    from pathlib import Path

    text = Path(token_file).read_text("utf-8-sig") if token_file not in (None, "-") else ""
    if text.lstrip().startswith("{"):
        credentials = str(Path(str(token_file)).absolute())
        return profiles.Profile(url, credentials=credentials, tls_ca=tls_ca)
    return profiles.Profile(url, token=token, tls_ca=tls_ca)


@click.group("account")
def account_command() -> None:
    """Create, list and revoke accounts; needs the token of an admin."""


@account_command.command("create")
@with_client("admin")
@click.argument("name")
@click.option(
    "--role",
    "roles",
    multiple=True,
    required=True,
    type=click.Choice(list(profiles.ROLES)),
    help="What it may do; repeatable.",
)
@click.option(
    "--queue", "queues", multiple=True, metavar="NAME",
    help="A queue that its workers may serve and see; repeatable. [default: all]",
)  # fmt: skip
@as_json
def create_command(
    client: Client, name: str, roles: tuple[str, ...], queues: tuple[str, ...], as_json: bool
) -> None:
    """Create an account and print its token, which is shown this once.

    \b
    Example:
      banyan account create alice --role provider
      (umask 077; banyan account create rack7 --role worker > worker.token)
    """
    try:
        created = client.create_account(name, roles, queues)
    except BanyanError as error:
        if error.word == "already_exists":
            message = f"there is an account {name!r} already: 'banyan account issue {name}' prints"
            raise BanyanError(error.word, f"{message} one more token of it") from None
        raise
    if as_json:
        print_json(created)
        return
    tell(created["token"])
    say(f"account {created['_id']} ({name}); its token is not shown again")
    if {"provider", "operator"} & set(roles):
        _warn_of_own_worker(client.transport.socket)


def _warn_of_own_worker(socket: str) -> None:
    """Who may submit to a worker may read what its user may: here, tokens of every role."""
    data = os.path.dirname(socket)
    if socket and os.path.exists(os.path.join(data, "worker.token")):
        as_whom = "tasks of 'banyan up' run as its own user, unless it was given --run-as USER"
        say(f"{as_whom}: whoever may submit can then read {data}, the admin's token too")


@account_command.command("list")
@with_client("admin")
@as_json
@quiet
def list_command(client: Client, as_json: bool, quiet: bool) -> None:
    """List the accounts.

    \b
    Example:
      banyan account list
    """
    accounts = client.accounts()
    if as_json:
        print_json(accounts)
    elif quiet:
        for account in accounts:
            tell(account["_id"])
    else:
        rows = [
            (account["_id"], column(account, "name"), column(account, "roles", ", ".join),
             "revoked" if account.get("revoked") else "", age(account.get("_created")))
            for account in accounts
        ]  # fmt: skip
        print_table(("ID", "NAME", "ROLES", "STATE", "AGE"), rows, whole=["NAME"])


@account_command.command("issue")
@with_client("admin")
@click.argument("account")
def issue_command(client: Client, account: str) -> None:
    """Print one more token of an account, also of a revoked one.

    \b
    Example:
      banyan account issue alice
    """
    tell(client.issue_token(_find(client, account)["_id"])["token"])
    say("one more token of this account; it is not shown again")


@account_command.command("revoke")
@with_client("admin")
@click.argument("account")
def revoke_command(client: Client, account: str) -> None:
    """Make all tokens of an account worthless.

    Its workers are removed, and what they hold runs elsewhere. Its tasks go on, but can submit
    nothing more.

    \b
    Example:
      banyan account revoke rack7
    """
    known = _find(client, account)
    revoked, name = client.revoke_account(known["_id"]), known.get("name")
    say(f"account {name} is revoked: none of its tokens is worth anything")
    if count := revoked.get("open_task_count"):
        say(f"{count} of its tasks have not ended, and go on until an operator cancels them:")
        say(f"  banyan cancel --owner {name}")


def _find(client: Client, account: str) -> Document:
    """The account that is meant by an id or a name. Errors: `not_found`, `usage`."""
    known = plain(client).accounts()
    found = [one for one in known if account in (one["_id"], one.get("name"))]
    if not found:
        raise BanyanError("not_found", f"there is no account {account!r}")
    if len(found) > 1:
        raise BanyanError("usage", f"several accounts are named {account!r}: give the id")
    return found[0]
