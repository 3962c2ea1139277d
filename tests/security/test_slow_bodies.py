"""A body that comes slowly, with a valid token: silent connections do not cut it off."""

import socket
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from banyan.server.bridge import HEAD_ONLY
from banyan.server.connections import Connections
from tests.harness import Server, eventually
from tests.harness.asgi import Served, served
from tests.harness.things import Things
from tests.security.test_connections import count_open, crowd, port_of
from tests.security.test_slow_requests import TASK, answered, connected, head

NEWCOMERS_MAX = 20
VALID = "valid"


class Doors(Things):
    """Lets go on who has the valid token; tells so when it may."""

    def __init__(self) -> None:
        super().__init__()
        self.accounts: dict[str, str] = {}
        self.heads = 0

    def __call__(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        if HEAD_ONLY not in environ:
            return super().__call__(environ, start)
        self.heads += 1
        self.go_on.wait(60)
        header = environ["HTTP_AUTHORIZATION"]
        if header != f"Bearer {VALID}":
            start("401 UNAUTHORIZED", [])
            return []
        self.accounts[header] = "me"
        start("100 GO ON", [])
        return []


@pytest.fixture
def doors() -> Iterator[Doors]:
    made = Doors()
    yield made
    made.go_on.set()


@contextmanager
def behind(doors: Doors, some: Connections, known: bool) -> Iterator[Served]:
    of = doors.accounts.get
    with served(doors, connections=some, knows=lambda header: known, account_of=of) as front:
        yield front
        doors.go_on.set()


def flooded(stack: ExitStack, port: int) -> list[socket.socket]:
    """More silent connections than there may be newcomers; the oldest of them are closed."""
    silent = stack.enter_context(crowd(port, 5 * NEWCOMERS_MAX))
    eventually(lambda: count_open(silent) <= NEWCOMERS_MAX)
    return silent


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("size", [100, 100_000])
def test_it_may_come_slowly(doors: Doors, size: int, known: bool) -> None:
    some = Connections(1000, NEWCOMERS_MAX)
    doors.go_on.set()
    doors.accounts |= {f"Bearer {VALID}": "me"} if known else {}
    with behind(doors, some, known) as front, connected(front.port) as slow, ExitStack() as stack:
        slow.sendall(head(VALID, f"Content-Length: {size}"))
        slow.sendall(b"x" * (size // 2))
        eventually(lambda: some._trusted.count == 1)
        flooded(stack, front.port)
        slow.sendall(b"x" * (size - size // 2))
        assert answered(slow)[0] == 200
        assert doors.heads == (0 if known else 1)


def test_nor_while_its_header_is_looked_at(doors: Doors) -> None:
    some = Connections(1000, NEWCOMERS_MAX)
    with behind(doors, some, False) as front, connected(front.port) as slow, ExitStack() as stack:
        slow.sendall(head(VALID, "Content-Length: 100000"))
        eventually(lambda: doors.heads == 1)
        flooded(stack, front.port)
        assert some._trusted.count == 0  # not before it is known to be valid
        doors.go_on.set()
        slow.sendall(b"x" * 100_000)
        assert answered(slow)[0] == 200


def test_who_is_refused_for_its_header_is_not_trusted(doors: Doors) -> None:
    some = Connections(1000, NEWCOMERS_MAX)
    doors.go_on.set()
    with behind(doors, some, False) as front, connected(front.port) as other:
        other.sendall(head("wrong", "Content-Length: 100000") + b"x" * 50_000)
        assert answered(other, until_closed=True)[0] == 401
        assert some._trusted.count == 0


def test_without_a_token_it_makes_room_like_silence(doors: Doors) -> None:
    some = Connections(1000, NEWCOMERS_MAX)
    with behind(doors, some, False) as front, ExitStack() as stack:
        slow = [stack.enter_context(connected(front.port)) for _ in range(NEWCOMERS_MAX)]
        for one in slow:
            one.sendall(head("", "Content-Length: 10000") + b"x")
        flooded(stack, front.port)
        eventually(lambda: count_open(slow) == 0)


def test_a_server_takes_a_slow_body_in_a_flood(serve: Callable[..., Server]) -> None:
    server = serve(CONNECTIONS_PER_ADDRESS_MAX=NEWCOMERS_MAX)
    token = server.account("provider", name="slow").token or ""
    body = TASK + b" " * 50_000
    with connected(port_of(server)) as slow, ExitStack() as stack:
        slow.sendall(head(token, f"Content-Length: {len(body)}", "Expect: 100-continue"))
        assert slow.recv(65536).startswith(b"HTTP/1.1 100 ")  # its header is found valid
        slow.sendall(body[:1000])
        flooded(stack, port_of(server))
        slow.sendall(body[1000:])
        assert answered(slow)[0] == 201
