"""HTTP in front of the WSGI application: bodies, headers, limits and errors."""

import json
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from banyan.config import knobs
from banyan.server import connections, intake
from banyan.server.store import told
from tests.harness import eventually
from tests.harness.asgi import Served, served
from tests.harness.things import Things


@pytest.fixture
def things() -> Things:
    return Things()


@pytest.fixture
def server(things: Things) -> Iterator[Served]:
    with served(things) as running:
        yield running


def head_and_body(answer: bytes) -> tuple[str, bytes]:
    head, _, body = answer.partition(b"\r\n\r\n")
    return head.decode("latin-1").lower(), body


def error(answer: bytes) -> dict[str, Any]:
    """The error in a raw answer, which must be JSON in the one shape, and close."""
    head, body = head_and_body(answer)
    assert "content-type: application/json" in head
    assert "connection: close" in head
    told = json.loads(body)
    assert told["_status"] == "ERR"
    assert head.startswith(f"http/1.1 {told['_error']['code']}")
    found: dict[str, Any] = told["_error"]
    return found


# --- How it is sent --------------------------------------------------------------------


def test_an_answer_comes_in_one_piece(server: Served) -> None:
    with socket.create_connection(("127.0.0.1", server.port), 10) as connection:
        for _ in range(20):
            connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            head, body = head_and_body(connection.recv(65536))
            assert f"content-length: {len(body)}" in head


def test_a_client_that_asks_whether_to_go_on_is_told_so_first(server: Served) -> None:
    asked = b"POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n"
    with socket.create_connection(("127.0.0.1", server.port), 10) as connection:
        connection.sendall(asked)
        assert connection.recv(65536) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(b"abc")
        assert connection.recv(65536).startswith(b"HTTP/1.1 200 OK\r\n")


