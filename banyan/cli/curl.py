"""`--curl`: a command's own requests printed as curl commands instead of being sent.

`with_client` gives the command a CurlClient; what the command looks up on the way (which task
`last` is) goes through `plain`, and is really asked. The token is never printed: the shell
puts it in from `BANYAN_TOKEN`, by a pipe, as everybody can read what a program is called with.
"""

import contextlib
import io
import json
import os
import shlex
from collections.abc import Callable
from typing import Any, Unpack

from banyan.cli.output import json_text
from banyan.client.api import Client
from banyan.client.transport import Answer, Options, Transport
from banyan.socket_paths import PATH_BYTES_MAX

_AUTHORIZATION = 'echo "Authorization: Bearer $BANYAN_TOKEN"'  # no program: a shell's own


class Shown(Exception):
    """The command needs an answer to go on: there is nothing more to show."""


class CurlTransport(Transport):
    """Writes down what it is asked; a read ends the command, a write is answered as if done."""

    def __init__(self, real: Transport) -> None:
        super().__init__(real.url, tls_ca=real.tls_ca, socket=real.socket)
        self.lines: list[str] = []

    def clone(self) -> Transport:
        """Itself: nothing is sent, so threads cannot disturb each other."""
        return self

    def ask(self, method: str, path: str, **options: Unpack[Options]) -> Answer:
        """Keeps the request as a line for the shell."""
        sending = self._prepare(method, path, options)
        words = ["curl"] if method == "GET" else ["curl", "-X", method]
        place, name = self._socket_for_curl()
        if name:
            words += ["--unix-socket", shlex.quote(name)]
        elif self.tls_ca:
            words += ["--cacert", shlex.quote(self.tls_ca)]
        if not self.uses_proxies:  # else curl would hand the token to one that the shell names
            words += ["--noproxy", "'*'"]
        line = [_AUTHORIZATION, "|", *words, "-H", "@-"]
        for name in ("Content-Type", "Prefer"):
            if name in sending.headers:
                line += ["-H", shlex.quote(f"{name}: {sending.headers[name]}")]
        if sending.body is not None:
            line += ["-d", shlex.quote(_text(sending.body))]
        text = " ".join([*line, shlex.quote(str(sending.url))])
        self.lines.append(f"(cd {shlex.quote(place)} && {text})" if place else text)
        if method == "GET":
            raise Shown
        return Answer(200, _as_if_done(options.get("json")))

    def _socket_for_curl(self) -> tuple[str, str]:
        """(the directory to go to, the socket's name there); curl knows no way for long paths."""
        if not self.socket or len(os.fsencode(self.socket)) <= PATH_BYTES_MAX:
            return "", self.socket or ""
        return os.path.split(self.socket)


class CurlClient(Client):
    """A Client that shows its requests; `plain` is the one that sends them."""

    def __init__(self, plain: Client) -> None:
        self.plain = plain
        self.showing = CurlTransport(plain.transport)
        self.transport = self.showing


def plain(client: Client) -> Client:
    """The Client for what must be looked up in any case."""
    return client.plain if isinstance(client, CurlClient) else client


def show_requests(client: Client, command: Callable[[Client], Any]) -> list[str]:
    """Runs the command without sending or printing anything; its requests."""
    showing = CurlClient(client)
    silence = io.StringIO()
    with (
        contextlib.suppress(Shown),
        contextlib.redirect_stdout(silence),
        contextlib.redirect_stderr(silence),
    ):
        command(showing)
    return showing.showing.lines


def _as_if_done(sent: Any) -> Any:
    if isinstance(sent, list):
        return {"_status": "OK", "_items": [{**item, "_status": "OK"} for item in sent]}
    return {"_status": "OK", "_id": "ID", "token": "TOKEN", **(sent or {})}


def _text(body: Any) -> str:
    text = body.decode() if isinstance(body, bytes) else str(body)
    return json_text(json.loads(text))
