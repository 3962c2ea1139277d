"""Callers that do not wait for their answer: they keep no turn, and nobody waits behind them.

The end of what somebody sends says little: it has gone, or it reads its answer still, as HTTP
allows. So what is asked that way is answered, but no stranger has to wait for it.
"""

import asyncio
import socket
import ssl
import struct
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from banyan.server import asgi, lanes
from banyan.server.connections import Connections
from banyan.server.exposure import Tls
from banyan.server.intake import Message
from banyan.server.lanes import STRANGERS
from banyan.server.protocol import CONNECTION, SHORT
from banyan.server.waiting import Hub
from tests.harness import eventually
from tests.harness.asgi import Served, served
from tests.harness.things import Things
from tests.security.test_connections import Silent
from tests.security.test_fair_threads import ACCOUNTS, THREADS, all_stuck, asking, connected
from tests.security.test_fair_threads import server as server
from tests.security.test_fair_threads import things as things

CERTIFICATES = Path(__file__).with_name("certificates")
RESET = struct.pack("ii", 1, 0)
KNOWN = "a1"


def waiting(server: Served, account: str) -> int:
    """How many requests of an account wait for a thread."""
    application = server.server.config.app
    assert isinstance(application, asgi.Application)
    lane = application._lanes._lanes.get(account)
    return sum(map(len, lane.waiting.values())) if lane else 0


def whole(connection: socket.socket) -> bytes:
    """All that comes until the server closes."""
    answer = b""
    while chunk := connection.recv(65536):
        answer += chunk
    return answer


def end(connection: socket.socket) -> None:
    connection.shutdown(socket.SHUT_WR)


