"""Hearing of ends: all of them, however many come at once, and whatever happens to a tag."""

import threading
import time
from collections.abc import Iterator

import pytest

from banyan.client.api import Client
from banyan.client.ids import new_id
from banyan.client.watching import Watch
from tests.harness import Server


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    with Client(server.url, server.tokens["provider"]) as client:
        yield client


def groups(client: Client, value: str, count: int, hold: bool = False) -> set[str]:
    """Tasks without a command: they end as they are released."""
    return {task["_id"] for task in client.submit([{"tags": {"w": value}}] * count, hold=hold)}


def heard(watch: Watch, ids: set[str], seconds: float = 30) -> set[str]:
    """What is told until all are."""
    deadline, told = time.monotonic() + seconds, set[str]()

    def left() -> set[str]:
        return ids - told

    while left() and time.monotonic() < deadline:
        told |= {task["_id"] for task in watch.ended(left, 1)}
    return told


def test_thousands_that_end_at_once_are_all_told(client: Client) -> None:
    value = new_id()
    ids = groups(client, value, 2300)
    others = groups(client, new_id(), 1)
    told = heard(Watch(client, "w", value, silence_seconds=1000), ids)
    assert told == ids
    assert not told & others


def test_more_are_told_as_they_end(client: Client) -> None:
    value = new_id()
    watch = Watch(client, "w", value, silence_seconds=1000)
    for count in (1, 400, 3):
        held = groups(client, value, count, hold=True)
        assert watch.ended(held.copy, 0.1) == []
        timer = threading.Timer(0.3, client.clone().release, [sorted(held)])
        timer.start()
        assert heard(watch, held) >= held
        timer.join()


def test_a_tag_that_somebody_takes_away_loses_nothing(client: Client) -> None:
    value = new_id()
    (id,) = groups(client, value, 1, hold=True)
    client.transport.request("PATCH", f"/tasks/{id}", json={"tags": {}})
    client.release([id])
    assert heard(Watch(client, "w", value), {id}, 2) == set()
    assert heard(Watch(client, "w", value, silence_seconds=0.2), {id}, 20) == {id}
