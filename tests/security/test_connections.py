"""How many connections there may be: nobody locks others out with connections that say nothing."""

import json
import resource
import socket
import ssl
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from banyan.config import knobs
from banyan.server import connections
from banyan.server.connections import Connections, Standing, most_connections
from banyan.server.exposure import Tls
from banyan.server.refusals import network_of
from tests.harness import Processes, Server, eventually
from tests.harness.asgi import served
from tests.harness.things import Things

CERTIFICATES = Path(__file__).with_name("certificates")
GET = b"GET /tasks HTTP/1.1\r\nHost: x\r\n"


class Silent:
    """A connection that says nothing, or waits for its answer."""

    def __init__(self, busy: bool = False, standing: Standing = Standing.SILENT) -> None:
        self.busy, self.ended = busy, False
        self.said = standing

    def is_busy(self) -> bool:
        return self.busy

    def standing(self) -> Standing:
        return self.said

    def end(self) -> None:
        self.ended = True

    def be_late(self) -> None:
        """Nobody looks here."""


@contextmanager
def crowd(port: int, count: int) -> Iterator[list[socket.socket]]:
    """So many connections that say nothing."""
    with ExitStack() as stack:
        yield [
            stack.enter_context(socket.create_connection(("127.0.0.1", port), 30))
            for _ in range(count)
        ]


def is_open(connection: socket.socket) -> bool:
    connection.setblocking(False)
    try:
        return connection.recv(1) != b""
    except BlockingIOError:
        return True
    except ConnectionResetError:
        return False


def count_open(silent: list[socket.socket]) -> int:
    return sum(is_open(one) for one in silent)


def port_of(server: Server) -> int:
    return int(server.url.rpartition(":")[2])


def test_the_oldest_of_one_address_make_room_and_valid_tokens_are_served(
    serve: Callable[..., Server],
) -> None:
    server = serve(CONNECTIONS_PER_ADDRESS_MAX=20)
    with socket.create_connection(("127.0.0.1", port_of(server)), 30) as trusted:
        token = server.tokens["provider"].encode()
        asked = GET + b"Authorization: Bearer " + token + b"\r\n\r\n"
        trusted.sendall(asked)
        assert trusted.recv(65536).startswith(b"HTTP/1.1 200 ")
        with crowd(port_of(server), 100) as silent:
            assert server.anonymous.get("healthz").status_code == 200
            eventually(lambda: count_open(silent) <= 20)
            assert server.account("provider").get("tasks").status_code == 200
            assert is_open(silent[-1])
            assert not is_open(silent[0])
        trusted.setblocking(True)
        trusted.sendall(asked)  # neither the oldest nor silent for long: it has a valid token
        assert trusted.recv(65536).startswith(b"HTTP/1.1 200 ")


def test_all_together_have_a_bound_too_and_half_is_kept_for_valid_tokens(
    serve: Callable[..., Server],
) -> None:
    server = serve(CONNECTIONS_MAX=40, CONNECTIONS_PER_ADDRESS_MAX=0)
    with crowd(port_of(server), 100) as silent:
        assert server.provider.get("tasks").status_code == 200
        eventually(lambda: count_open(silent) <= 20)


def test_so_have_those_that_never_end_their_handshake() -> None:
    tls = Tls(CERTIFICATES / "here.pem", CERTIFICATES / "here.key")
    some = Connections(1000, 10)
    client = ssl.create_default_context(cafile=str(CERTIFICATES / "here.pem"))
    with served(Things(), connections=some, tls=tls) as front, crowd(front.port, 50) as silent:
        eventually(lambda: count_open(silent) <= 10)
        assert some.count <= 10
        with (
            socket.create_connection(("127.0.0.1", front.port), 30) as plain,
            client.wrap_socket(plain, server_hostname="localhost") as connection,
        ):
            connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")
    assert some.count == 0