def test_the_answer_to_head_is_a_head(server: Served) -> None:
    with socket.create_connection(("127.0.0.1", server.port), 10) as connection:
        connection.sendall(b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n")
        head, body = head_and_body(connection.recv(65536))
        assert head.startswith("http/1.1 200")
        assert body == b""


# --- What the application is given -----------------------------------------------------


def test_method_path_query_headers_and_body_arrive(server: Served) -> None:
    told = requests.patch(
        f"{server.url}/a%20b?x=%22&y=1",
        data=b'{"a": 1}',
        headers={"Content-Type": "application/json", "If-Match": '"e"'},
        timeout=10,
    ).json()
    assert told["REQUEST_METHOD"] == "PATCH"
    assert told["PATH_INFO"] == "/a b"
    assert told["QUERY_STRING"] == "x=%22&y=1"
    assert told["CONTENT_TYPE"] == "application/json"
    assert told["CONTENT_LENGTH"] == "8"
    assert told["HTTP_IF_MATCH"] == '"e"'
    assert told["body"] == '{"a": 1}'


def test_a_path_that_is_no_utf8_arrives_byte_for_byte(server: Served) -> None:
    _head, body = head_and_body(
        server.raw(b"GET /%ff%c3%a9 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    )
    assert json.loads(body)["PATH_INFO"].encode("latin-1") == b"/\xff\xc3\xa9"


def test_a_chunked_body_arrives_whole_with_its_length(server: Served) -> None:
    chunks = (b"%d" % number * 1000 for number in range(10))
    told = requests.post(f"{server.url}/", data=chunks, timeout=10).json()
    assert told["body"] == "".join(str(number) * 1000 for number in range(10))
    assert told["CONTENT_LENGTH"] == "10000"
    assert "HTTP_TRANSFER_ENCODING" not in told


def test_a_header_with_an_underscore_cannot_pose_as_another(server: Served) -> None:
    _head, body = head_and_body(
        server.raw(b"GET / HTTP/1.1\r\nHost: x\r\nIf_Match: a\r\nConnection: close\r\n\r\n")
    )
    assert "HTTP_IF_MATCH" not in json.loads(body)


def test_a_repeated_header_is_joined(server: Served) -> None:
    _head, body = head_and_body(
        server.raw(
            b"GET / HTTP/1.1\r\nHost: x\r\nPrefer: wait=1\r\nPrefer: return=minimal\r\n"
            b"Connection: close\r\n\r\n"
        )
    )
    assert json.loads(body)["HTTP_PREFER"] == "wait=1,return=minimal"


def test_several_requests_on_one_connection(server: Served) -> None:
    one = b"POST /%d HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nab"
    last = b"GET /2 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    answers = server.raw(one % 0 + one % 1 + last)
    assert [answers.count(b'"/%d"' % number) for number in range(3)] == [1, 1, 1]


def test_a_wish_for_another_protocol_is_passed_over(server: Served) -> None:
    head, body = head_and_body(
        server.raw(
            b"GET /a HTTP/1.1\r\nHost: x\r\nConnection: close, Upgrade\r\n"
            b"Upgrade: websocket\r\n\r\n"
        )
    )
    assert head.startswith("http/1.1 200")
    assert json.loads(body)["PATH_INFO"] == "/a"


# --- What goes out ---------------------------------------------------------------------


def test_head_has_the_headers_of_get_and_no_body(server: Served) -> None:
    request = b"%s / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    head, body = head_and_body(server.raw(request % b"HEAD"))
    _, whole = head_and_body(server.raw(request % b"GET"))
    assert body == b""
    assert f"content-length: {len(whole) + 1}" in head  # HEAD is a letter longer, and echoed


def test_not_modified_has_no_body_and_no_length(server: Served) -> None:
    head, body = head_and_body(
        server.raw(b"GET /same HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    )
    assert head.startswith("http/1.1 304")
    assert 'etag: "x"' in head
    assert "content-length" not in head
    assert body == b""


@pytest.mark.parametrize("path", ["bug", "late"])
def test_a_bug_is_a_500_in_the_one_shape_and_tells_nothing(server: Served, path: str) -> None:
    answer = requests.get(f"{server.url}/{path}", timeout=10)
    assert answer.status_code == 500
    assert answer.json()["_error"]["word"] == "internal"
    assert "secret" not in answer.text
    assert "Traceback" not in answer.text


def test_after_a_write_that_failed_its_process_hears_of_its_own_writes(server: Served) -> None:
    mark = told.pattern()
    requests.get(f"{server.url}/away", timeout=10)
    requests.post(f"{server.url}/refuse", timeout=10)
    assert told.pattern() == mark
    requests.post(f"{server.url}/away", timeout=10)
    assert told.pattern() != mark


def test_a_database_that_is_away_is_a_503_with_retry_after(server: Served) -> None:
    answer = requests.get(f"{server.url}/away", timeout=10)
    assert answer.status_code == 503
    assert answer.headers["Retry-After"]
    assert answer.json()["_error"]["word"] == "unavailable"
    assert "10.0.0.1" not in answer.text


def test_a_refusal_that_escapes_keeps_its_word(server: Served) -> None:
    answer = requests.get(f"{server.url}/refuse", timeout=10)
    assert (answer.status_code, answer.json()["_error"]["word"]) == (409, "lease_lost")


# --- Limits ----------------------------------------------------------------------------


def test_a_body_at_the_limit_is_taken_and_one_above_is_413(
    server: Served, monkeypatch: pytest.MonkeyPatch, things: Things
) -> None:
    monkeypatch.setattr(knobs(), "BODY_BYTES_MAX", 1000)
    assert requests.post(server.url, data=b"x" * 1000, timeout=10).status_code == 200
    answer = requests.post(server.url, data=b"x" * 1001, timeout=10)
    assert (answer.status_code, answer.json()["_error"]["word"]) == (413, "too_large")
    assert things.asked == 1


def test_a_chunked_body_above_the_limit_is_413(
    server: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(knobs(), "BODY_BYTES_MAX", 1000)
    answer = requests.post(server.url, data=(b"x" * 400 for _ in range(3)), timeout=10)
    assert answer.status_code == 413


def test_a_client_that_sends_far_too_much_still_gets_the_answer(
    server: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(knobs(), "BODY_BYTES_MAX", 1000)
    head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 20000000\r\n\r\n"
    assert error(server.raw(head + b"x" * 20_000_000))["word"] == "too_large"


def test_who_asks_before_sending_too_much_is_told_so(server: Served) -> None:
    answer = server.raw(
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\nExpect: 100-continue\r\n\r\n"
    )
    assert error(answer)["word"] == "too_large"
    assert b"100 Continue" not in answer


@pytest.mark.parametrize(
    "headers",
    [
        b"Content-Length: x",
        b"Content-Length: -1",
        b"Content-Length: 1\r\nContent-Length: 2",
        b"Content-Length: 3\r\nTransfer-Encoding: chunked",
        b"Content-Length: 99999999999999999999999999",
        b"Transfer-Encoding: chunked, identity",
        b"No colon",
        b"X: a\0b",
    ],
)
def test_what_is_no_proper_http_is_a_400_in_the_one_shape(server: Served, headers: bytes) -> None:
    answer = server.raw(b"POST / HTTP/1.1\r\nHost: x\r\n" + headers + b"\r\n\r\nabc")
    assert error(answer)["word"] == "bad_request"


@pytest.mark.parametrize("headers", [b"X: " + b"x" * 100_000, b"X: " + b"x\r\nY: " * 20_000])
def test_headers_that_are_too_long_are_refused(server: Served, headers: bytes) -> None:
    answer = server.raw(b"GET / HTTP/1.1\r\nHost: x\r\n" + headers + b"\r\n\r\n")
    assert error(answer)["word"] == "bad_request"


def test_headers_that_never_end_are_cut_off(server: Served) -> None:
    began = time.monotonic()
    with socket.create_connection(("127.0.0.1", server.port), 10) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\n")
        with pytest.raises(OSError):  # noqa: PT011, PT012 - reset or broken pipe, at any send
            while True:
                connection.sendall(b"X: " + b"x" * 1000 + b"\r\n")
    assert time.monotonic() - began < connections.HEADER_SECONDS_MAX / 2


def test_headers_that_come_too_slowly_are_refused(
    server: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "HEADER_SECONDS_MAX", 0.2)
    assert error(server.raw(b"GET / HTTP/1.1\r\nHost:"))["word"] == "bad_request"
    assert server.raw(b"") == b""


def test_a_body_that_comes_too_slowly_is_refused(
    server: Served, monkeypatch: pytest.MonkeyPatch, things: Things
) -> None:
    monkeypatch.setattr(intake, "BODY_SECONDS_MAX", 0.2)
    answer = server.raw(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc")
    assert error(answer)["word"] == "bad_request"
    assert things.asked == 0


def test_half_a_request_is_never_asked(server: Served, things: Things) -> None:
    with socket.create_connection(("127.0.0.1", server.port), 10) as connection:
        connection.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc")
    assert requests.get(server.url, timeout=10).status_code == 200
    assert things.asked == 1


def test_who_takes_too_long_when_the_server_ends_is_told_to_ask_again():
    things = Things()
    with served(things) as one:
        one.server.config.timeout_graceful_shutdown = 0
        answers: list[bytes] = []
        asking = threading.Thread(
            target=lambda: answers.append(one.raw(b"GET /stuck HTTP/1.1\r\nHost: x\r\n\r\n"))
        )
        asking.start()
        try:
            eventually(lambda: things.asked)
            one.server.should_exit = True
            asking.join(30)
        finally:
            things.go_on.set()
        head, _, body = answers[0].partition(b"\r\n\r\n")
        assert b" 503 " in head
        assert b"retry-after: 1" in head.lower()
        assert json.loads(body)["_error"]["word"] == "unavailable"
