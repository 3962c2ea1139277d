"""Requests that never end: who has no token is told so at once, nobody holds up the others."""

import json
import select
import socket
from collections.abc import Callable, Iterator

import pytest

from banyan.server import acceptor, connections, intake
from tests.harness import Server, eventually
from tests.harness.asgi import Served, served
from tests.harness.things import Things

GOING_ON = b"HTTP/1.1 100 Continue\r\n\r\n"
TASK = b'{"command": "true"}'


def port_of(server: Server) -> int:
    return int(server.url.rpartition(":")[2])


def connected(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), 30)


def head(token: str, *more: str, path: str = "/tasks") -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: x", "Content-Type: application/json"]
    lines += [f"Authorization: Bearer {token}"] if token else []
    return "\r\n".join([*lines, *more, "", ""]).encode()


def answered(connection: socket.socket, until_closed: bool = False) -> tuple[int, bytes]:
    """The status and the body of what comes back, as soon as it is whole."""
    got = b""
    while until_closed or b"\r\n\r\n" not in got or not got.endswith(b"}"):
        chunk = connection.recv(65536)
        if not chunk:
            break
        got += chunk
    assert got, "closed without an answer"
    return int(got.split()[1]), got


BEGINNINGS = [
    ["Content-Length: 100"],
    ["Content-Length: 15000000"],
    ["Transfer-Encoding: chunked"],
    ["Content-Length: 100", "Expect: 100-continue"],
]


@pytest.mark.parametrize("length", BEGINNINGS)
@pytest.mark.parametrize("token", ["", "bny_0123456789abcdef_wrong"])
def test_a_body_of_nobody_is_not_waited_for(server: Server, token: str, length: list[str]) -> None:
    with connected(port_of(server)) as connection:
        connection.sendall(head(token, *length))
        status, answer = answered(connection)
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(1) == b""
    assert status == 401
    assert b"\r\nconnection: close\r\n" in answer
    assert GOING_ON not in answer


def test_the_answer_comes_before_the_body_is_read(server: Server) -> None:
    with connected(port_of(server)) as connection:
        connection.sendall(head("", "Content-Length: 15000000") + b"x" * 100_000)
        assert answered(connection)[0] == 401
        connection.sendall(b"x" * 5_000_000)  # read past, so that the answer is not destroyed


def test_what_the_head_alone_is_refused_for_is_told_before_the_body(server: Server) -> None:
    for role, path, kind, expected in [
        ("worker", "/tasks", "application/json", 403),
        ("provider", "/nowhere", "application/json", 404),
        ("provider", "/tasks", "text/plain", 415),
        ("provider", "/tasks/claim", "application/json", 403),
    ]:
        token = server.account(role, name=f"{role}{expected}{len(path)}").token or ""
        asked = head(token, "Content-Length: 1000000", path=path)
        with connected(port_of(server)) as connection:
            connection.sendall(asked.replace(b"application/json", kind.encode()))
            assert answered(connection)[0] == expected


def test_a_valid_token_is_asked_for_its_body(server: Server) -> None:
    token = server.account("provider", name="slow").token or ""
    with connected(port_of(server)) as connection:
        connection.sendall(head(token, f"Content-Length: {len(TASK)}", "Expect: 100-continue"))
        assert connection.recv(len(GOING_ON)) == GOING_ON
        connection.sendall(TASK[:5])
        connection.sendall(TASK[5:])
        assert answered(connection)[0] == 201
        connection.sendall(head(token, f"Content-Length: {len(TASK)}"))
        connection.sendall(TASK)
        assert answered(connection)[0] == 201


def test_a_long_body_of_a_new_token_arrives_whole(server: Server) -> None:
    provider = server.account("provider", name="long")
    made = provider.post("tasks", [{"command": "true", "name": "n" * 200}] * 500)
    assert made.status_code == 201
    assert len(made.json()["_items"]) == 500