def test_what_ends_makes_room_however_it_ends() -> None:
    some = Connections(1000, 1000)
    with served(Things(), connections=some) as front:
        with crowd(front.port, 5) as silent:
            eventually(lambda: some.count == 5)
            silent[0].sendall(b"nonsense\r\n\r\n")
            silent[1].sendall(b"GET / HTTP/1.0\r\n\r\n")
            eventually(lambda: some.count == 3)
        eventually(lambda: some.count == 0)


def test_those_who_have_said_least_make_room_first() -> None:
    some = Connections(1000, 8)
    order = [Standing.ARRIVED, Standing.CLAIMS, Standing.ASKS, Standing.SILENT]
    holders = [Silent(standing=one) for one in order * 2]
    assert all(some.enter("a", one) for one in holders)
    for place in (3, 7, 2, 6, 1, 5):
        assert not holders[place].ended
        assert some.enter("a", Silent(standing=Standing.ARRIVED))
        assert holders[place].ended
    assert not holders[0].ended
    assert not holders[4].ended
    assert some.enter("a", Silent()) is None  # there is nobody left to go
    assert some.enter("b", Silent())
    assert some.enter("", Silent())
    assert some.count == 10


def test_the_network_that_has_most_makes_room() -> None:
    some = Connections(40, 0)  # 20 newcomers
    few = [Silent() for _ in range(3)]
    assert all(some.enter("few", one) for one in few)  # though they are the oldest
    many = [Silent() for _ in range(200)]
    assert all(some.enter("many", one) for one in many)
    local = [Silent() for _ in range(200)]
    assert all(some.enter("", one) for one in local)
    assert not any(one.ended for one in few)
    assert [sum(not one.ended for one in group) for group in (many, local)] in ([8, 9], [9, 8])


def test_all_addresses_of_this_machine_are_one_network() -> None:
    ours = ("127.0.0.1", "127.77.3.9", "::1", "::ffff:127.0.0.1", "::ffff:127.9.9.9")
    assert len({network_of(one) for one in ours}) == 1
    others = ("10.0.0.1", "10.0.0.2", "2001:db8::1", "::ffff:10.0.0.3")
    assert len({network_of(one) for one in (*ours, *others)}) == 5


def test_from_many_addresses_of_this_machine_nobody_has_more_than_from_one(
    serve: Callable[..., Server],
) -> None:
    server = serve(CONNECTIONS_PER_ADDRESS_MAX=20)
    with ExitStack() as stack:
        silent = []
        for number in range(100):
            address, source = ("127.0.0.1", port_of(server)), (f"127.5.{number}.1", 0)
            silent.append(socket.create_connection(address, 30, source))
            stack.enter_context(silent[-1])
        eventually(lambda: count_open(silent) <= 20)
        assert server.account("provider").get("tasks").status_code == 200


class Stuck(Things):
    """Answers nobody before it may."""

    def __init__(self) -> None:
        super().__init__()
        self.go_on = threading.Event()

    def __call__(self, environ: Any, start_response: Any) -> Any:
        self.go_on.wait(20)
        return super().__call__(environ, start_response)


@pytest.mark.parametrize("token", ["", "Authorization: Bearer of-nobody\r\n"])
def test_requests_of_strangers_that_wait_lock_nobody_out(token: str) -> None:
    """They make room for those who come with a token that is known, or with one at all."""
    some, stuck = Connections(1000, 150), Stuck()  # some are accepted before any is read
    known = "Bearer known"
    accounts = {"account_of": lambda header: "me" if header == known else None}
    stranger = f"GET /readyz HTTP/1.1\r\nHost: x\r\n{token}\r\n".encode()
    mine = f"GET / HTTP/1.1\r\nHost: x\r\nAuthorization: {known}\r\n\r\n".encode()
    with (
        served(stuck, connections=some, knows=lambda header: header == known, **accounts) as front,
        ExitStack() as stack,
    ):
        address = ("127.0.0.1", front.port)
        asking = [stack.enter_context(socket.create_connection(address, 30)) for _ in range(150)]
        for one in asking:
            one.sendall(stranger)
        eventually(lambda: are_busy(some) == 150)
        ours = []
        for _ in range(20):
            ours.append(stack.enter_context(socket.create_connection(address, 30)))
            ours[-1].sendall(mine)
            others = stack.enter_context(socket.create_connection(address, 30))
            others.sendall(stranger)
        eventually(lambda: some._trusted.count == 20)
        stuck.go_on.set()
        for one in ours:
            assert one.recv(65536).startswith(b"HTTP/1.1 200 ")