def reset(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    connection.close()


@pytest.mark.parametrize("leave", [socket.socket.close, reset])
@pytest.mark.parametrize("token", ["never-{}", ""])
def test_a_stranger_who_has_gone_leaves_its_turn(
    server: Served, things: Things, token: str, leave: Callable[[socket.socket], None]
) -> None:
    with ExitStack() as stack:
        stuck = all_stuck(server, stack, ["stuck"], THREADS)
        eventually(lambda: things.asked == THREADS)
        gone = [connected(server, stack, asking("/x", token.format(n))) for n in range(50)]
        eventually(lambda: waiting(server, STRANGERS) == 50)
        patient = connected(server, stack, asking("/x", "patient"))
        eventually(lambda: waiting(server, STRANGERS) == 51)
        for one in gone:
            leave(one)
        eventually(lambda: waiting(server, STRANGERS) == 1)
        things.go_on.set()
        for one in (*stuck, patient):
            assert one.recv(65536).startswith(b"HTTP/1.1 200 ")
    assert things.asked == THREADS + 1  # what was in work went on


def test_who_has_gone_before_its_turn_came_is_not_waited_for(
    server: Served, things: Things, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its end comes with its request: whoever is quick would have the queue for itself."""
    monkeypatch.setattr(lanes, "STRANGERS_WAITING_MAX", 20)
    with ExitStack() as stack:
        all_stuck(server, stack, ["stuck"], THREADS)
        eventually(lambda: things.asked == THREADS)
        for number in range(200):
            with connected(server, stack, asking("/x", f"never-{number}")):
                pass
        eventually(lambda: server.server._connections.count == THREADS)  # it has heard of each end
        patient = connected(server, stack, asking("/x", "patient"))
        eventually(lambda: waiting(server, STRANGERS) == 1)
        things.go_on.set()
        assert patient.recv(65536).startswith(b"HTTP/1.1 200 ")
    assert things.asked == THREADS + 1


@pytest.mark.parametrize("token", [KNOWN, "never", ""])
def test_who_sends_no_more_is_answered(server: Served, token: str) -> None:
    with ExitStack() as stack:
        connection = connected(server, stack, asking("/x", token))
        end(connection)
        assert whole(connection).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("then", ["", "GET /half HTTP/1.1\r\nHost:"])
def test_so_is_all_that_was_sent_ahead(server: Served, things: Things, then: str) -> None:
    with ExitStack() as stack:
        asked = [asking(f"/{number}", KNOWN) for number in range(3)]
        connection = connected(server, stack, asking("/stuck", KNOWN) + "".join(asked) + then)
        eventually(lambda: things.asked == 1)
        end(connection)
        things.go_on.set()
        answer = whole(connection)
    assert answer.count(b"HTTP/1.1 200 ") == 4
    eventually(lambda: not server.server.server_state.connections)


def test_an_account_is_answered_though_it_has_to_wait(server: Served, things: Things) -> None:
    with ExitStack() as stack:
        all_stuck(server, stack, [KNOWN], THREADS)
        eventually(lambda: things.asked == THREADS)
        ended = connected(server, stack, asking("/x", KNOWN))
        end(ended)
        gone = connected(server, stack, asking("/x", KNOWN))
        eventually(lambda: waiting(server, "a") == 2)
        reset(gone)
        eventually(lambda: waiting(server, "a") == 1)
        things.go_on.set()
        assert whole(ended).startswith(b"HTTP/1.1 200 ")
    assert things.asked == THREADS + 1


def test_a_stranger_who_would_have_to_wait_is_told_to_ask_again(
    server: Served, things: Things
) -> None:
    with ExitStack() as stack:
        all_stuck(server, stack, ["stuck"], THREADS)
        eventually(lambda: things.asked == THREADS)
        ended = connected(server, stack, asking("/x", "never"))
        end(ended)
        answer = whole(ended)
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert b"\r\nretry-after: " in answer
        things.go_on.set()


def test_who_waits_for_a_change_is_told_what_is_known(server: Served, things: Things) -> None:
    with ExitStack() as stack:
        asked = asking("/thing", KNOWN, more="Prefer: wait=60\r\n")
        ended, gone = (connected(server, stack, asked) for _ in range(2))
        eventually(lambda: server.hub.waiting == 2)
        end(ended)
        reset(gone)
        assert whole(ended).startswith(b"HTTP/1.1 200 ")
        eventually(lambda: server.hub.waiting == 0)
        ahead = connected(server, stack, asked)
        end(ahead)
        assert whole(ahead).startswith(b"HTTP/1.1 200 ")
    assert things.asked == 3


def test_half_a_connection_there_is_not_in_tls(things: Things) -> None:
    tls = Tls(CERTIFICATES / "here.pem", CERTIFICATES / "here.key")
    client = ssl.create_default_context(cafile=str(CERTIFICATES / "here.pem"))
    with (
        served(things, THREADS, tls=tls, account_of=ACCOUNTS.get) as server,
        ExitStack() as stack,
    ):
        made = []
        for path in ["/stuck"] * THREADS + ["/x"]:
            plain = socket.create_connection(("127.0.0.1", server.port), 30)
            made.append(client.wrap_socket(plain, server_hostname="localhost"))
            stack.enter_context(made[-1]).sendall(asking(path, KNOWN).encode())
        eventually(lambda: waiting(server, "a") == 1)
        made[-1].close()
        eventually(lambda: waiting(server, "a") == 0)
        things.go_on.set()
    assert things.asked == THREADS


def test_who_has_gone_at_once_is_not_asked_for(things: Things) -> None:
    """Though a thread is free: a claim would be made for nobody."""
    some = Connections(1000, 0)
    connection = some.enter("", Silent())
    assert connection
    connection.be_gone()
    scope = {
        "type": "http",
        "method": "GET",
        "raw_path": b"/x",
        "query_string": b"",
        "http_version": "1.1",
        "headers": [],
        "state": {CONNECTION: connection, SHORT: True},
    }

    async def receive() -> Message:
        return {"type": "http.request", "body": b""}

    async def send(message: Message) -> None:
        raise AssertionError(message)

    application = asgi.Application(things, Hub(), THREADS)
    asyncio.run(application(scope, receive, send))
    assert things.asked == 0
