"""A server that gives the replies of a list in turn, and keeps what it was asked.

For the trouble that a healthy server cannot be brought to make.
"""

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

import pytest

Reply = tuple[int, dict[str, str], bytes] | None  # None: the connection is cut


class Asked(NamedTuple):
    """One request as it came."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


class Scripted:
    """`replies` are given in turn; the last one again and again."""

    def __init__(self) -> None:
        self.replies: list[Reply] = []
        self.asked: list[Asked] = []
        scripted = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _serve(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                scripted.asked.append(Asked(self.command, self.path, dict(self.headers), body))
                reply = scripted._next()
                if reply is None:
                    self.close_connection = True
                    self.connection.shutdown(socket.SHUT_RDWR)
                    return
                status, headers, content = reply
                self.send_response(status)
                for name, value in {"Content-Length": str(len(content)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_POST = do_PATCH = do_DELETE = _serve

            def log_message(self, *arguments: Any) -> None:
                """Says nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def _next(self) -> Reply:
        return self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]


@contextmanager
def scripted_server() -> Iterator[Scripted]:
    """A Scripted that listens."""
    scripted = Scripted()
    thread = threading.Thread(target=scripted.server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield scripted
    finally:
        scripted.server.shutdown()
        thread.join()
        scripted.server.server_close()


@pytest.fixture
def server() -> Iterator[Scripted]:
    """The same for a test, in the place of the real one."""
    with scripted_server() as scripted:
        yield scripted


def ok(body: Any, **headers: str) -> Reply:
    """200 with JSON."""
    return 200, headers, json.dumps(body).encode()


def error(status: int, word: str, **more: Any) -> Reply:
    """A refusal in Banyan's shape."""
    told = {"code": status, "word": word, "message": f"about {word}"}
    return status, {}, json.dumps({"_status": "ERR", "_error": told, **more}).encode()
