"""Many strangers at once: the first use of a token waits for its turn, and for no flood."""

import asyncio
import select
from contextlib import ExitStack
from typing import Any

import pytest

from banyan.config import knobs
from banyan.server import asgi, lanes
from banyan.server.connections import Connections
from banyan.server.lanes import Lanes
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


@pytest.mark.parametrize("others", ["", "never"])
def test_strangers_without_a_token_do_not_stand_before_those_with_one(
    server: Served, things: Things, monkeypatch: pytest.MonkeyPatch, others: str
) -> None:
    """So the first use of a token waits for no flood, and is not refused for one."""
    monkeypatch.setattr(lanes, "WAITING_MAX", 5)
    with ExitStack() as stack:
        stuck = all_stuck(server, stack, [others], THREADS)
        eventually(lambda: things.asked == THREADS)
        flood = all_stuck(server, stack, [others], 6)
        refused = select.select(flood, [], [], 30)[0]
        assert refused[0].recv(65536).startswith(b"HTTP/1.1 503 ")
        first = connected(server, stack, asking("/x", TOKEN))
        application = server.server.config.app
        assert isinstance(application, asgi.Application)
        lane = application._lanes._lanes[lanes.STRANGERS]
        eventually(lambda: len(lane.waiting) == 2)
        things.go_on.set()
        assert status_of(first) == 200
        assert {status_of(one) for one in stuck} == {200}


def test_nor_do_they_stand_before_whoever_reads_the_metrics(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(knobs(), "METRICS_TOKEN", "scrape-me")
    ran: list[str] = []
    run = Lanes.run

    def noted(self: Lanes, account: str, *arguments: Any, **more: Any) -> Any:
        ran.append(account)
        return run(self, account, *arguments, **more)

    monkeypatch.setattr(Lanes, "run", noted)
    application = world.client.application
    seen = application.extensions["banyan"].authenticator
    some = Connections(1000, 0)
    with served(application, THREADS, some, None, seen.knows, seen.account_of) as front:
        metrics = Api(front.url, "scrape-me").get("metrics")
        assert (metrics.status_code, some._trusted.count) == (200, 1)
        assert lanes.STRANGERS not in ran
        assert Api(front.url, "scrape-m").get("metrics").status_code == 401
        assert lanes.STRANGERS in ran
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
    accounts = lanes.Accounts(ACCOUNTS.get)
    tokens = [f"Bearer {TOKEN}", f"bearer  att_{'0' * 24}_x", "Basic Ym55Og==", "Bearer x", ""]
    groups = [accounts.group_of(header, "192.0.2.1") for header in tokens]
    assert groups[0] == groups[1] == groups[2]
    assert groups[3] == groups[4] != groups[0]
    assert accounts.group_of("", "192.0.2.2") != groups[4]
    assert accounts.group_of("", "2001:db8::1") == accounts.group_of("", "2001:db8::2")
    assert accounts.group_of("Bearer a1", "192.0.2.1") == ""
