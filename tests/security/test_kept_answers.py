"""What somebody else has answered once, in the middle, does not spoil what is asked later.

A client keeps little of an answer to send it again; each of that would be refused by the honest
server that answers next, and by it every request.
"""

from typing import Any

import pytest

from banyan.client.holding import Held
from banyan.client.transport import Transport
from banyan.errors import BanyanError
from banyan.worker import answers
from banyan.worker.connection import Connection
from tests.client.scripted import Scripted, ok
from tests.client.scripted import server as server


@pytest.mark.parametrize("kind", [Transport, Connection])
@pytest.mark.parametrize("status", [200, 304, 401, 503])
def test_no_cookie_is_kept(server: Scripted, kind: Any, status: int) -> None:
    long = "x" * 3000
    transport = kind(server.url, "t")
    for number in range(3):
        cookie = f"c{number}={long}; Path=/; Max-Age=9999999"
        server.replies = [(status, {"Set-Cookie": cookie}, b"" if status == 304 else b"{}")]
        transport.ask("GET", "/", retry_seconds=0)
    server.replies = [ok({})]
    assert transport.ask("GET", "/").status == 200
    assert not any("Cookie" in asked.headers for asked in server.asked)


def test_a_long_etag_is_not_told_again(server: Scripted) -> None:
    server.replies = [ok({"n": 1}, ETag=f'"{"x" * 60_000}"'), ok({"n": 2}, ETag='"2"'), ok({})]
    held = Held(Transport(server.url), "/tasks")
    for number in (1, 2):
        found = held.next()
        assert found is not None
        assert found.body == {"n": number}
    held.next()
    told = [asked.headers.get("If-None-Match") for asked in server.asked]
    assert told == [None, None, '"2"']


@pytest.mark.parametrize("number", [-1, 10**400, 2**60])
def test_a_beat_does_not_keep_a_number_that_none_can_be(number: int) -> None:
    said = {"lease_seconds": 60, "mode": "active", "cancel": [], "lost": []}
    answers.beat({**said, "wanted": {"number": 3, "attempts": []}})
    with pytest.raises(BanyanError) as caught:
        answers.beat({**said, "wanted": {"number": number, "attempts": []}})
    assert caught.value.word == "internal"
