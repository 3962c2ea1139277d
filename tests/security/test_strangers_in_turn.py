"""Many strangers at once: the first use of a token waits for its turn, and for no flood."""

import asyncio
import select
import threading
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from banyan.config import knobs
from banyan.errors import BanyanError
from banyan.server import asgi, lanes
from banyan.server.connections import Connections
from banyan.server.lanes import Lanes
from banyan.server.store import told
from tests.harness import Api, eventually
from tests.harness.asgi import Served, served
from tests.harness.things import Things
from tests.security.test_fair_threads import (
    ACCOUNTS,
    THREADS,
    all_stuck,
    asking,
    connected,
    status_of,
)
from tests.security.test_fair_threads import server as server
from tests.security.test_fair_threads import things as things
from tests.server.worlds import World

TOKEN = "bny_0123456789abcdef_wrong"


class Forms:
    """Tells only what may be a token."""

    def made_here(self, header: str) -> str | None:
        return "" if "bny_" in header else None

    def load(self) -> None:
        """There is nothing to read."""


@pytest.fixture
def front(things: Things) -> Iterator[Served]:
    with served(things, THREADS, account_of=ACCOUNTS.get, tokens=Forms()) as running:
        yield running
        things.go_on.set()


@pytest.mark.parametrize("others", ["", "never"])
def test_strangers_without_a_token_do_not_stand_before_those_with_one(
    front: Served, things: Things, monkeypatch: pytest.MonkeyPatch, others: str
) -> None:
    """So the first use of a token waits for no flood, and is not refused for one."""
    monkeypatch.setattr(lanes, "STRANGERS_WAITING_MAX", 8)
    with ExitStack() as stack:
        stuck = all_stuck(front, stack, [others], THREADS)
        eventually(lambda: things.asked == THREADS)
        flood = all_stuck(front, stack, [others], 9)
        refused = select.select(flood, [], [], 30)[0]
        assert refused[0].recv(65536).startswith(b"HTTP/1.1 503 ")
        first = connected(front, stack, asking("/x", TOKEN))
        application = front.server.config.app
        assert isinstance(application, asgi.Application)
        lane = application._lanes._lanes[lanes.STRANGERS]
        eventually(lambda: len(lane.waiting) == 2)
        things.go_on.set()
        assert status_of(first) == 200
        assert {status_of(one) for one in stuck} == {200}


def test_nor_do_they_stand_before_whoever_reads_the_metrics(
    world: World, lanes_taken: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(knobs(), "METRICS_TOKEN", "scrape-me")
    application = world.client.application
    seen = application.extensions["banyan"].authenticator
    some = Connections(1000, 0)
    with served(application, THREADS, some, None, seen.knows, seen.account_of) as front:
        metrics = Api(front.url, "scrape-me").get("metrics")
        assert (metrics.status_code, some._trusted.count) == (200, 1)
        assert lanes.STRANGERS not in lanes_taken
        assert Api(front.url, "scrape-m").get("metrics").status_code == 401
        assert lanes.STRANGERS in lanes_taken
        assert Api(front.url, "scrape-me").get("tasks").status_code == 401


def test_nor_do_those_of_one_address_before_those_of_another() -> None:
    begun: list[str] = []

    async def all_at_once() -> None:
        several = Lanes(2, "test")
        named = [*"aaaaaaaa", *"bbb", "c"]
        await asyncio.gather(
            *(several.run(lanes.STRANGERS, begun.append, one, group=one) for one in named)
        )
        assert not several._lanes

    asyncio.run(all_at_once())
    assert sorted(begun) == [*"aaaaaaaabbbc"]
    assert "c" in begun[:5]


def test_who_has_turns_together() -> None:
    accounts = lanes.Accounts(ACCOUNTS.get, Forms())
    said = [f"Bearer {TOKEN}", f"bearer {TOKEN}2", "Bearer x", ""]
    places = [accounts.place_of(header, "192.0.2.1") for header in said]
    assert {place.lane for place in places} == {lanes.STRANGERS}
    assert places[0] == places[1]
    assert places[2] == places[3] != places[0]
    assert accounts.place_of("", "192.0.2.2") != places[3]
    assert accounts.place_of("", "2001:db8::1") == accounts.place_of("", "2001:db8::2")
    assert accounts.of("Bearer a1")
    assert lanes.Accounts(None).place_of("", "192.0.2.1") == (lanes.STRANGERS, "")


def test_few_strangers_wait_and_the_more_groups_there_are_the_fewer_of_each(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """So each is answered within a second or so, with an answer or with 503."""
    monkeypatch.setattr(lanes, "STRANGERS_WAITING_MAX", 40)
    go_on = threading.Event()

    async def many() -> list[int]:
        several = Lanes(2, "test")
        stuck = asyncio.create_task(several.run(lanes.STRANGERS, go_on.wait, 30))
        await asyncio.sleep(0)
        kept = []
        for group in "abcdefgh":
            asking = [
                asyncio.create_task(several.run(lanes.STRANGERS, int, group=group))
                for _ in range(100)
            ]
            await asyncio.sleep(0)
            refused = [one for one in asking if one.done()]
            assert {type(one.exception()) for one in refused} == {BanyanError}
            kept.append(len(asking) - len(refused))
        go_on.set()
        await stuck
        return kept

    assert asyncio.run(many()) == [40, 20, 13, 10, 8, 8, 8, 8]


def test_what_was_never_asked_makes_no_process_hear_of_its_own_writes(
    server: Served, things: Things, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That costs as much as the writes: no stranger is to bring it about."""
    disowned: list[None] = []
    monkeypatch.setattr(told, "disown", lambda: disowned.append(None))
    monkeypatch.setattr(lanes, "STRANGERS_WAITING_MAX", 8)
    with ExitStack() as stack:
        all_stuck(server, stack, ["never"], THREADS + 8)
        eventually(lambda: things.asked == THREADS)
        more = "Content-Length: 0\r\n"
        for token in ("never", ""):
            all_stuck(server, stack, [token], 8)
            asked = asking("/x", token, "POST", more)
            refused = [connected(server, stack, asked) for _ in range(9)]
            assert status_of(select.select(refused, [], [], 30)[0][0]) == 503
        things.go_on.set()
    assert not disowned
