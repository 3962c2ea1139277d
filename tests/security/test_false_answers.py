"""Somebody else in the place of the server: answers without end, packed, or without sense.

Where one is waited for to its end, or believed, a client or a worker is of no use any more.
"""

import gzip
import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from banyan.client import bounds
from banyan.client.api import Client
from banyan.client.transport import Transport
from banyan.errors import BanyanError
from banyan.worker import answers
from banyan.worker.connection import Connection
from tests.client.scripted import Scripted, ok
from tests.client.scripted import server as server
from tests.harness import eventually

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
DEADLINE_SECONDS = 30.0  # of what takes about a second


@contextmanager
def dripping(first: bytes, drip: bytes) -> Iterator[str]:
    """Answers each request with `first`, then with `drip` again and again, a piece at a time."""
    listener = socket.create_server(("127.0.0.1", 0))
    over = threading.Event()

    def serve(one: socket.socket) -> None:
        try:
            one.recv(1 << 16)
            one.sendall(first)
            while not over.wait(0.1):
                one.sendall(drip)
        except OSError:
            pass
        one.close()

    def accept() -> None:
        while True:
            try:
                one, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(one,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        over.set()
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def ended_in_time(call: Callable[[], Any]) -> BanyanError:
    """The error with which it ends; it is not waited for to a drip's end."""
    caught: list[BaseException] = []

    def run() -> None:
        try:
            call()
        except BaseException as error:
            caught.append(error)

    threading.Thread(target=run, daemon=True).start()
    (error,) = eventually(lambda: caught, DEADLINE_SECONDS)
    assert isinstance(error, BanyanError), repr(error)
    return error


DRIPS = {
    "body": (HEAD + b"Content-Length: 100000\r\n\r\n", b" "),
    "chunks": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n"),
    "size of a chunk": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"0"),
    "headers": (HEAD, b"X: y\r\n"),
    "one header": (HEAD + b"X: ", b"y"),
    "first line": (b"HTTP/1.1", b" "),
    "not yet": (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
}


@pytest.mark.parametrize("where", DRIPS)
def test_a_drip_is_not_waited_for(where: str) -> None:
    with dripping(*DRIPS[where]) as url:
        transport = Transport(url, retry_seconds=0)
        error = ended_in_time(lambda: transport.request("GET", "/", timeout_seconds=1.0))
        assert error.word == "unavailable"
        connection = Connection(url, "")
        error = ended_in_time(lambda: connection.held("GET", "/", None, 0, 1.0))
        assert error.word == "unavailable"


def test_what_comes_in_order_may_take_longer_than_the_timeout(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(bounds, "BYTES_PER_SECOND_MIN", 1)
    body = b"[" + b" " * 24 + b"]"
    first = HEAD + b"Content-Length: 26\r\n\r\n["
    drips = iter(body[1:].decode())
    pause = threading.Event()  # never set
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            one, _ = listener.accept()
            one.recv(1 << 16)
            one.sendall(first)
            for drip in drips:
                pause.wait(0.1)
                one.sendall(drip.encode())
            one.close()

        threading.Thread(target=serve, daemon=True).start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        transport = Transport(url, retry_seconds=0)
        assert transport.request("GET", "/", timeout_seconds=2.0).body == []


def test_a_packed_answer_is_not_unpacked(server: Scripted) -> None:
    bomb = gzip.compress(b" " * 100_000_000)
    server.replies = [(200, {"Content-Encoding": "gzip"}, bomb)]
    for raw in (False, True):
        with pytest.raises(BanyanError, match="packed"):
            Transport(server.url, retry_seconds=0).request("GET", "/", raw=raw)
    assert server.asked[0].headers["Accept-Encoding"] == "identity"


@pytest.mark.parametrize("raw", [False, True])
def test_an_answer_without_end_is_not_read_to_it(
    server: Scripted, monkeypatch: pytest.MonkeyPatch, raw: bool
) -> None:
    monkeypatch.setattr(bounds, "ANSWER_BYTES_MAX", 3 << 20)
    server.replies = [ok(" " * (2 << 20))]
    assert len(Transport(server.url).request("GET", "/").body) == 2 << 20
    server.replies = [ok(" " * (4 << 20))]
    with pytest.raises(BanyanError, match="more than 3 MiB") as caught:
        Transport(server.url, retry_seconds=0).request("GET", "/", raw=raw)
    assert caught.value.word == "unavailable"
    with pytest.raises(BanyanError, match="more than 3 MiB") as caught:
        Connection(server.url, "").held("GET", "/", None, 0)


def test_an_answer_of_many_levels_is_no_banyan_servers(server: Scripted) -> None:
    server.replies = [(200, {}, b"[" * 200_000)]
    with pytest.raises(BanyanError, match="does not answer like"):
        Transport(server.url).request("GET", "/")


@pytest.mark.parametrize(
    "told", [{"_error": {"word": ["x"], "message": [[]]}}, {"_error": {}, "_issues": "abc"}]
)
def test_an_error_of_no_shape_is_an_error(server: Scripted, told: Any) -> None:
    server.replies = [(422, {}, json.dumps(told).encode())]
    with pytest.raises(BanyanError) as caught:
        Transport(server.url).request("POST", "/tasks", json={})
    assert (caught.value.word, caught.value.issues) == ("invalid", {})


@pytest.mark.parametrize("size", [0, -1])
def test_pages_of_no_size_end(server: Scripted, size: int) -> None:
    server.replies = [ok({"_items": [], "_meta": {"max_results": size, "page": 1}})]
    with pytest.raises(BanyanError, match="no place in it"):
        list(Client(server.url, "t").find())
    assert len(server.asked) == 1


@pytest.mark.parametrize("place", ["0", "-1"])
def test_output_that_never_goes_on_is_not_asked_for_without_end(
    server: Scripted, place: str
) -> None:
    headers = {"Banyan-Log-Attempt": "1", "Banyan-Log-Next-Offset": "5", "Banyan-Log-More": "true"}
    last = (200, {**headers, "Banyan-Log-More": "false"}, b"end")
    server.replies = [
        (200, headers, b"first"),
        (200, {**headers, "Banyan-Log-Next-Offset": place}, b"again"),
        last,
    ]
    with pytest.raises(BanyanError, match="does not answer like") as caught:
        Client(server.url, "t").log("5" * 24)
    assert caught.value.word == "unavailable"
    server.replies = [(200, headers, b"first"), last]
    assert Client(server.url, "t").log("5" * 24) == b"firstend"


# --- what a worker believes --------------------------------------------------------------

TASK = {
    "_id": "5" * 24, "attempt_id": "4" * 24, "token": "t", "attempt_count": 1, "command": "true",
    "granted_resources": {"cores": 1, "memory_bytes": 1}, "env": {"A": "b", "C": {"secret": "d"}},
    "timeout_milliseconds": 1000,
}  # fmt: skip


def test_a_task_as_servers_give_it_is_one() -> None:
    assert answers.claimed({"_items": [TASK]}) == ([TASK], [])


@pytest.mark.parametrize(
    "wrong",
    [
        {"granted_resources": {"memory_bytes": 1}},
        {"granted_resources": {"cores": float("nan"), "memory_bytes": 1}},
        {"granted_resources": {"cores": float("inf"), "memory_bytes": 1}},
        {"granted_resources": {"cores": -1, "memory_bytes": 1}},
        {"granted_resources": {"cores": 1, "memory_bytes": 10**400}},
        {"granted_resources": {"cores": 1, "memory_bytes": 1.0}},
        {"granted_resources": {"cores": 1, "memory_bytes": True}},
        {"granted_resources": {"cores": 1, "memory_bytes": 1, "gpu_count": 1.5}},
        {"granted_resources": {"cores": 1, "memory_bytes": 1, "gpu_memory_bytes": 0.5}},
        {"granted_resources": {"cores": 1, "memory_bytes": 1, "disk_bytes": 1e9}},
        {"granted_resources": {"cores": 1, "memory_bytes": 1, "disk_bytes": -1}},
        {"env": {"A": {}}},
        {"env": {"A": {"secret": [1]}}},
        {"env": {"A": {"secret": None}}},
        {"env": {"A": {"secret": "\ud800"}}},
        {"env": {"A": {"secret": "a b"}}},
        {"env": {"A": 1}},
        {"timeout_milliseconds": float("nan")},
        {"timeout_milliseconds": 1e300},
        {"max_shutdown_time_milliseconds": -1},
    ],
    ids=repr,
)
def test_a_task_without_sense_does_not_come_to_the_loop(wrong: dict[str, Any]) -> None:
    usable, unusable = answers.claimed({"_items": [{**TASK, **wrong}]})
    assert usable == []
    assert len(unusable) == 1


LEASES = [1e300, 86_401, 10**400, 0, 0.5, -1, float("nan"), float("inf"), True, "60", None]


@pytest.mark.parametrize("lease", LEASES, ids=lambda lease: repr(lease)[:20])
def test_a_lease_without_sense_is_not_believed(lease: Any) -> None:
    said = {"lease_seconds": lease, "mode": "active", "cancel": [], "lost": []}
    beat = {**said, "wanted": {"number": 0, "attempts": []}}
    for check, answer in ((answers.beat, beat), (answers.registered, {**said, "_id": "5" * 24})):
        with pytest.raises(BanyanError) as caught:
            check(answer)
        assert caught.value.word == "internal"
        for right in (1, 60.0, 86_400):
            check({**answer, "lease_seconds": right})


def test_what_cannot_be_asked_is_told_once(
    caplog: pytest.LogCaptureFixture, server: Scripted
) -> None:
    server.replies = [ok({})]
    connection = Connection(server.url, "")
    for _ in range(3):
        with pytest.raises(BanyanError) as caught:
            connection.held("GET", "/", None, 1e300)
        assert caught.value.word == "unavailable"
    assert [one.levelname for one in caplog.records if "could not be read" in one.message] == [
        "WARNING"
    ]
