"""Whoever asks much and reads nothing: what that costs the server in memory is bounded."""

import asyncio
import select
import socket
import ssl
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from banyan.config import knobs
from banyan.server import connections, unread
from banyan.server.connections import Connections
from banyan.server.exposure import Tls
from banyan.server.protocol import Joining
from banyan.server.unread import Unread
from tests.harness import Server, eventually
from tests.harness.asgi import Served, served
from tests.harness.things import Things

CERTIFICATES = Path(__file__).with_name("certificates")
LARGE = b"~" * 1_000_000


@pytest.fixture(params=["plain", "tls"])
def tls(request: pytest.FixtureRequest) -> Tls | None:
    """With TLS, and without: what lies in memory lies elsewhere."""
    tls = Tls(CERTIFICATES / "here.pem", CERTIFICATES / "here.key")
    return tls if request.param == "tls" else None


class Many(Things):
    """Its `/large` has a large answer that is in memory once."""

    def serve_large(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        start("200 OK", [("Content-Type", "text/plain")])
        return [LARGE]


def reading_nothing(
    front: Served, stack: ExitStack, requests: int, tls: Tls | None = None, token: str = ""
) -> socket.socket:
    """A connection that has asked so often, with little room for what comes."""
    head = f"Host: x\r\nAuthorization: {token}\r\n\r\n" if token else "Host: x\r\n\r\n"
    made = stack.enter_context(socket.socket())
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
    made.settimeout(30)
    made.connect(("127.0.0.1", front.port))
    if tls:
        context = ssl.create_default_context(cafile=str(CERTIFICATES / "here.pem"))
        made = stack.enter_context(context.wrap_socket(made, server_hostname="localhost"))
    made.sendall(f"GET /large HTTP/1.1\r\n{head}".encode() * requests)
    return made


def is_alive(connection: socket.socket) -> bool:
    """Whether the server has not closed it; to ask changes nothing, and what came is still there.

    SO_ERROR would tell of a reset once, and of an orderly end never.
    """
    asked = select.poll()
    asked.register(connection, select.POLLRDHUP)
    return not asked.poll(0)


def alive(connections: list[socket.socket]) -> int:
    return sum(map(is_alive, connections))


def waiting(some: Connections, trusted: bool = False) -> int:
    return len(some.unread[trusted]._waiting)


def test_what_strangers_do_not_read_is_bounded_in_bytes(tls: Tls | None) -> None:
    some = Connections(1000, 0)
    most = some.unread[False]._most = 5 * len(LARGE)
    things = Many()
    with ExitStack() as stack:
        front = stack.enter_context(
            served(things, connections=some, tls=tls, knows=lambda _: False)
        )
        silent = [reading_nothing(front, stack, 16, tls) for _ in range(30)]
        eventually(lambda: alive(silent) < 9)
        assert some.unread[False].count <= most
        assert is_alive(silent[-1])
        assert things.asked < 30 * 16  # what waits for a reader is not asked for: it would be kept
    eventually(lambda: some.unread[False].count == 0)


def test_who_reads_slowly_gets_all_of_it(tls: Tls | None) -> None:
    some = Connections(1000, 0)
    with ExitStack() as stack:
        front = stack.enter_context(
            served(Many(), connections=some, tls=tls, knows=lambda _: False)
        )
        slow = reading_nothing(front, stack, 5, tls)
        eventually(lambda: waiting(some) == 1)
        got = 0
        while got < 5 * len(LARGE):
            got += slow.recv(65536).count(b"~")
        assert got == 5 * len(LARGE)
        eventually(lambda: waiting(some) == 0)
        assert some.unread[False].count == 0


def test_valid_tokens_have_a_bound_of_their_own() -> None:
    some = Connections(1000, 0)
    some.unread[False]._most = 0
    some.unread[True]._most = 5 * len(LARGE)
    with ExitStack() as stack:
        front = stack.enter_context(served(Many(), connections=some))
        silent = [reading_nothing(front, stack, 16) for _ in range(20)]
        eventually(lambda: alive(silent) < 9)
        assert some.unread[True].count <= 5 * len(LARGE)
        assert is_alive(silent[-1])


def test_both_bounds_together_are_what_was_set() -> None:
    some = Connections(1000, 0)
    assert sum(one._most for one in some.unread.values()) == knobs().UNREAD_BYTES_MAX


def test_who_has_most_in_memory_gives_way_to_the_others() -> None:
    some = Connections(1000, 0)
    some.unread[True]._most = 5 * len(LARGE)
    with ExitStack() as stack:
        front = stack.enter_context(
            served(Many(), connections=some, account_of=lambda header: header)
        )
        slow = reading_nothing(front, stack, 9, token="alice")
        eventually(lambda: waiting(some, trusted=True) == 1)
        flood = [reading_nothing(front, stack, 9, token="mallory") for _ in range(30)]
        eventually(lambda: alive(flood) < 9)
        assert is_alive(slow)  # though it has waited the longest
        got = 0
        while got < 9 * len(LARGE):
            got += slow.recv(65536).count(b"~")


def test_an_answer_counts_as_a_whole_until_its_last_byte() -> None:
    some = Connections(1000, 0)
    with ExitStack() as stack:
        front = stack.enter_context(served(Many(), connections=some))
        slow = reading_nothing(front, stack, 9)
        eventually(lambda: waiting(some, trusted=True) == 1)
        counts, got = [], 0
        while got < 9 * len(LARGE):
            got += slow.recv(65536).count(b"~")
            counts.append(some.unread[True].count)
        counted = [count for count in counts if count]
        assert len(counted) > 9
        assert min(counted) >= len(LARGE)


def test_who_reads_nothing_for_long_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unread, "UNREAD_SECONDS_MAX", 2.0)
    monkeypatch.setattr(connections, "SWEEP_SECONDS", 0.1)
    some = Connections(1000, 0)
    with ExitStack() as stack:
        front = stack.enter_context(served(Many(), connections=some))
        reading_nothing(front, stack, 9)
        eventually(lambda: waiting(some, trusted=True) == 1)
        eventually(lambda: some.count == 0)


