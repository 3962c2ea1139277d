"""A token that was made here is no guess, though this process sees it for the first time."""

import threading
from contextlib import ExitStack

import pytest
from bson import ObjectId

from banyan.errors import BanyanError
from banyan.server import lanes
from banyan.server.auth import Authenticator, attempt_token
from banyan.server.calls import Context, Silent
from banyan.server.lanes import NEWCOMERS, STRANGERS
from banyan.server.serve import _warm_up
from banyan.server.store.mongo import Store
from tests.harness import Api, eventually
from tests.harness.asgi import served
from tests.harness.things import Things
from tests.security.test_fair_threads import THREADS, all_stuck, asking, connected, status_of
from tests.server.worlds import World

GUESS = f"bny_{'0' * 16}_{'x' * 43}"
NOWHERE = "mongodb://127.0.0.1:1/x?serverSelectionTimeoutMS=1"


def seen_by(world: World) -> Authenticator:
    """What another process has in memory once it has started."""
    found = Authenticator(world.context, 60)
    found.load()
    return found


def test_it_is_told_from_memory(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    seen, attempt = seen_by(world), ObjectId()
    valid, sealed = world.tokens["alice"], attempt_token(world.context.attempt_secret, attempt)
    monkeypatch.setattr(Store, "__getitem__", None)  # the database is not asked
    forged = [sealed[:-1] + ("0" if sealed[-1] != "0" else "1"), attempt_token(b"other", attempt)]
    halves = (GUESS[:21] + valid[21:], valid[:21] + GUESS[21:])  # an id is no secret
    assert seen.made_here(f"Bearer {valid}") == valid[:20]
    assert seen.made_here(f"bearer   {valid} ") == valid[:20]
    assert seen.made_here(f"Bearer {sealed}") == f"att_{attempt}"
    assert [seen.made_here(f"Bearer {one}") for one in forged] == [None, None]
    assert [seen.made_here(f"Bearer {one}") for one in (GUESS, *halves)] == [""] * 3
    for wrong in ("", "Bearer ", "Bearer x", valid, "Basic Ym55Og==", "Bearer bny_", "Digest a"):
        assert seen.made_here(wrong) is None


def test_what_was_refused_a_moment_ago_is_a_guess_again(world: World) -> None:
    seen = seen_by(world)
    ended = attempt_token(world.context.attempt_secret, ObjectId())
    assert seen.made_here(f"Bearer {ended}")
    with pytest.raises(BanyanError):
        seen.authenticate(f"Bearer {ended}")
    assert seen.made_here(f"Bearer {ended}") is None


def test_a_server_reads_all_tokens_when_it_starts(world: World) -> None:
    application = world.client.application
    _warm_up(application)
    seen = application.extensions["banyan"].authenticator
    assert seen.made_here(f"Bearer {world.tokens['alice']}")
    assert seen.made_here(f"Bearer {attempt_token(world.context.attempt_secret, ObjectId())}")


def test_and_starts_without_a_database_too() -> None:
    seen = Authenticator(Context(Store(NOWHERE), Silent()), 60)
    seen.load()
    assert seen.made_here(f"Bearer {GUESS}") == ""
    assert seen.made_here(f"Bearer {attempt_token(b'x', ObjectId())}") == ""


def test_the_first_request_of_each_goes_by_the_lane_of_newcomers(
    world: World, lanes_taken: list[str]
) -> None:
    """As after a restart; a token that was revoked goes by that of strangers."""
    application = world.client.application
    seen = application.extensions["banyan"].authenticator
    seen.load()
    with served(application, THREADS, None, None, seen.knows, seen.account_of, seen) as front:
        assert Api(front.url, world.tokens["alice"]).get("tasks").status_code == 200
        assert Api(front.url, world.tokens["alice"]).get("tasks").status_code == 200
        assert lanes_taken == [NEWCOMERS, "alice", "alice"]
        world.store["tokens"].delete_many({"account": "bob"})
        for _ in range(2):
            assert Api(front.url, world.tokens["bob"]).get("tasks").status_code == 401
        assert lanes_taken[3:] == [NEWCOMERS, STRANGERS]


class Remembered:
    """Tokens that are made here, as soon as they were loaded."""

    def __init__(self) -> None:
        self.loaded, self.slow = 0, threading.Event()

    def made_here(self, header: str) -> str | None:
        found = header.removeprefix("Bearer ")
        return found if self.loaded and found.startswith("ours") else ""

    def load(self) -> None:
        self.loaded += 1
        self.slow.wait(30)


def test_where_strangers_are_too_many_tokens_are_read_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """So one that another process made a moment ago finds its way."""
    monkeypatch.setattr(lanes, "STRANGERS_WAITING_MAX", 8)
    monkeypatch.setattr(lanes, "LOOK_SECONDS", 0.0)
    things, remembered = Things(), Remembered()
    with (
        served(things, THREADS, account_of=lambda header: None, tokens=remembered) as front,
        ExitStack() as stack,
    ):
        stuck = all_stuck(front, stack, ["never"], THREADS + 8)
        eventually(lambda: things.asked == THREADS)
        assert remembered.loaded == 0  # nobody was refused
        assert status_of(connected(front, stack, asking("/x", "ours"))) == 503
        eventually(lambda: remembered.loaded)
        for _ in range(5):
            assert status_of(connected(front, stack, asking("/x", "never"))) == 503
        assert remembered.loaded == 1  # one at a time
        assert status_of(connected(front, stack, asking("/x", "ours"))) == 200
        remembered.slow.set()
        things.go_on.set()
        assert {status_of(one) for one in stuck} == {200}


def test_that_is_done_once_in_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lanes, "STRANGERS_WAITING_MAX", 8)
    monkeypatch.setattr(lanes, "LOOK_SECONDS", 3600.0)
    things, remembered = Things(), Remembered()
    remembered.slow.set()
    with (
        served(things, THREADS, account_of=lambda header: None, tokens=remembered) as front,
        ExitStack() as stack,
    ):
        all_stuck(front, stack, ["never"], THREADS + 8)
        eventually(lambda: things.asked == THREADS)
        for _ in range(20):
            connected(front, stack, asking("/x", "never"))
        eventually(lambda: remembered.loaded == 1)
        assert status_of(connected(front, stack, asking("/x", "never"))) == 503
        assert remembered.loaded == 1
        things.go_on.set()


def test_one_of_many_new_tokens_waits_for_none_of_the_others(world: World) -> None:
    """Each has its turns: a thousand requests with one of them are one after the other's."""
    accounts = lanes.Accounts(lambda header: None, seen_by(world))
    places = [accounts.place_of(f"Bearer {world.tokens[n]}", "192.0.2.1") for n in ("alice", "bob")]
    assert [place.lane for place in places] == [NEWCOMERS, NEWCOMERS]
    assert places[0].group != places[1].group
