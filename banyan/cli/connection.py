"""The options that every command has that talks to a server, and the Client that they give.

Put above a command, the decorator opens the Client and closes it.
"""

import contextlib
import functools
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click

from banyan import ownership, profiles
from banyan.cli.output import say
from banyan.cli.sections import in_sections
from banyan.errors import BanyanError

# A person waits for the answer: a server that restarts is met again, one that is not there
# is told of soon. What waits for tasks is more patient (see banyan.client.holding).
PATIENCE_SECONDS = 3.0
_OF_THE_SERVER = ("url", "token", "token_file", "tls_ca", "profile", "curl")
TLS_CA_HELP = "Whom to trust as the server (PEM). [default: BANYAN_TLS_CA, else of the profile]"


def with_client(role: str = "provider") -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Gives the command a Client as its first argument, with the token for `role`."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        @click.option("--url", help="The server. [default: BANYAN_URL, else of the profile]")
        @click.option("--token", help="A token; others can see it while the command runs.")
        @click.option(
            "--token-file", metavar="FILE", help="A file with the token; -: standard input."
        )
        @click.option("--tls-ca", metavar="FILE", help=TLS_CA_HELP)
        @click.option(
            "--profile", help="A profile. [default: BANYAN_PROFILE, else the default one]"
        )
        @click.option(
            "--curl", is_flag=True, help="Print the request as a curl command; send nothing."
        )
        @functools.wraps(command)
        def connected(
            url: str | None,
            token: str | None,
            token_file: str | None,
            tls_ca: str | None,
            profile: str | None,
            curl: bool,
            **options: Any,
        ) -> Any:
            token = read_token_file(token_file, role) if token_file else token
            with (
                _client(url, token, profile=profile, role=role, tls_ca=tls_ca) as client,
                _answers_told(client.transport.url),
            ):
                if not curl:
                    return command(client, **options)
                _print_requests(client, command, options)
                return None

        _last(connected)
        return connected

    return decorate


@contextlib.contextmanager
def _answers_told(url: str) -> Iterator[None]:
    """What a command cannot read is told in a sentence, as a server may answer anything; and where
    none answers since its stack has ended, that is told, with those that run.
    """
    try:
        yield
    except BanyanError as error:
        ended = profiles.told_of_ended(url) if error.word == "unavailable" else ""
        if not ended:
            raise
        raise BanyanError("unavailable", ended) from error
    except (AttributeError, LookupError, TypeError, ValueError, OverflowError, RecursionError) as e:
        message = (
            f"{url} answered what this command cannot read ({type(e).__name__}: {e!s:.200}): it is "
            "no Banyan server, or of another version, or this is a bug; "
            "BANYAN_LOG_LEVEL=debug shows where"
        )
        raise BanyanError("internal", message) from e


def _last(command: Callable[..., Any]) -> None:
    """What the command is about is listed first in its help, the ways to the server after it."""
    in_sections(command, {"Server": _OF_THE_SERVER})
    listed: list[click.Parameter] = command.__click_params__  # type: ignore[attr-defined]
    own = [one for one in listed if one.name not in _OF_THE_SERVER]  # the last is listed first
    listed[:] = [one for one in listed if one not in own] + own


def _client(url: str | None, token: str | None, **more: Any) -> Any:
    from banyan.client.api import Client

    return Client(url, token, retry_seconds=PATIENCE_SECONDS, **more)


def _print_requests(client: Any, command: Callable[..., Any], options: dict[str, Any]) -> None:
    from banyan.cli.curl import show_requests

    for line in show_requests(client, lambda showing: command(showing, **options)):
        click.echo(line)


def read_token_file(name: str, role: str, quiet: bool = False) -> str:
    """The token in a file ("-": on standard input), for `role` if it is a credentials file.

    Says so (but for quiet) where others can read it: a container's secrets are such files, so it
    is not refused.
    """
    try:
        if name != "-":
            ownership.check_links(Path(name))
        text = sys.stdin.read() if name == "-" else Path(name).read_text()
        told = "" if name == "-" else ownership.told_of_readers(Path(name))
    except (OSError, UnicodeDecodeError) as problem:
        why = problem.strerror if isinstance(problem, OSError) else "it is no text"
        raise BanyanError("usage", f"--token-file {name}: {why}") from None
    if told and not quiet:
        say(told)
    token = profiles.read_token(text, role, name)
    if not token:
        raise BanyanError("usage", f"--token-file {name} is empty")
    return token