def test_who_reads_nothing_does_not_hold_a_place() -> None:
    some = Connections(1000, 2)
    with ExitStack() as stack:
        front = stack.enter_context(served(Many(), connections=some, knows=lambda _: False))
        for _ in range(2):
            reading_nothing(front, stack, 16)
        eventually(lambda: waiting(some) == 2)
        assert front.raw(b"GET / HTTP/1.0\r\n\r\n").startswith(b"HTTP/1.1 200 ")


def test_progress_is_waited_for() -> None:
    class Slow:
        left, ended = 100, False

        def held(self) -> int:
            return 100

        def unsent(self) -> int:
            return self.left

        def end(self) -> None:
            self.ended = True

    async def play() -> list[bool]:
        some, slow, told = Unread(1000), Slow(), []
        some.enter(slow, "a", 0.0)
        for now in (59.0, 61.0, 122.0):
            slow.left = 100 if now == 59.0 else 50
            some.sweep(now)
            await asyncio.sleep(0)
            told.append(slow.ended)
        assert some.count == 0
        return told

    assert asyncio.run(play()) == [False, False, True]


def test_a_long_body_is_not_copied() -> None:
    class Transport:
        def __init__(self) -> None:
            self.written: list[Any] = []

        def write(self, data: Any) -> None:
            self.written.append(data)

        def writelines(self, many: Any) -> None:
            self.written += many

        def close(self) -> None:
            """Nobody looks here."""

        def is_closing(self) -> bool:
            return False

    class Cycle:
        response_started = True
        expected_content_length = len(LARGE)

        def __init__(self) -> None:
            self.scope = {"method": "GET"}

    transport = Transport()
    joining: Any = Joining(transport, Cycle())  # type: ignore[arg-type]
    joining.write(b"head")
    joining.write(LARGE)
    assert transport.written[1] is LARGE
    assert joining.length == len(LARGE)


def test_nor_is_what_a_server_of_ours_keeps(serve: Callable[..., Server]) -> None:
    server = serve(UNREAD_BYTES_MAX=4 * 1024**2)
    port = int(server.url.rpartition(":")[2])
    with ExitStack() as stack:
        silent = []
        for _ in range(40):
            made = stack.enter_context(socket.create_connection(("127.0.0.1", port), 30))
            made.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n" * 16)
            silent.append(made)
        eventually(lambda: alive(silent) < 30, 30.0)
        assert server.provider.get("tasks").status_code == 200


def test_the_document_of_the_api_is_compressed_for_those_who_take_it(server: Server) -> None:
    def get(accepted: str, **more: str) -> Any:
        return server.anonymous.get("openapi.json", headers={"Accept-Encoding": accepted, **more})

    packed, plain = get("deflate, gzip"), get("identity")
    assert packed.headers["Content-Encoding"] == "gzip"
    assert "Content-Encoding" not in plain.headers
    assert packed.json() == plain.json()
    assert int(packed.headers["Content-Length"]) < 50_000
    assert packed.headers["ETag"] != plain.headers["ETag"]
    etag = packed.headers["ETag"]
    assert get("gzip", **{"If-None-Match": etag}).status_code == 304
