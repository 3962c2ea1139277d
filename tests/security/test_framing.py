"""What is sent around a body, and in small pieces: nothing that is kept grows without end."""

import asyncio
import socket
from collections.abc import Iterator

import pytest

from banyan.server import connections, intake
from banyan.server.protocol import FRAME_BYTES_MAX, HEADER_BYTES_MAX
from tests.harness.asgi import Served, served
from tests.harness.parser import Wire
from tests.harness.things import Things
from tests.security.test_requests_ahead import echo

HEAD = b"POST /x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
ENDLESS = {
    "trailer": b"1\r\n{\r\n0\r\nX: ",
    "name of a trailer": b"1\r\n{\r\n0\r\nX",
    "extension": b"1;x=",
    "extension of the last": b"1\r\n{\r\n0;x=",
    "first line": b"",
}


@pytest.fixture
def things() -> Things:
    return Things()


@pytest.fixture
def front(things: Things, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    monkeypatch.setattr(intake, "PATIENCE_SECONDS", 60.0)
    with served(things) as running:
        yield running


@pytest.mark.parametrize("beginning", ENDLESS.values(), ids=list(ENDLESS))
@pytest.mark.parametrize("size", [1, 100, 100_000])
def test_what_is_no_body_has_a_bound(beginning: bytes, size: int) -> None:
    """The parser puts together what comes in pieces, each time from its beginning."""
    letter = b"0" if not beginning else b"a"

    async def play() -> None:
        wire, sent = Wire(echo), 0
        wire.protocol.data_received(HEAD)
        wire.protocol.data_received(beginning)
        while not wire.closed:
            wire.protocol.data_received(letter * size)
            sent += size
            assert sent <= max(2 * FRAME_BYTES_MAX, size)
        await wire.rest()
        assert b"HTTP/1.1 400 " in wire.written
        assert b"between chunks, and after the last" in wire.written

    asyncio.run(play())


def test_nor_does_one_large_packet_hide_it_behind_a_piece_of_the_body() -> None:
    async def play() -> None:
        wire = Wire(echo)
        wire.protocol.data_received(HEAD + ENDLESS["trailer"] + b"a" * 100_000)
        assert wire.closed
        await wire.rest()

    asyncio.run(play())


def test_a_body_in_many_small_chunks_and_packets_is_one() -> None:
    async def play() -> None:
        wire = Wire(echo)
        wire.protocol.data_received(HEAD)
        for _ in range(FRAME_BYTES_MAX):
            for byte in b"1\r\nx\r\n":
                wire.protocol.data_received(bytes([byte]))
        wire.protocol.data_received(b"2000\r\n" + b"y" * 0x2000 + b"\r\n" + b"0\r\n\r\n")
        await wire.rest()
        assert wire.written.count(b"x") == FRAME_BYTES_MAX + len("x")  # of its path
        assert wire.written.count(b"y") == 0x2000

    asyncio.run(play())


def test_small_packets_of_a_head_count_as_more() -> None:
    async def play() -> None:
        wire, sent = Wire(echo), 0
        wire.protocol.data_received(b"GET / HTTP/1.1\r\nHost: x\r\nX: ")
        while not wire.closed:
            wire.protocol.data_received(b"a")
            sent += 1
        assert sent <= HEADER_BYTES_MAX // 32
        assert b"HTTP/1.1 400 " in wire.written

    asyncio.run(play())


@pytest.mark.parametrize("name", ["Authorization", "X-Forwarded-For", "Host", "Prefer"])
def test_what_comes_after_the_body_is_no_header(front: Served, things: Things, name: str) -> None:
    answer = front.raw(HEAD + f"1\r\n{{\r\n0\r\n{name}: 1\r\n\r\n".encode())
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"send all headers before the body" in answer
    assert things.asked == 0


def test_empty_lines_do_not_keep_a_connection(
    front: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They ended the wait for another request, and no other began."""
    monkeypatch.setattr(connections, "HEADER_SECONDS_MAX", 2.0)
    monkeypatch.setattr(connections, "SWEEP_SECONDS", 0.1)
    with socket.create_connection(("127.0.0.1", front.port), 30) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")
        connection.sendall(b"\r\n\r\n")
        assert connection.recv(65536).startswith(b"HTTP/1.1 400 ")
        assert connection.recv(1) == b""


def test_a_request_that_was_answered_early_is_answered_once(front: Served) -> None:
    head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n"
    chunked = head.replace(b"Content-Length: 99999999", b"Transfer-Encoding: chunked")
    for asked in (head, chunked + b"1000000\r\n"):
        with socket.create_connection(("127.0.0.1", front.port), 30) as connection:
            connection.sendall(asked)
            if asked is not head:
                connection.sendall(b"x" * 0x1000000 + b"\r\n")
                connection.sendall(b"10\r\n" + b"x" * 16 + b"\r\n")
            got = connection.recv(65536)
            connection.sendall(b"\0no chunk\r\n" if asked is not head else b"x")
            connection.shutdown(socket.SHUT_WR)
            while more := connection.recv(65536):
                got += more
        assert got.count(b"HTTP/1.1 ") == 1
        assert got.startswith(b"HTTP/1.1 413 ")
