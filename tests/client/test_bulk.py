"""Many tasks changed: a waiting one by one request where it waits, so it is never left held."""

import json
from typing import Any

import pytest

from banyan.client.api import Client
from banyan.errors import BanyanError
from tests.client.scripted import Reply, Scripted, ok
from tests.client.scripted import server as server

ID = "6740a1b2c3d4e5f601234567"
MORE = {"requested_resources": {"memory": 2**30}}


def done() -> Reply:
    return ok({"_items": [{"_id": ID, "_status": "OK"}]})


def refused(word: str, **more: Any) -> Reply:
    error = {"code": 422, "word": word, "message": f"about {word}"}
    return ok({"_items": [{"_id": ID, "_status": "ERR", "_error": error, **more}]})


def sent(server: Scripted) -> list[dict[str, Any]]:
    """What each request changed."""
    return [json.loads(one.body)[0] | {"_id": None} for one in server.asked]


def changed(*fields: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"_id": None, **one} for one in fields]


def change(server: Scripted) -> None:
    with Client(server.url, "token") as client:
        client.change([ID], MORE)


def test_what_may_be_changed_is_changed_at_once(server: Scripted) -> None:
    server.replies = [done()]
    change(server)
    assert sent(server) == changed(MORE)


def test_what_waits_is_changed_where_it_waits(server: Scripted) -> None:
    server.replies = [refused("invalid", state="available"), done()]
    change(server)
    assert sent(server) == changed(MORE, {**MORE, "state": "available"})


def test_whatever_comes_between_nothing_is_ever_held(server: Scripted) -> None:
    """An answer that is lost, Ctrl-C and a kill look the same to the server: no further request."""
    waits = refused("invalid", state="available")
    server.replies = [waits, refused("quota_exceeded")]
    with pytest.raises(BanyanError, match="quota_exceeded"):
        change(server)
    assert sent(server) == changed(MORE, {**MORE, "state": "available"})


@pytest.mark.parametrize(
    "replies",
    [
        [refused("invalid")],  # for what was sent, whatever its state
        [refused("invalid", state="running")],
        [refused("invalid", state="available"), refused("conflict", state="running")],
    ],
)
def test_what_runs_or_is_wrong_is_told(server: Scripted, replies: list[Reply]) -> None:
    server.replies = list(replies)
    with pytest.raises(BanyanError):
        change(server)
    assert len(server.asked) == len(replies)
