"""One who keeps the server busy: others are answered, and leases are kept alive."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from banyan.errors import BanyanError
from banyan.server import asgi
from banyan.server.store import edges
from tests.harness import Server, eventually
from tests.harness.asgi import Served, served
from tests.harness.things import Things

THREADS = 4
ACCOUNTS = {f"Bearer {token}": token[0] for token in ("a1", "a2", "a3", "b1")}


@pytest.fixture
def things() -> Iterator[Things]:
    made = Things()
    yield made
    made.go_on.set()


@pytest.fixture
def server(things: Things) -> Iterator[Served]:
    with served(things, THREADS, account_of=ACCOUNTS.get) as running:
        yield running
        things.go_on.set()


def connected(server: Served, stack: ExitStack, request: str) -> socket.socket:
    connection = stack.enter_context(socket.create_connection(("127.0.0.1", server.port), 30))
    connection.sendall(request.encode())
    return connection


def asking(path: str, token: str, method: str = "GET", more: str = "") -> str:
    told = f"Authorization: Bearer {token}\r\n" if token else ""
    return f"{method} {path} HTTP/1.1\r\nHost: x\r\n{told}{more}\r\n"


def status_of(connection: socket.socket) -> int:
    return int(connection.recv(65536).split()[1])


def make_known(server: Served, stack: ExitStack) -> None:
    for header in ACCOUNTS:
        assert status_of(connected(server, stack, asking("/x", header.split()[1]))) == 200


@pytest.mark.parametrize("tokens", [["a1"], ["a1", "a2", "a3"], ["", "never", "seen"]])
def test_whoever_sends_most_leaves_threads_to_others(
    server: Served, things: Things, tokens: list[str]
) -> None:
    with ExitStack() as stack:
        make_known(server, stack)
        before = things.asked
        stuck = [
            connected(server, stack, asking("/stuck", token)) for token in tokens for _ in range(10)
        ]
        eventually(lambda: things.asked - before == THREADS // 2)
        for _ in range(3):
            assert status_of(connected(server, stack, asking("/x", "b1"))) == 200
        assert things.asked - before == THREADS // 2 + 3
        things.go_on.set()
        assert {status_of(connection) for connection in stuck} == {200}


def test_beats_have_threads_of_their_own(server: Served, things: Things) -> None:
    with ExitStack() as stack:
        make_known(server, stack)
        before = things.asked
        for token in ("a1", "b1", "never"):
            for _ in range(10):
                connected(server, stack, asking("/stuck", token))
        eventually(lambda: things.asked - before == THREADS)
        beat = asking("/workers/w/beat", "a1", "POST", "Content-Length: 0\r\n")
        assert status_of(connected(server, stack, beat)) == 200
        things.go_on.set()


def test_what_is_done_with_is_not_kept(server: Served) -> None:
    with ExitStack() as stack:
        make_known(server, stack)
    application = server.server.config.app
    assert isinstance(application, asgi.Application)
    eventually(lambda: not application._lanes._lanes)


# --- Requests that are held ---------------------------------------------------------------


@pytest.mark.parametrize(("method", "size"), [("GET", 150_000), ("GET", 20_000), ("POST", 70_000)])
def test_a_request_with_a_long_body_is_not_held(
    server: Served, things: Things, method: str, size: int
) -> None:
    more = f"Prefer: wait=60\r\nContent-Length: {size}\r\n"
    with ExitStack() as stack:
        began = time.monotonic()
        asked = asking("/thing", "a1", method, more) + " " * size
        assert status_of(connected(server, stack, asked)) == 200
        assert time.monotonic() - began < 30
    assert server.hub.waiting == 0


def test_short_bodies_that_are_held_take_no_room(serve: Callable[..., Server]) -> None:
    server = serve(BODY_BYTES_MAX=50_000, BODIES_BYTES_MAX=50_000)
    provider = server.account("provider", name="p")
    token = provider.token or ""
    made = provider.post("tasks", {"command": "true"}).json()
    port = int(server.url.rpartition(":")[2])
    more = "Prefer: wait=60\r\nContent-Length: 10000\r\nContent-Type: application/json\r\n"
    more += "Expect: 100-continue\r\n"
    more += f'If-None-Match: "{made["_etag"]}"\r\n'
    path = f"/tasks/{made['_id']}"
    with ExitStack() as stack:
        for _ in range(10):
            held = stack.enter_context(socket.create_connection(("127.0.0.1", port), 30))
            held.sendall(asking(path, token, more=more).encode())
            assert held.recv(65536).startswith(b"HTTP/1.1 100 ")  # so it is not there yet
            held.sendall(b" " * 10_000)
        for _ in range(5):
            body = [{"command": "true", "name": "n" * 200}] * 100
            assert provider.post("tasks", body).status_code == 201


# --- Linking ------------------------------------------------------------------------------


def test_an_account_links_one_at_a_time_and_others_meanwhile() -> None:
    entered = []

    def link(account: str) -> None:
        with edges.one_at_a_time(account):
            entered.append(account)

    others = [name for name in map(str, range(100)) if turn(name) != turn("a")]
    with edges.one_at_a_time("a"):
        waiting = threading.Thread(target=link, args=("a",))
        waiting.start()
        link(others[0])
        assert entered == [others[0]]
    waiting.join(30)
    assert entered == [others[0], "a"]


def turn(account: str) -> object:
    return edges._TURNS[hash(account) % len(edges._TURNS)]


def test_who_waits_too_long_for_it_is_told_to_come_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edges, "TRANSACTION_SECONDS_MAX", 0.01)
    with (
        edges.one_at_a_time("a"),
        pytest.raises(BanyanError) as refused,
        edges.one_at_a_time("a"),
    ):
        pass
    assert refused.value.word == "unavailable"
