"""Requests sent before the answer to the one before: kept as they came, a few, and in order."""

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from banyan.server import protocol
from banyan.server.connections import Connections
from banyan.server.protocol import BEHIND_BYTES_MAX, Protocol
from tests.harness import eventually
from tests.harness.asgi import Served, served
from tests.harness.parser import Wire
from tests.harness.things import Things
from tests.security.test_unread_answers import LARGE, Many

MANY_HEADERS = b"".join(b"h%d:x\r\n" % number for number in range(190))
AHEAD = b"GET /x HTTP/1.1\r\nHost: x\r\n" + MANY_HEADERS + b"\r\n"
FEW = BEHIND_BYTES_MAX // len(AHEAD)
STUCK = b"GET /stuck HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture
def things() -> Iterator[Things]:
    made = Many()
    yield made
    made.go_on.set()


@pytest.fixture
def front(things: Things) -> Iterator[Served]:
    with served(things) as running:
        yield running
        things.go_on.set()


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> list[Protocol]:
    """The protocol of each request whose parsing has begun."""
    found: list[Protocol] = []
    begin = Protocol.on_message_begin

    def counted(self: Protocol) -> None:
        begin(self)
        found.append(self)

    monkeypatch.setattr(Protocol, "on_message_begin", counted)
    return found


def connected(front: Served) -> socket.socket:
    return socket.create_connection(("127.0.0.1", front.port), 30)


def answers(connection: socket.socket, count: int) -> bytes:
    """Whose heads are so many, to the last byte of the last: it tells of headers, or is large."""
    got = bytearray()
    while not got.endswith((b"~", b"}")) or got.count(b"HTTP/1.1 200 ") < count:
        piece = connection.recv(1_000_000)
        assert piece, "closed"
        got += piece
    return bytes(got)


def test_what_waits_behind_a_request_is_not_parsed(
    front: Served, things: Things, begun: list[Protocol]
) -> None:
    with connected(front) as connection:
        connection.sendall(STUCK + AHEAD * FEW)
        eventually(lambda: begun and len(begun[0]._behind) == len(AHEAD) * FEW)
        assert len(begun) == 1
        things.go_on.set()
        answers(connection, 1 + FEW)
        assert len(begun) == 1 + FEW
        assert begun[0]._behind == b""


def test_nor_is_what_waits_behind_an_answer_that_is_not_read(
    front: Served, begun: list[Protocol]
) -> None:
    large = b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n"
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
        connection.settimeout(30)
        connection.connect(("127.0.0.1", front.port))
        connection.sendall(large * 5)
        eventually(lambda: begun and begun[0].flow.write_paused)
        connection.sendall(AHEAD)
        eventually(lambda: begun[0]._behind.endswith(AHEAD))
        assert len(begun) < 5
        assert begun[0].held() >= len(LARGE) + len(begun[0]._behind)
        assert answers(connection, 6).count(b"~") == 5 * len(LARGE)


def test_who_sends_too_much_ahead_is_cut_off(front: Served, things: Things) -> None:
    with connected(front) as connection:
        connection.sendall(STUCK)
        eventually(lambda: things.asked)
        for _ in range(FEW):
            connection.sendall(AHEAD)
        connection.sendall(AHEAD)
        assert connection.recv(1) == b""  # and is not told 400: that would be of another
    things.go_on.set()
    assert things.asked == 1


# --- Any requests, in any packets -----------------------------------------------------------


async def echo(scope: Any, receive: Callable[[], Awaitable[Any]], send: Any) -> None:
    """Tell what came; another request may have to wait for that a little."""
    body, more = b"", True
    while more:
        message = await receive()
        body, more = body + message["body"], message["more_body"]
    await asyncio.sleep(0)
    told = json.dumps([scope["method"], scope["path"], body.decode()]).encode()
    headers = [(b"content-length", str(len(told)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": told})


CHUNKED = b"POST /c HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
STREAM = (
    b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n"
    b"POST /b HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n\r\n\r\nGET /"
    b"\r\n\r\n\r\n" + CHUNKED + b"3\r\nabc\r\n4;x=y\r\n\r\n\r\n\r\n00;z\r\n\r\n"
    b"GET /d HTTP/1.1\r\nHost: x\r\n\r\n" + CHUNKED + b"0\r\n\r\n"
    b"POST /e HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"
)
TOLD = [
    ["GET", "/a", ""],
    ["POST", "/b", "\r\n\r\nGET /"],
    ["POST", "/c", "abc\r\n\r\n"],
    ["GET", "/d", ""],
    ["POST", "/c", ""],
    ["POST", "/e", ""],
]


async def played(*packets: bytes, at_once: bool = True) -> list[Any]:
    """What is answered to these packets."""
    wire = Wire(echo)
    for packet in packets:
        wire.protocol.data_received(packet)
        for _ in range(0 if at_once else 9):  # whatever is whole is answered meanwhile
            await asyncio.sleep(0)
    await wire.rest()
    bodies = wire.written.split(b"\r\n\r\n")[1:]
    return [json.loads(body.split(b"HTTP/1.1")[0]) for body in bodies]


@pytest.mark.parametrize("at_once", [True, False])
def test_all_are_answered_in_order_wherever_packets_end(at_once: bool) -> None:
    async def each() -> None:
        for place in range(len(STREAM)):
            assert await played(STREAM[:place], STREAM[place:], at_once=at_once) == TOLD, place
        single = [STREAM[place : place + 1] for place in range(len(STREAM))]
        assert await played(*single, at_once=at_once) == TOLD

    asyncio.run(each())


def test_where_the_end_of_a_request_was_overlooked_answers_are_not_mixed_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(protocol, "_END", b"never")

    async def play() -> None:
        wire = Wire(echo)
        wire.protocol.data_received(STREAM)
        await wire.rest()
        assert wire.closed
        assert wire.written == b""

    asyncio.run(play())


def test_a_connection_may_be_lost_with_requests_ahead() -> None:
    async def play() -> None:
        wire = Wire(echo, Connections(10, 0))
        wire.protocol.data_received(STREAM)
        wire.protocol.connection_lost(None)
        await wire.rest()
        assert wire.written == b""

    asyncio.run(play())


@pytest.mark.parametrize("ahead", [True, False])
def test_one_that_waits_for_its_turn_is_not_idle(ahead: bool) -> None:
    """Whether its next request comes before the end of the answer, or while that is not read."""

    class Slow(Wire):
        def write(self, data: bytes | bytearray | memoryview) -> None:
            super().write(data)
            self.protocol.pause_writing()

    async def play() -> None:
        wire = Slow(echo)
        wire.protocol.timeout_keep_alive = 0
        one, other = (b"GET /%s HTTP/1.1\r\nHost: x\r\n\r\n" % name for name in (b"a", b"b"))
        wire.protocol.data_received(one + other if ahead else one)
        while not wire.written:
            await asyncio.sleep(0)
        if not ahead:
            wire.protocol.data_received(other)
        for _ in range(9):
            await asyncio.sleep(0)
        assert wire.written.count(b"HTTP/1.1 200 ") == 1
        assert not wire.closed
        wire.protocol.resume_writing()
        await wire.rest()
        assert wire.written.count(b"HTTP/1.1 200 ") == 2

    asyncio.run(play())