def are_busy(some: Connections) -> int:
    """How many newcomers wait for an answer."""
    found = list(some._newcomers.of_most())  # of one network
    return sum(one.holder.is_busy() for one in found)


@pytest.mark.parametrize("most_of_network", [0, 200])
def test_those_that_are_always_busy_lock_nobody_out(most_of_network: int) -> None:
    """Though there are as many as are looked at, and they are the oldest."""
    some = Connections(400, most_of_network)
    busy = [Silent(standing=Standing.ASKS) for _ in range(connections._LOOKED_AT_MAX)]
    idle = [Silent() for _ in range(200 - len(busy))]
    assert all(some.enter("a", one) for one in [*busy, *idle])
    assert all(some.enter("a", Silent()) for _ in range(len(idle)))
    assert sum(one.ended for one in busy) == 1
    assert sum(one.ended for one in idle) == len(idle) - 1


def entered(some: Connections, account: str, holder: Silent | None = None) -> Silent:
    """One more connection, by which a token of this account has come."""
    holder = holder or Silent()
    connection = some.enter("", holder)
    assert connection
    connection.trust(account)
    return holder


def test_trusted_ones_leave_some_room_and_newcomers_never_displace_them() -> None:
    some = Connections(16, 0)
    trusted = [entered(some, "a") for _ in range(14)]
    newcomers = [Silent() for _ in range(100)]
    assert all(some.enter("b", one) for one in newcomers)
    assert not any(one.ended for one in trusted)
    assert [one.ended for one in newcomers] == [True] * 98 + [False] * 2
    assert some.count == 16


def test_whoever_has_most_gives_way() -> None:
    some = Connections(16, 0)
    many = [entered(some, "many") for _ in range(14)]
    few = [entered(some, "few") for _ in range(5)]
    assert [one.ended for one in many] == [True] * 5 + [False] * 9
    assert not any(one.ended for one in few)
    more = [entered(some, "many") for _ in range(100)]  # at its own cost
    assert not any(one.ended for one in few)
    assert sum(not one.ended for one in many + more) == 9
    others = [entered(some, f"other {number}") for number in range(4)]
    assert not any(one.ended for one in few + others)
    assert some.count == 14


def test_who_leaves_twice_leaves_once() -> None:
    some = Connections(16, 0)
    entered(some, "b")
    newcomer = some.enter("a", Silent())
    assert newcomer
    newcomer.leave()
    newcomer.leave()
    assert some.count == 1


def test_of_those_the_idle_ones_go_first_and_at_last_the_busy_ones() -> None:
    some = Connections(16, 0)
    busy = [entered(some, "many", Silent(busy=True)) for _ in range(10)]
    idle = [entered(some, "many") for _ in range(4)]
    for _ in range(4):
        entered(some, "few")
    assert all(one.ended for one in idle)
    assert not any(one.ended for one in busy)
    entered(some, "few")
    assert sum(one.ended for one in busy) == 1
    assert some.count == 14


def test_of_many_busy_ones_a_few_are_looked_at_and_then_others() -> None:
    class Asked(Silent):
        count = 0

        def is_busy(self) -> bool:
            Asked.count += 1
            return self.busy

    some = Connections(800, 0)
    busy = [entered(some, "many", Asked(busy=True)) for _ in range(400)]
    idle = [entered(some, "many", Asked()) for _ in range(300)]
    for _ in range(20):
        entered(some, "few", Asked())
    assert Asked.count <= 20 * connections._LOOKED_AT_MAX
    assert sum(one.ended for one in idle) + sum(one.ended for one in busy) == 20
    assert sum(one.ended for one in busy) < 10
    assert any(one.ended for one in idle)


