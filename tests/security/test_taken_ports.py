"""All ports for new connections are taken, by one task or local user: root's worker goes on.

Each test has a network of its own with few ports, so that the machine's stay free.
"""

import ctypes
import errno
import logging
import os
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from banyan.errors import BanyanError
from banyan.worker import ports
from banyan.worker.claims import Wish
from banyan.worker.connection import Connection
from banyan.worker.mailbox import Mailbox
from banyan.worker.registration import Registration
from tests.client.scripted import Scripted, error, ok, scripted_server
from tests.client.scripted import server as server
from tests.harness import eventually
from tests.worker import test_unanswered
from tests.worker.test_run_as import needs_root

CERTIFICATES = Path(__file__).with_name("certificates")
FIRST, LAST = 40_000, 40_019
# As another user it takes all that it can get: those, and root's own where it may.
HOG = f"""
import os, socket
os.setgroups([]); os.setgid(65534); os.setuid(65534)
held = []
for port in [*range(1, 1024), *range({FIRST}, {LAST + 1})]:
    one = socket.socket()
    try:
        one.bind(("", port))
        held.append(one)
    except OSError:
        one.close()
print("there", flush=True)
os.read(0, 1)
"""
_NEW_NETWORK = 0x40000000

slow = test_unanswered.server


@pytest.fixture
def network() -> Iterator[None]:
    """A network of this thread's own, and of what it starts meanwhile."""
    libc = ctypes.CDLL(None, use_errno=True)
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        if libc.unshare(_NEW_NETWORK):
            pytest.skip(f"no network of our own: {os.strerror(ctypes.get_errno())}")
        try:
            subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
            settings = Path("/proc/sys/net/ipv4")
            (settings / "ip_local_port_range").write_text(f"{FIRST} {LAST}")
            (settings / "tcp_tw_reuse").write_text("0")  # which would free one now and then
            yield
        finally:
            assert libc.setns(before, _NEW_NETWORK) == 0
    finally:
        os.close(before)


@contextmanager
def all_taken() -> Iterator[None]:
    """There is no free port meanwhile."""
    argv = [sys.executable, "-c", HOG]
    hog = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert hog.stdin
    assert hog.stdout
    try:
        assert hog.stdout.readline() == b"there\n"
        yield
    finally:
        hog.kill()
        hog.communicate()


@pytest.fixture
def secure() -> Iterator[Scripted]:
    """A server with a certificate."""
    with scripted_server() as made:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(CERTIFICATES / "here.pem", CERTIFICATES / "here.key")
        made.server.socket = context.wrap_socket(made.server.socket, server_side=True)
        made.url = made.url.replace("http:", "https:")
        yield made


def port_of(connection: Connection) -> int:
    """Where the connection comes from."""
    assert connection._socket
    return int(socket.socket.getsockname(connection._socket)[1])


@needs_root
def test_a_claim_that_was_broken_off_is_sent_again(
    network: None, slow: test_unanswered.Slow, caplog: pytest.LogCaptureFixture
) -> None:
    connect = lambda: Connection(slow.url, "token", "")  # noqa: E731
    registration = Registration("w", 0.2, connect, Mailbox(), list, dict)
    try:
        registration.want(Wish({"cores": 1, "memory": 1}, 1))
        eventually(lambda: slow.claims and slow.lists)
        with all_taken():
            more = Wish({"cores": 2, "memory": 1}, 2)
            eventually(lambda: [registration.want(more), slow.claims[1:]][1])
        assert slow.claims[0] == slow.claims[1]
    finally:
        registration.stop()
    assert "claims: " not in caplog.text, "to break off is no outage"


