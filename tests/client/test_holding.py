"""Held requests: what they ask for, when they answer, and that they never become a busy loop."""

import time
from collections.abc import Iterator
from urllib.parse import parse_qs, urlsplit

import pytest

from banyan.client.holding import Held
from banyan.client.transport import Transport
from tests.client.scripted import Scripted, ok
from tests.client.scripted import server as server

UNCHANGED = (304, {"ETag": '"1"'}, b"")


@pytest.fixture
def held(server: Scripted) -> Iterator[Held]:
    transport = Transport(server.url, retry_seconds=1.0)
    yield Held(transport, "/tasks")
    transport.close()


def test_the_second_question_names_the_answer_that_is_known(server: Scripted, held: Held) -> None:
    server.replies = [ok({"n": 1}, ETag='"1"'), UNCHANGED, ok({"n": 2}, ETag='"2"')]
    first = held.next({"a": 1}, 7)
    assert first is not None
    assert first.body == {"n": 1}
    assert held.next({"a": 1}, 7) is None
    last = held.next({"a": 1}, 7)
    assert last is not None
    assert last.body == {"n": 2}
    assert "If-None-Match" not in server.asked[0].headers
    assert server.asked[1].headers["If-None-Match"] == '"1"'
    assert server.asked[1].headers["Prefer"].startswith("wait=7")


def test_another_question_forgets_the_answer_to_the_first(server: Scripted, held: Held) -> None:
    server.replies = [ok({}, ETag='"1"')]
    held.next({"offset": 0})
    held.next({"offset": 5})
    assert parse_qs(urlsplit(server.asked[1].path).query) == {"offset": ["5"]}
    assert "If-None-Match" not in server.asked[1].headers


def test_what_grows_is_the_same_question_at_every_offset(server: Scripted) -> None:
    server.replies = [ok({}, ETag='"1"')]
    held = Held(Transport(server.url), "/tasks/1/log", growing=True)
    held.next({"offset": 0})
    held.next({"offset": 5})
    assert server.asked[1].headers["If-None-Match"] == '"1"'


@pytest.mark.parametrize("reply", [UNCHANGED, ok({}), ok({}, ETag='"1"')])
def test_a_server_that_does_not_hold_is_not_besieged(
    server: Scripted, held: Held, reply: object
) -> None:
    server.replies = [ok({}, ETag='"1"'), reply]  # type: ignore[list-item]
    end = time.monotonic() + 1.0
    while time.monotonic() < end:
        held.next()
    assert len(server.asked) < 8