def test_long_bodies_together_have_a_bound(serve: Callable[..., Server]) -> None:
    server = serve(BODY_BYTES_MAX=200_000, BODIES_BYTES_MAX=300_000)
    token = server.tokens["provider"]
    task = json.dumps({"command": "true", "name": "x", "tags": {}}).encode()
    body = task + b" " * (180_000 - len(task))
    asked = head(token, f"Content-Length: {len(body)}")
    with connected(port_of(server)) as one, connected(port_of(server)) as other:
        for half in (one, other):
            half.sendall(asked + body[:-1])
        refused = select.select([one, other], [], [], 30)[0]
        assert len(refused) == 1
        status, answer = answered(refused[0])
        assert status == 503
        assert b"\r\nretry-after: " in answer
        kept = other if refused[0] is one else one
        kept.sendall(body[-1:])
        assert answered(kept)[0] == 201
        for _ in range(5):  # what was taken is given back, also by who was refused
            kept.sendall(asked + body)
            assert answered(kept)[0] == 201


def in_two_packets(front: Served) -> None:
    with connected(front.port) as connection:
        for _ in range(2):
            connection.sendall(head("x", "Content-Length: 10"))
            connection.sendall(b"x" * 10)
            assert answered(connection)[0] == 200


def test_a_short_body_right_behind_its_head_costs_nothing_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(intake, "SOON_SECONDS", 30.0)
    things = Things()
    with served(things, knows=lambda header: False) as front:
        in_two_packets(front)
    assert things.asked == 2


def test_nor_where_a_valid_token_came_by_the_same_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(intake, "SOON_SECONDS", 0.0)
    things = Things()
    asked: list[str] = []

    def knows(header: str) -> bool:  # in the first request
        asked.append(header)
        return len(asked) < 3

    with served(things, knows=knows) as front:
        in_two_packets(front)
    assert things.asked == 2


# --- Deadlines, with small ones -----------------------------------------------------------


@pytest.fixture
def things() -> Things:
    return Things()


@pytest.fixture
def front(things: Things, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    monkeypatch.setattr(intake, "PATIENCE_SECONDS", 0.3)
    monkeypatch.setattr(intake, "DISCARD_SECONDS_MAX", 0.3)
    monkeypatch.setattr(connections, "HEADER_SECONDS_MAX", 0.3)
    monkeypatch.setattr(connections, "SWEEP_SECONDS", 0.1)
    monkeypatch.setattr(acceptor, "UNREAD_SECONDS_MAX", 0.5)
    with served(things) as running:
        yield running


@pytest.mark.parametrize("length", BEGINNINGS)
def test_a_body_that_never_begins_is_given_up(
    front: Served, things: Things, length: list[str]
) -> None:
    answer = front.raw(head("", *length))
    assert answer.removeprefix(GOING_ON).startswith(b"HTTP/1.1 400 ")
    assert things.asked == 0


def test_a_body_that_trickles_is_given_up(front: Served, things: Things) -> None:
    with connected(front.port) as connection:
        connection.sendall(head("", "Transfer-Encoding: chunked"))
        connection.settimeout(0.05)
        answer = b""
        for _ in range(400):
            try:
                answer += connection.recv(65536)
            except TimeoutError:
                connection.sendall(b"1\r\nx\r\n")
            if answer:
                break
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert things.asked == 0


@pytest.mark.parametrize("sent", [b"", b"GET", b"GET / HTTP/1.1\r\nHost: x\r\nX: "])
def test_a_head_that_never_ends_is_given_up(front: Served, sent: bytes) -> None:
    answer = front.raw(sent)
    assert answer.startswith(b"HTTP/1.1 400 ") if sent else answer == b""


def test_nor_the_head_of_a_later_request(front: Served) -> None:
    with connected(front.port) as connection:
        connection.sendall(b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n")
        assert answered(connection)[0] == 200
        connection.sendall(b"GET /b HTT")
        assert answered(connection, until_closed=True)[0] == 400


def test_who_reads_no_answer_is_cut_off(front: Served) -> None:
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
        connection.connect(("127.0.0.1", front.port))
        body = b"x" * 8_000_000
        connection.sendall(head("", f"Content-Length: {len(body)}") + body)
        eventually(lambda: front.server.server_state.connections)
        eventually(lambda: not front.server.server_state.connections, 30)


def test_requests_without_end_are_not_kept(front: Served, things: Things) -> None:
    """A thousand requests in one packet would be a thousand objects."""
    with connected(front.port) as connection:
        connection.sendall(b"GET /stuck HTTP/1.1\r\nHost: x\r\n\r\n" * 1000)
        assert connection.recv(65536) == b""  # closed, and not told 400: that would be of another
    things.go_on.set()
    assert things.asked <= 1
