"""HTTP in front of the WSGI application: bodies, headers, limits, errors, and held requests."""

import json
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import requests
from pymongo.errors import ServerSelectionTimeoutError

from banyan.config import knobs
from banyan.errors import BanyanError
from banyan.server import asgi, protocol
from banyan.server.asgi import wait_seconds
from tests.harness import eventually
from tests.harness.asgi import Served, served

JSON = [("Content-Type", "application/json")]
ENVIRON = ("REQUEST_METHOD", "PATH_INFO", "QUERY_STRING", "CONTENT_LENGTH", "CONTENT_TYPE")


class Things:
    """A small application: what it was sent, and one thing that changes."""

    def __init__(self) -> None:
        self.version = 0
        self.asked = 0
        self.topics = "task:1"
        self.lock = threading.Lock()

    def __call__(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        with self.lock:
            self.asked += 1
        name = environ["PATH_INFO"].strip("/")
        method: Callable[..., Iterable[bytes]] = getattr(self, f"serve_{name}", self.serve_echo)
        return method(environ, start)

    def serve_echo(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        told = {name: environ.get(name) for name in ENVIRON}
        told |= {name: value for name, value in environ.items() if name.startswith("HTTP_")}
        told["body"] = environ["wsgi.input"].read().decode("latin-1")
        body = json.dumps(told).encode()
        start("200 OK", [*JSON, ("Content-Length", str(len(body)))])
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]

    def serve_thing(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        since = int(environ["QUERY_STRING"] or 0)
        headers = [*JSON] if self.version > since else [*JSON, ("Banyan-Wait", self.topics)]
        start("200 OK", headers)
        return [json.dumps(self.version).encode()]

    def serve_same(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        start("304 NOT MODIFIED", [("ETag", '"x"'), ("Content-Length", "7")])
        return []

    def serve_bug(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        raise ZeroDivisionError("secret detail")

    def serve_late(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        start("200 OK", JSON)
        yield b"half an answer"
        raise ZeroDivisionError("secret detail")

    def serve_away(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        raise ServerSelectionTimeoutError("no primary at 10.0.0.1")

    def serve_refuse(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        raise BanyanError("lease_lost", "not yours any more")


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
    answer = requests.post(server.url, data=b"x" * 20_000_000, timeout=10)
    assert answer.status_code == 413


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
        b"X: " + b"x" * 100_000,
    ],
)
def test_what_is_no_proper_http_is_a_400_in_the_one_shape(server: Served, headers: bytes) -> None:
    answer = server.raw(b"POST / HTTP/1.1\r\nHost: x\r\n" + headers + b"\r\n\r\nabc")
    assert error(answer)["word"] == "bad_request"


def test_headers_that_never_end_are_cut_off(server: Served) -> None:
    with socket.create_connection(("127.0.0.1", server.port), 10) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\n")
        with pytest.raises(OSError):  # noqa: PT011, PT012 - reset or broken pipe, at any send
            while True:
                connection.sendall(b"X: " + b"x" * 1000 + b"\r\n")


def test_headers_that_come_too_slowly_are_refused(
    server: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "HEADER_SECONDS_MAX", 0.2)
    assert error(server.raw(b"GET / HTTP/1.1\r\nHost:"))["word"] == "bad_request"
    assert server.raw(b"") == b""


def test_a_body_that_comes_too_slowly_is_refused(
    server: Served, monkeypatch: pytest.MonkeyPatch, things: Things
) -> None:
    monkeypatch.setattr(asgi, "BODY_SECONDS_MAX", 0.2)
    answer = server.raw(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc")
    assert error(answer)["word"] == "bad_request"
    assert things.asked == 0


def test_half_a_request_is_never_asked(server: Served, things: Things) -> None:
    with socket.create_connection(("127.0.0.1", server.port), 10) as connection:
        connection.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc")
    assert requests.get(server.url, timeout=10).status_code == 200
    assert things.asked == 1


# --- Waiting ---------------------------------------------------------------------------


def ask(server: Served, seconds: float | None, since: int = 0) -> requests.Response:
    headers = {} if seconds is None else {"Prefer": f"wait={seconds}"}
    return requests.get(f"{server.url}/thing?{since}", headers=headers, timeout=60)


def change(server: Served, things: Things, topic: str = "task:1") -> None:
    things.version += 1
    server.hub.signal(topic)


def test_who_does_not_ask_to_wait_is_answered_at_once(server: Served, things: Things) -> None:
    answer = ask(server, None)
    assert answer.json() == 0
    assert "Banyan-Wait" not in answer.headers
    assert things.asked == 1


def test_what_is_there_already_is_not_waited_for(server: Served, things: Things) -> None:
    things.version = 1
    began = time.monotonic()
    assert ask(server, 30).json() == 1
    assert time.monotonic() - began < 5


def test_a_change_wakes_within_100_milliseconds(server: Served, things: Things) -> None:
    with ThreadPoolExecutor(1) as pool:
        late = []
        for since in range(10):
            answer = pool.submit(ask, server, 30, since)
            eventually(lambda: server.hub.waiting == 1)
            began = time.monotonic()
            change(server, things)
            assert answer.result(10).json() == since + 1
            late.append(time.monotonic() - began)
    assert sorted(late)[5] < 0.1
    assert things.asked == 20


def test_when_time_is_up_the_last_answer_goes_out(server: Served, things: Things) -> None:
    began = time.monotonic()
    answer = ask(server, 0.3)
    assert 0.3 <= time.monotonic() - began < 5
    assert (answer.status_code, answer.json()) == (200, 0)
    assert "Banyan-Wait" not in answer.headers
    assert things.asked == 1


def test_a_change_that_means_nothing_is_waited_past(server: Served, things: Things) -> None:
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(ask, server, 30)
        eventually(lambda: server.hub.waiting == 1)
        server.hub.signal("task:1")
        eventually(lambda: things.asked == 2)
        assert not answer.done()
        change(server, things)
        assert answer.result(10).json() == 1


def test_no_wait_is_longer_than_allowed(server: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(knobs(), "WAIT_SECONDS_MAX", 0.2)
    began = time.monotonic()
    ask(server, 30)
    assert time.monotonic() - began < 5


def test_for_a_client_that_has_gone_nothing_is_asked_again(server: Served, things: Things) -> None:
    with socket.create_connection(("127.0.0.1", server.port), 10) as connection:
        connection.sendall(b"GET /thing?0 HTTP/1.1\r\nHost: x\r\nPrefer: wait=30\r\n\r\n")
        eventually(lambda: server.hub.waiting == 1)
    eventually(lambda: server.hub.waiting == 0)
    change(server, things)
    assert ask(server, None).json() == 1
    assert things.asked == 2


def test_five_hundred_who_wait_are_in_nobodys_way(server: Served, things: Things) -> None:
    with ThreadPoolExecutor(500) as pool:
        answers = [pool.submit(ask, server, 60) for _ in range(500)]
        eventually(lambda: server.hub.waiting == 500, 30)
        took = []
        for _ in range(50):
            began = time.monotonic()
            assert ask(server, None).status_code == 200
            took.append(time.monotonic() - began)
        assert sorted(took)[25] < 0.1
        change(server, things)
        began = time.monotonic()
        assert ask(server, None).status_code == 200  # does not stand behind those 500
        assert time.monotonic() - began < 2
        assert all(answer.result(20).json() == 1 for answer in answers)


def test_a_collection_that_changes_all_the_time_is_looked_at_ten_times_a_second(
    server: Served, things: Things
) -> None:
    things.topics = "tasks"
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(ask, server, 0.5)
        eventually(lambda: server.hub.waiting == 1)
        while not answer.done():
            server.hub.signal("tasks")
    assert 3 <= things.asked <= 10


def test_work_is_offered_to_one_after_the_other(server: Served, things: Things) -> None:
    things.topics = "available"
    with ThreadPoolExecutor(20) as pool:
        answers = [pool.submit(ask, server, 60) for _ in range(20)]
        eventually(lambda: server.hub.waiting == 20)
        change(server, things, "available:a")
        eventually(lambda: server.hub.waiting == 19)
        assert things.asked == 21
        for name in range(19):
            server.hub.signal(f"available:{name}")
        assert all(answer.result(10).json() == 1 for answer in answers)


def test_at_the_end_who_waits_is_answered_at_once(things: Things) -> None:
    with ThreadPoolExecutor(1) as pool:
        with served(things) as server:
            answer = pool.submit(ask, server, 60)
            eventually(lambda: server.hub.waiting == 1)
            began = time.monotonic()
        assert time.monotonic() - began < 5
        assert answer.result(1).json() == 0
        assert answer.result(1).headers["Connection"] == "close"


@pytest.mark.parametrize(
    ("prefer", "seconds"),
    [
        ("wait=30", 30),
        ("return=minimal, wait=5", 5),
        ('respond-async; wait="7"', 7),
        ("WAIT = 3", 3),
        ("wait=0.25", 0.25),
        ("wait=99999", 60),
        ("wait=-1", 0),
        ("wait=x", 0),
        ("await=5", 0),
        ("wait=5x", 0),
        ("", 0),
    ],
)
def test_the_preference_is_read_as_rfc_7240_writes_it(prefer: str, seconds: float) -> None:
    assert wait_seconds(prefer) == seconds