@needs_root
def test_so_is_all_else_of_a_worker(
    network: None, server: Scripted, secure: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.replies = secure.replies = [ok({})]
    with all_taken():
        plain = Connection(server.url, "")
        assert plain.held("GET", "/", None, 0).status == 200
        assert port_of(plain) in ports.OWN_PORTS
        tls = Connection(secure.url, "", str(CERTIFICATES / "here.pem"))
        assert tls.held("GET", "/", None, 0).status == 200
        assert port_of(tls) in ports.OWN_PORTS
        monkeypatch.setenv("http_proxy", server.url)
        by_proxy = Connection("http://head.example.org:5100", "")
        assert by_proxy.held("GET", "/through", None, 0).status == 200
        assert server.asked[-1].path == "http://head.example.org:5100/through"
        assert Connection(server.url, "").held("GET", "/", None, 0).status == 200, "one more"


@needs_root
def test_so_it_is_where_the_servers_last_address_fails_otherwise(
    network: None, server: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.replies = [ok({})]
    host, port = server.server.server_address[:2]
    addresses = [
        (socket.AF_INET, socket.SOCK_STREAM, 0, "", (host, port)),
        (socket.AF_INET, socket.SOCK_STREAM, 0, "", ("192.0.2.1", port)),  # no way leads there
    ]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_: addresses)
    with all_taken():
        assert Connection("http://head.example.org", "").held("GET", "/", None, 0).status == 200


@needs_root
def test_hundreds_may_be_broken_off(network: None, server: Scripted) -> None:
    """Each keeps its port for a minute."""
    server.replies = [ok({})]
    with all_taken():
        for _ in range(len(ports.OWN_PORTS) - 24):
            connection = Connection(server.url, "")
            eventually(lambda one=connection: answered(one))
            connection.break_off()


def answered(connection: Connection) -> bool:
    try:
        return connection.held("GET", "/", None, 0).status == 200
    except BanyanError:
        return False


@needs_root
def test_a_service_may_begin_to_listen_there(network: None, server: Scripted) -> None:
    server.replies = [ok({})]
    connection = Connection(server.url, "")
    with all_taken():
        connection.held("GET", "/", None, 0)
        with socket.create_server(("127.0.0.1", port_of(connection))):
            assert connection.held("GET", "/", None, 0).status == 200


@needs_root
def test_nor_is_one_in_the_way_that_listens(
    network: None, server: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.replies = [ok({})]
    monkeypatch.setattr(ports, "OWN_PORTS", range(600, 600 + ports._TRIES))
    with all_taken(), socket.create_server(("127.0.0.1", 600)):
        for _ in range(ports._TRIES - 1):
            kept = Connection(server.url, "")
            assert kept.held("GET", "/", None, 0).status == 200
            assert port_of(kept) != 600


@needs_root
def test_who_is_not_root_says_why_once_and_when_it_is_over(
    network: None,
    server: Scripted,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    server.replies = [ok({})]
    connection = Connection(server.url, "")
    with all_taken():
        for _ in range(5):
            with pytest.raises(BanyanError) as caught:
                connection.held("GET", "/", None, 0)
            assert caught.value.word == "unavailable"
    for _ in range(3):
        connection.held("GET", "/", None, 0)
    why, over = told_in(caplog)
    assert f"no server answers at {server.url} ({os.strerror(errno.EADDRNOTAVAIL)})" in why
    assert over == "MainThread: the server can be reached again"


def told_in(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [one.message for one in caplog.records if one.levelno >= logging.WARNING]


def test_a_server_that_is_away_is_told_of_once(
    server: Scripted, caplog: pytest.LogCaptureFixture
) -> None:
    connection = Connection(server.url, "")
    cut, busy, refused, good = None, (503, {}, b""), error(404, "not_found"), ok({})
    server.replies = [cut, good, busy, refused]
    for _ in range(4):
        answered(connection)
    assert told_in(caplog) == [], "never twice in a row"
    server.replies = [cut, cut, busy, busy, refused, cut, cut, good, good]
    for _ in range(9):
        answered(connection)
    first, over, second, over_again = told_in(caplog)
    assert first == second
    assert first.startswith(
        f"MainThread: the server can't be reached: the connection to {server.url}"
    )
    assert over == over_again == "MainThread: the server can be reached again"


def test_a_request_that_was_broken_off_is_no_outage(
    server: Scripted, caplog: pytest.LogCaptureFixture
) -> None:
    server.replies = [ok({})]
    connection = Connection(server.url, "")
    for _ in range(3):
        connection.break_off()
        assert not answered(connection)
    connection.allow()
    assert answered(connection)
    assert told_in(caplog) == []
