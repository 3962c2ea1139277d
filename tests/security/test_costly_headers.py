"""What a request says before it is known who asks: little work, and a clear refusal."""

import io
import logging
import socket
import time
from collections.abc import Callable
from typing import Any

import pytest

from banyan import logs
from banyan.preferences import preferences
from banyan.server import bridge, edge
from banyan.server.protocol import HEADERS_MAX, PATH_BYTES_MAX
from tests.contract.playing import word
from tests.harness import Server
from tests.harness.asgi import served
from tests.harness.things import Things

LISTS = {
    "Accept": "a/a,",
    "Accept-Encoding": "gzip,",
    "If-None-Match": '"a",',
    "If-Match": '"a",',
    "Prefer": "a,",
    "Authorization": "Basic ",
    "Content-Type": "a/a;b=c;",
    "Host": "a.",
    "Origin": "a",
}


@pytest.mark.parametrize(
    ("name", "repeated"),
    [(name, False) for name in LISTS]
    + [(name, True) for name in LISTS if name not in ("Host", "Content-Type")],  # never joined
)
def test_a_list_without_end_is_refused_before_it_is_taken_apart(name: str, repeated: bool) -> None:
    times = bridge.PARSED_BYTES_MAX // len(LISTS[name]) + 1
    lines = [f"{name}: {LISTS[name] * (times // 2)}"] * 3 if repeated else []
    lines = lines or [f"{name}: {LISTS[name] * times}"]
    lines += [] if name == "Host" else ["Host: x"]
    asked = "\r\n".join(["GET / HTTP/1.1", *lines, "Connection: close", "", ""]).encode()
    things = Things()
    with served(things) as front:
        answer = front.raw(asked)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert f"the header {name} has ".encode() in answer
    assert b"bad_request" in answer
    assert things.asked == 0


def test_a_request_has_so_many_headers() -> None:
    many = b"".join(b"a%d: b\r\n" % number for number in range(HEADERS_MAX))
    with served(Things()) as front:
        answer = front.raw(b"GET / HTTP/1.1\r\nHost: x\r\n" + many + b"\r\n")
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert f"{HEADERS_MAX} headers".encode() in answer


@pytest.mark.parametrize("character", ["%", "a"])
def test_an_address_has_an_end(character: str) -> None:
    things = Things()
    with served(things) as front:
        path = "/" + character * PATH_BYTES_MAX
        answer = front.raw(f"GET {path}?a=b HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        assert answer.startswith(b"HTTP/1.1 400 ")
        assert f"{PATH_BYTES_MAX} bytes before its query".encode() in answer
        assert things.asked == 0
        lines = f"GET {path[:-1]}?{'a' * 4096} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        assert front.raw(lines.encode()).startswith(b"HTTP/1.1 200 ")


COSTLY = [
    lambda length: preferences(f"a={' ' * length}/"),
    lambda length: preferences(f"{' ' * length}a{' ' * length}/"),
    lambda length: logs._hide("://a:" * (length // 5)),
    lambda length: logs._hide("://" + "a" * length),
    lambda length: logs._hide("://a:" + "b" * length),
]


@pytest.mark.parametrize("read", COSTLY)
def test_what_strangers_say_costs_no_more_than_its_length(read: Callable[[int], Any]) -> None:
    """By the square of it each of these would take minutes."""
    before = time.monotonic()
    read(400_000)
    assert time.monotonic() - before < 30


def test_a_line_of_the_log_holds_no_more_of_an_address(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logs.Json("server"))
    monkeypatch.setattr(bridge.logger, "handlers", [handler])
    monkeypatch.setattr(bridge.logger, "level", logging.INFO)
    bridge.logger.manager._clear_cache()  # of what is enabled
    with served(Things()) as front:
        path = f"/{'a' * 1000}"
        front.raw(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    line = stream.getvalue()
    assert "aaaa" in line
    assert len(line) < 1000


def test_a_query_has_so_many_arguments(server: Server) -> None:
    query = "&".join(f"a{number}=1" for number in range(edge.ARGUMENTS_MAX + 1))
    answer = server.provider.get(f"tasks?{query}")
    assert word(answer) == (400, "bad_request")
    assert "at most" in answer.json()["_error"]["message"]
    assert server.anonymous.get(f"tasks?{query}").status_code == 401


def test_who_asks_is_found_out_first(server: Server) -> None:
    def refused(api: Any, **headers: str) -> int:
        answer = api.request("POST", "tasks", data=b"{}", headers=headers)
        return int(answer.status_code)

    for wrong, status in (
        ({"Accept": "image/png", "Content-Type": "application/json"}, 406),
        ({"Content-Type": "text/plain"}, 415),
        ({"Content-Type": "application/json", "Origin": "https://evil.example"}, 403),
    ):
        assert refused(server.anonymous, **wrong) == 401
        assert refused(server.provider, **wrong) == status


@pytest.mark.parametrize("more", [b"", b"GET /second HTTP/1.1\r\nHost: x\r\n\r\n", b"\x00\x01"])
def test_who_asks_for_another_protocol_is_answered_and_let_go(more: bytes) -> None:
    asked = b"GET /first HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"
    with served(Things()) as front, socket.create_connection(("127.0.0.1", front.port), 30) as one:
        one.sendall(asked + more)
        answer = b""
        while chunk := one.recv(65536):
            answer += chunk
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert answer.count(b"HTTP/1.1 ") == 1
    assert b"\r\nconnection: close\r\n" in answer
