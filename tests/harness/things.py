"""A small WSGI application: tells what it was sent, fails on demand, has one thing that changes."""

import json
import threading
from collections.abc import Callable, Iterable
from typing import Any

from pymongo.errors import ServerSelectionTimeoutError

from banyan.errors import BanyanError

_JSON = [("Content-Type", "application/json")]
_TOLD = ("REQUEST_METHOD", "PATH_INFO", "QUERY_STRING", "CONTENT_LENGTH", "CONTENT_TYPE")
_Start = Callable[..., Any]


class Things:
    """`version` is the thing that changes; `asked` counts the requests."""

    def __init__(self) -> None:
        self.version = 0
        self.asked = 0
        self.topics = "task:1"
        self.lock = threading.Lock()
        self.go_on = threading.Event()

    def __call__(self, environ: dict[str, Any], start: _Start) -> Iterable[bytes]:
        with self.lock:
            self.asked += 1
        name = environ["PATH_INFO"].strip("/")
        method: Callable[..., Iterable[bytes]] = getattr(self, f"serve_{name}", self.serve_echo)
        return method(environ, start)

    def serve_echo(self, environ: dict[str, Any], start: _Start) -> Iterable[bytes]:
        told = {name: environ.get(name) for name in _TOLD}
        told |= {name: value for name, value in environ.items() if name.startswith("HTTP_")}
        told["body"] = environ["wsgi.input"].read().decode("latin-1")
        body = json.dumps(told).encode()
        start("200 OK", [*_JSON, ("Content-Length", str(len(body)))])
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]

    def serve_thing(self, environ: dict[str, Any], start: _Start) -> Iterable[bytes]:
        since = int(environ["QUERY_STRING"] or 0)
        headers = [*_JSON] if self.version > since else [*_JSON, ("Banyan-Wait", self.topics)]
        start("200 OK", headers)
        return [json.dumps(self.version).encode()]

    def serve_stuck(self, environ: dict[str, Any], start: _Start) -> Iterable[bytes]:
        self.go_on.wait(60)
        return self.serve_echo(environ, start)

    def serve_same(self, environ: dict[str, Any], start: _Start) -> Iterable[bytes]:
        start("304 NOT MODIFIED", [("ETag", '"x"'), ("Content-Length", "7")])
        return []

    def serve_bug(self, environ: dict[str, Any], start: _Start) -> Iterable[bytes]:
        raise ZeroDivisionError("secret detail")

    def serve_late(self, environ: dict[str, Any], start: _Start) -> Iterable[bytes]:
        start("200 OK", _JSON)
        yield b"half an answer"
        raise ZeroDivisionError("secret detail")

    def serve_away(self, environ: dict[str, Any], start: _Start) -> Iterable[bytes]:
        raise ServerSelectionTimeoutError("no primary at 10.0.0.1")

    def serve_refuse(self, environ: dict[str, Any], start: _Start) -> Iterable[bytes]:
        raise BanyanError("lease_lost", "not yours any more")
