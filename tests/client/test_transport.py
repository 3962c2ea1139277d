"""The transport against real sockets: what is repeated, what is not, what errors become."""

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import ThreadingHTTPServer
from typing import Any

import pytest

from banyan.client.transport import Transport
from banyan.errors import BanyanError
from tests.client.scripted import Reply, Scripted, error, ok
from tests.client.scripted import server as server


@pytest.fixture
def transport(server: Scripted) -> Iterator[Transport]:
    transport = Transport(server.url, "secret", retry_seconds=5.0)
    yield transport
    transport.close()


def refused(call: Callable[[], Any]) -> BanyanError:
    with pytest.raises(BanyanError) as caught:
        call()
    return caught.value


def test_sends_token_json_and_preferences(server: Scripted, transport: Transport) -> None:
    server.replies = [ok({"x": 1}, ETag='"e"')]
    answer = transport.request(
        "POST", "/tasks", json={"a": "ü"}, prefer="wait=3", params={"where": {"b": 1}}
    )
    method, path, headers, body = server.asked[0]
    assert (method, path) == ("POST", "/tasks?where=%7B%22b%22%3A1%7D")
    assert headers["Authorization"] == "Bearer secret"
    assert headers["Prefer"] == "wait=3"
    assert json.loads(body) == {"a": "ü"}
    assert answer.body == {"x": 1}
    assert answer.headers["etag"] == '"e"'


def test_an_error_carries_all_that_the_server_said(server: Scripted, transport: Transport) -> None:
    server.replies = [error(422, "invalid", _issues={"name": "too long"}, state="running")]
    raised = refused(lambda: transport.request("POST", "/tasks", json={}))
    assert raised.word == "invalid"
    assert raised.message == "about invalid"
    assert raised.issues == {"name": "too long"}
    assert raised.extra == {"state": "running"}


@pytest.mark.parametrize(
    ("status", "word"),
    [(404, "not_found"), (401, "unauthenticated"), (500, "internal"), (418, "bad_request")],
)
def test_a_foreign_error_gets_a_word_by_its_status(
    server: Scripted, transport: Transport, status: int, word: str
) -> None:
    server.replies = [(status, {}, b"<html>")]
    assert refused(lambda: transport.request("GET", "/")).word == word


def test_a_good_answer_that_is_no_json_is_no_banyan_server(
    server: Scripted, transport: Transport
) -> None:
    server.replies = [(200, {}, b"<html>")]
    assert "does not answer like" in refused(lambda: transport.request("GET", "/")).message


def test_a_redirect_is_told_not_followed(server: Scripted, transport: Transport) -> None:
    server.replies = [(301, {"Location": "https://elsewhere/"}, b"")]
    assert "https://elsewhere/" in refused(lambda: transport.request("GET", "/")).message


@pytest.mark.parametrize("status", [502, 503, 504])
def test_a_repeatable_request_outlives_passing_trouble(
    server: Scripted, transport: Transport, status: int
) -> None:
    server.replies = [error(status, "unavailable"), None, ok({"x": 1})]
    answer = transport.request("POST", "/tasks/claim", json={}, repeatable=True)
    assert answer.body == {"x": 1}
    assert answer.repeats == 2
    assert len(server.asked) == 3


@pytest.mark.parametrize("reply", [error(503, "unavailable"), None])
def test_what_may_not_be_repeated_is_sent_once(
    server: Scripted, transport: Transport, reply: Reply
) -> None:
    server.replies = [reply, ok({})]
    raised = refused(lambda: transport.request("POST", "/tasks", json={}))
    assert raised.word == "unavailable"
    assert len(server.asked) == 1


def test_turned_away_by_429_is_repeated_after_the_time_named(
    server: Scripted, transport: Transport
) -> None:
    busy = 429, {"Retry-After": "1"}, b"{}"
    server.replies = [busy, ok({"x": 1})]
    begun = time.monotonic()
    assert transport.request("POST", "/tasks", json={}).body == {"x": 1}
    assert time.monotonic() - begun >= 1.0


def test_trouble_past_the_deadline_is_told_in_the_servers_words(
    server: Scripted, transport: Transport
) -> None:
    server.replies = [error(503, "unavailable")]
    raised = refused(lambda: transport.request("GET", "/tasks", retry_seconds=0.0))
    assert (raised.word, raised.message) == ("unavailable", "about unavailable")


def test_a_refused_connection_is_retried_even_for_what_may_not_be_repeated(
    server: Scripted,
) -> None:
    free = socket.create_server(("127.0.0.1", 0))
    port = free.getsockname()[1]
    free.close()
    transport = Transport(f"http://127.0.0.1:{port}", retry_seconds=10.0)
    late: list[ThreadingHTTPServer] = []

    def start_late() -> None:
        handler = server.server.RequestHandlerClass
        late.append(ThreadingHTTPServer(("127.0.0.1", port), handler))
        late[0].handle_request()

    server.replies = [ok({"x": 1})]
    timer = threading.Timer(0.3, start_late)
    timer.start()
    assert transport.request("POST", "/tasks", json={}).body == {"x": 1}
    transport.close()
    timer.join()
    late[0].server_close()


def test_nobody_there_names_the_next_step() -> None:
    free = socket.create_server(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{free.getsockname()[1]}"
    free.close()
    raised = refused(lambda: Transport(url, retry_seconds=0.2).request("GET", "/"))
    assert raised.word == "unavailable"
    assert "banyan up" in raised.message


@pytest.mark.parametrize(
    ("scheme", "host", "said"),
    [
        ("http", "nosuch.invalid", "leads to no machine"),
        ("https", "127.0.0.1", "speaks no TLS; is it an http:// address?"),
    ],
)
def test_what_is_wrong_with_an_address_is_said_in_a_sentence(
    server: Scripted, scheme: str, host: str, said: str
) -> None:
    port = server.url.rpartition(":")[2]
    server.replies = [(200, {}, b"{}")]
    transport = Transport(f"{scheme}://{host}:{port}", retry_seconds=0.0)
    raised = refused(lambda: transport.request("GET", "/"))
    assert said in raised.message
    assert "Max retries" not in raised.message


def test_silence_ends_at_the_read_timeout() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        transport = Transport(url, retry_seconds=0.0)
        raised = refused(lambda: transport.request("GET", "/", timeout_seconds=0.2))
    assert (raised.word, raised.exit_code) == ("unavailable", 75)


def test_raw_bodies_are_bytes_and_304_is_an_answer(server: Scripted, transport: Transport) -> None:
    server.replies = [(200, {}, b"\xff\x00"), (200, {}, b""), (304, {}, b"")]
    assert transport.request("GET", "/log", raw=True).body == b"\xff\x00"
    assert transport.request("GET", "/log", raw=True).body == b""
    assert transport.request("GET", "/log", raw=True).status == 304


@pytest.mark.parametrize("url", ["localhost:5100", "ftp://x", "http://", ""])
def test_what_is_no_url_is_said_at_once(url: str) -> None:
    assert refused(lambda: Transport(url)).word == "usage"


def test_a_token_cannot_smuggle_a_header() -> None:
    assert refused(lambda: Transport("http://127.0.0.1:1", "a\r\nX: y")).word == "usage"


def test_what_is_no_json_is_refused_before_it_is_sent(transport: Transport) -> None:
    raised = refused(lambda: transport.request("POST", "/", json={"x": float("nan")}))
    assert raised.word == "invalid"
