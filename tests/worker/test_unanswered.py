"""A worker tells which claim it has no answer to, so that nobody takes back what that brings."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from banyan.worker import leases
from banyan.worker.claims import Wish
from banyan.worker.connection import Connection
from banyan.worker.mailbox import Claimed, Mailbox
from banyan.worker.registration import Registration
from tests.harness import eventually

WISH = Wish({"cores": 1, "memory": 1}, 1)
ITEM = {
    "_id": "0" * 24, "attempt_id": "1" * 24, "token": "x", "command": "true", "attempt_count": 1,
    "granted_resources": {"cores": 1, "memory_bytes": 1},
}  # fmt: skip


class Slow(ThreadingHTTPServer):
    """A server whose answer to a claim comes when it is let go; it keeps the lists of beats."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.go = threading.Event()
        self.claims: list[str] = []
        self.lists: list[list[str]] = []

    def answer_to(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        if path == "/tasks/claim":
            self.claims.append(body["claim_id"])
            self.go.wait(20)
            return {"_items": [ITEM] if len(self.claims) == 1 else []}
        if "attempts" in body:
            self.lists.append(body["claims"])
        wanted = {"number": 0, "attempts": []}
        return {"lease_seconds": 0.2, "mode": "active", "cancel": [], "lost": [], "wanted": wanted}


class Handler(BaseHTTPRequestHandler):
    """Reads, asks, writes."""

    protocol_version = "HTTP/1.1"
    server: Slow

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        answer = json.dumps(self.server.answer_to(self.path, body)).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: Any) -> None:
        """Silent."""


@pytest.fixture
def server() -> Iterator[Slow]:
    made = Slow()
    threading.Thread(target=made.serve_forever, daemon=True).start()
    yield made
    made.go.set()
    made.shutdown()


def test_it_is_told_until_the_loop_knows_what_it_has_brought(
    server: Slow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "_SECOND_LIST_SECONDS", 0.05)
    mailbox = Mailbox()
    connect = lambda: Connection(server.url, "token", "")  # noqa: E731
    registration = Registration("w", 0.2, connect, mailbox, list, dict)
    try:
        registration.want(WISH)
        eventually(lambda: server.claims and server.lists and server.lists[-1] == server.claims)
        server.go.set()
        eventually(lambda: any(isinstance(one, Claimed) for one in mailbox.take()))
        before = len(server.lists)
        eventually(lambda: len(server.lists) > before + 1)
        assert server.lists[-1] == server.claims[:1], "the loop has not heard of it"
        registration.heard()
        eventually(lambda: registration.want(None) is None and server.lists[-1] == [])
    finally:
        registration.stop()