def test_what_was_displaced_before_its_token_was_found_valid_takes_no_place() -> None:
    some = Connections(16, 1)
    displaced = [some.enter("a", Silent()) for _ in range(15)]
    for number, one in enumerate(displaced[:-1]):
        assert one
        one.trust(f"a{number}")
    others = [entered(some, "b") for _ in range(14)]
    assert not any(one.ended for one in others)
    assert some.count == 15


def test_one_account_with_all_connections_locks_nobody_out(
    serve: Callable[..., Server],
) -> None:
    server = serve(CONNECTIONS_MAX=40, CONNECTIONS_PER_ADDRESS_MAX=0)
    asked = GET + b"Authorization: Bearer " + server.tokens["provider"].encode() + b"\r\n\r\n"
    held = asked[:-2] + b"Prefer: wait=60\r\nIf-None-Match: *\r\n\r\n"
    token = server.operator.token or ""
    mine = asked.replace(server.tokens["provider"].encode(), token.encode())
    with socket.create_connection(("127.0.0.1", port_of(server)), 30) as operator:
        assert answered(operator, mine)
        for then in (b"", held):
            with ExitStack() as stack:
                many = []
                for _ in range(100):
                    address = ("127.0.0.1", port_of(server))
                    many.append(stack.enter_context(socket.create_connection(address, 30)))
                    assert answered(many[-1], asked)
                    many[-1].sendall(then)
                assert server.anonymous.get("healthz").status_code == 200
                assert server.account("worker", name=f"new{len(then)}").get("tasks").ok
                assert answered(operator, mine)  # by the one it had all the time
                eventually(lambda many=many: count_open(many) <= 35)


def test_the_limit_of_open_files_is_raised_and_kept_to(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = [(256, 1024)]
    monkeypatch.setattr(resource, "getrlimit", lambda of: limits[-1])
    monkeypatch.setattr(resource, "setrlimit", lambda of, pair: limits.append(pair))
    assert most_connections() == 1024 - connections.FILES_KEPT
    assert limits[-1] == (1024, 1024)
    limits.append((1024, 1_000_000))
    assert most_connections() == knobs().CONNECTIONS_MAX
    limits.append((60, 60))
    assert most_connections() == connections.CONNECTIONS_LEAST


def test_with_few_files_the_database_and_health_are_reached_all_the_same(
    processes: Processes, tmp_path: Path, fresh_database: str
) -> None:
    few = (
        "import os, resource, sys\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (200, 200))\n"
        "os.execv(sys.executable, [sys.executable, '-m', 'banyan', *sys.argv[1:]])"
    )
    options = ["server", "--json", "--data", str(tmp_path / "data"), "--port", "0"]
    environment = {"BANYAN_MONGO_URI": fresh_database}
    started = processes.start([sys.executable, "-c", few, *options], environment)
    ready = json.loads(started.line())
    server = Server(started, ready["url"], Path(ready["credentials"]))
    with crowd(port_of(server), 400) as silent:
        for path in ("healthz", "readyz"):
            assert server.anonymous.get(path).status_code == 200
        assert server.account("provider").get("tasks").status_code == 200
        eventually(lambda: count_open(silent) < 200 - connections.FILES_KEPT)
    asked = GET + b"Authorization: Bearer " + server.tokens["provider"].encode() + b"\r\n\r\n"
    with ExitStack() as stack:
        trusted = []
        for _ in range(200):
            address = ("127.0.0.1", port_of(server))
            trusted.append(stack.enter_context(socket.create_connection(address, 30)))
            assert answered(trusted[-1], asked)
        assert server.anonymous.get("readyz").status_code == 200
        eventually(lambda: 1 < count_open(trusted) < 200 - connections.FILES_KEPT)
    assert "Too many open files" not in started.stderr


def answered(connection: socket.socket, asked: bytes) -> bool:
    """Whether there is an answer; else it was closed."""
    try:
        connection.sendall(asked)
        return connection.recv(65536).startswith(b"HTTP/1.1 200 ")
    except OSError:
        return False
