"""One who keeps the server busy: others are answered, and leases are kept alive."""

import asyncio
import select
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import pytest
from bson import ObjectId

from banyan.config import knobs
from banyan.errors import BanyanError
from banyan.server import asgi, lanes
from banyan.server.auth import Authenticator
from banyan.server.bridge import HEAD_ONLY
from banyan.server.calls import Caller, Context, Silent
from banyan.server.intake import Room
from banyan.server.lanes import Lanes
from banyan.server.store.mongo import Store
from banyan.server.verbs import link
from tests.contract.playing import Player
from tests.harness import Api, Server, eventually
from tests.harness.asgi import Served, served
from tests.harness.things import Things
from tests.server.worlds import World

THREADS = 4
KEPT_MAX = 8  # of bodies of 40,000 bytes in a room of 400,000, whoever sends them
ACCOUNTS = {f"Bearer {token}": token[0] for token in ("a1", "a2", "a3", "b1", "c1", "d1")}


@pytest.fixture
def things() -> Iterator[Things]:
    made = Things()
    yield made
    made.go_on.set()


@pytest.fixture
def server(things: Things) -> Iterator[Served]:
    with served(things, THREADS, account_of=ACCOUNTS.get) as running:
        yield running
        things.go_on.set()


def connected(server: Served, stack: ExitStack, request: str) -> socket.socket:
    connection = stack.enter_context(socket.create_connection(("127.0.0.1", server.port), 30))
    connection.sendall(request.encode())
    return connection


def asking(path: str, token: str, method: str = "GET", more: str = "") -> str:
    told = f"Authorization: Bearer {token}\r\n" if token else ""
    return f"{method} {path} HTTP/1.1\r\nHost: x\r\n{told}{more}\r\n"


def status_of(connection: socket.socket) -> int:
    return int(connection.recv(65536).split()[1])


def all_stuck(
    server: Served, stack: ExitStack, tokens: Iterable[str], times: int = 10
) -> list[socket.socket]:
    """Requests that go on when they are told to."""
    named = [token for token in tokens for _ in range(times)]
    return [connected(server, stack, asking("/stuck", token)) for token in named]


@pytest.mark.parametrize("tokens", [["a1"], ["a1", "a2", "a3"], ["", "never", "seen"]])
def test_whoever_sends_most_leaves_threads_to_others(
    server: Served, things: Things, tokens: list[str]
) -> None:
    with ExitStack() as stack:
        stuck = all_stuck(server, stack, tokens)
        eventually(lambda: things.asked == THREADS)  # one alone has as many as ever
        for _ in range(3):
            assert status_of(connected(server, stack, asking("/x", "b1"))) == 200
        assert things.asked == THREADS + 3
        things.go_on.set()
        assert {status_of(connection) for connection in stuck} == {200}


def test_two_accounts_leave_threads_to_a_third(server: Served, things: Things) -> None:
    with ExitStack() as stack:
        all_stuck(server, stack, ["a1"])
        eventually(lambda: things.asked == THREADS)
        all_stuck(server, stack, ["c1"])
        eventually(lambda: things.asked == THREADS + THREADS // 2)
        for _ in range(3):
            assert status_of(connected(server, stack, asking("/x", "b1"))) == 200
        things.go_on.set()


def test_who_spells_a_token_in_many_ways_has_no_more_threads(things: Things) -> None:
    """Each new header was one of a stranger, whose threads came on top of the account's."""
    known: dict[str, str] = {}

    def application(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        header = environ["HTTP_AUTHORIZATION"]
        known[header] = header.split()[1][0]
        if HEAD_ONLY in environ:
            start("100 GO ON", [])
            return []
        return things(environ, start)

    with served(application, THREADS, account_of=known.get) as server, ExitStack() as stack:
        all_stuck(server, stack, [f"a{number}" for number in range(20)], 1)
        eventually(lambda: len(known) == 20)
        assert status_of(connected(server, stack, asking("/x", "b1"))) == 200
        assert things.asked == THREADS + 1
        things.go_on.set()


@pytest.mark.parametrize("token", ["a1", "never"])
def test_beats_have_threads_of_their_own(server: Served, things: Things, token: str) -> None:
    with ExitStack() as stack:
        stuck = all_stuck(server, stack, ["a1", "b1", "c1", "d1", "never"], 20)
        eventually(lambda: things.asked == 2 * THREADS)
        beat = asking("/workers/w/beat", token, "POST", "Content-Length: 0\r\n")
        assert status_of(connected(server, stack, beat)) == 200
        things.go_on.set()
        assert {status_of(connection) for connection in stuck} == {200}


def test_who_was_woken_does_not_stand_behind_the_woken_of_another(
    server: Served, things: Things
) -> None:
    """Those who wait in the lane of a busy account kept all slots of those who were woken."""
    held = "Prefer: wait=60\r\nContent-Length: 1\r\n"
    with ExitStack() as stack:
        waiting = [
            connected(server, stack, asking("/thing", token, "POST", held) + "x")
            for token in ["a1"] * THREADS + ["b1"]
        ]
        eventually(lambda: server.hub.waiting == THREADS + 1)
        before = things.asked
        all_stuck(server, stack, ["a1"])
        eventually(lambda: things.asked == before + THREADS)
        things.version = 1
        server.hub.signal("task:1")
        assert status_of(waiting[-1]) == 200
        assert server.hub.waiting == THREADS
        things.go_on.set()
        assert {status_of(connection) for connection in waiting[:-1]} == {200}


def test_how_many_wait_for_a_thread_is_bounded(
    server: Served, things: Things, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lanes, "WAITING_MAX", 5)
    with ExitStack() as stack:
        stuck = all_stuck(server, stack, ["a1"], THREADS)
        eventually(lambda: things.asked == THREADS)
        more = all_stuck(server, stack, ["a1"], 6)
        refused = select.select(more, [], [], 30)[0]
        assert len(refused) == 1
        answer = refused[0].recv(65536)
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert b"\r\nretry-after: " in answer
        things.go_on.set()
        others = [one for one in (*stuck, *more) if one is not refused[0]]
        assert {status_of(connection) for connection in others} == {200}
        refused[0].sendall(asking("/x", "a1").encode())  # the connection is there still
        assert status_of(refused[0]) == 200


def test_turns_go_round_the_accounts() -> None:
    begun: list[str] = []

    async def all_at_once() -> None:
        several = Lanes(2, "test")
        named = [*"aaaa", *"bbb", "c"]
        await asyncio.gather(*(several.run(one, begun.append, one) for one in named))
        assert not several._lanes
        assert not several._turns

    asyncio.run(all_at_once())
    assert sorted(begun) == [*"aaaabbbc"]
    assert "c" in begun[:5]  # though it came last


def test_who_is_cancelled_gives_its_turn_back() -> None:
    go_on = threading.Event()

    async def cancelled() -> None:
        several = Lanes(2, "test")
        first = asyncio.create_task(several.run("a", go_on.wait, 30))
        second, third = (asyncio.create_task(several.run("a", int)) for _ in range(2))
        await asyncio.sleep(0)
        second.cancel()
        go_on.set()
        assert await first
        third.cancel()  # in the moment in which it has its turn
        await asyncio.gather(second, third, return_exceptions=True)
        assert await several.run("a", int) == 0
        assert (several._free, several._lanes, several._turns) == (2, {}, {})

    asyncio.run(cancelled())


def test_what_is_done_with_is_not_kept(server: Served) -> None:
    with ExitStack() as stack:
        for token in ("a1", "b1", "never", ""):
            assert status_of(connected(server, stack, asking("/x", token))) == 200
    application = server.server.config.app
    assert isinstance(application, asgi.Application)
    eventually(lambda: not application._lanes._lanes)


# --- With the whole application -----------------------------------------------------------


class SlowLinks:
    """Changes of edges take until they are told to go on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun, self.go_on = threading.Semaphore(0), threading.Event()
        self._write_one = link.write_one
        monkeypatch.setattr(link, "write_one", self._slow)

    def _slow(self, *arguments: Any) -> Any:
        self.begun.release()
        assert self.go_on.wait(60)
        return self._write_one(*arguments)


@contextmanager
def linking(api: Api, links: SlowLinks, parents: Iterable[str], child: str) -> Iterator[None]:
    """Lists of edges come at once, each with the token spelled in another way."""
    threads = []
    for place, parent in enumerate(parents):
        header = {"Authorization": f"Bearer{' ' * place} {api.token}"}
        body = [{"_id": parent, "add_continuations": [child]}]
        sending: Any = partial(api.patch, "tasks", body, headers=header)
        threads.append(threading.Thread(target=sending))
        threads[-1].start()
    try:
        yield
    finally:
        links.go_on.set()
        for thread in threads:
            thread.join(60)


def test_lists_of_edges_on_many_connections_hold_up_neither_beats_nor_others(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    links = SlowLinks(monkeypatch)
    application = world.client.application
    seen = application.extensions["banyan"].authenticator
    with served(application, THREADS, None, None, seen.knows, seen.account_of) as server:
        alice, bob, worker = (Api(server.url, world.tokens[n]) for n in ("alice", "bob", "worker"))
        child, *parents = [alice.post("tasks", {"name": "t"}).json()["_id"] for _ in range(21)]
        player = Player(worker, "q")
        own = bob.post("tasks", {"command": "x", "state": "available", "queue": "q"}).json()["_id"]
        seen.forget()
        with linking(alice, links, parents, child):
            for _ in range(THREADS):
                assert links.begun.acquire(timeout=60)
            for _ in range(5):
                assert worker.post(f"workers/{player.id}/beat", {}).status_code == 200
            claimed = player.claim_one(own).json()
            running = Api(server.url, claimed["token"])
            assert running.post(f"tasks/{own}/progress", {"done": 1}).status_code == 200
            assert bob.get(f"tasks/{own}").json()["progress"]["done"] == 1
            assert player.end(claimed).status_code == 200
            assert not links.begun.acquire(blocking=False)
    query = {"after": {"$size": len(parents)}}
    assert world.store["tasks"].count_documents(query) == 1  # nothing was lost


def test_running_tasks_have_threads_beside_their_owner() -> None:
    """A worker has their tokens, too: it could take those of all whose tasks it runs."""
    seen = Authenticator(Context(Store("mongodb://nowhere/x"), Silent()), 1)
    task = Caller("alice", frozenset({"task"}), ObjectId(), ObjectId())
    seen._seen = {"one": (0.0, Caller("alice", frozenset({"provider"}))), "two": (0.0, task)}
    said = ["Bearer one", "bearer  one ", "Basic b25lOg==", "Bearer two", "Bearer three", ""]
    found = [seen.account_of(header) for header in said]
    assert found == ["alice", "alice", "alice", "tasks of alice", None, None]


# --- Requests that are held ---------------------------------------------------------------


@pytest.mark.parametrize(("method", "size"), [("GET", 150_000), ("GET", 20_000), ("POST", 70_000)])
def test_a_request_with_a_long_body_is_not_held(
    server: Served, things: Things, method: str, size: int
) -> None:
    more = f"Prefer: wait=60\r\nContent-Length: {size}\r\n"
    with ExitStack() as stack:
        began = time.monotonic()
        asked = asking("/thing", "a1", method, more) + " " * size
        assert status_of(connected(server, stack, asked)) == 200
        assert time.monotonic() - began < 30
    assert server.hub.waiting == 0


def test_short_bodies_that_are_held_take_no_room(serve: Callable[..., Server]) -> None:
    server = serve(BODY_BYTES_MAX=50_000, BODIES_BYTES_MAX=50_000)
    provider = server.account("provider", name="p")
    token = provider.token or ""
    made = provider.post("tasks", {"command": "true"}).json()
    port = int(server.url.rpartition(":")[2])
    more = "Prefer: wait=60\r\nContent-Length: 10000\r\nContent-Type: application/json\r\n"
    more += "Expect: 100-continue\r\n"
    more += f'If-None-Match: "{made["_etag"]}"\r\n'
    path = f"/tasks/{made['_id']}"
    with ExitStack() as stack:
        for _ in range(10):
            held = stack.enter_context(socket.create_connection(("127.0.0.1", port), 30))
            held.sendall(asking(path, token, more=more).encode())
            assert held.recv(65536).startswith(b"HTTP/1.1 100 ")  # so it is not there yet
            held.sendall(b" " * 10_000)
        for _ in range(5):
            body = [{"command": "true", "name": "n" * 200}] * 100
            assert provider.post("tasks", body).status_code == 201


@pytest.mark.parametrize("tokens", [["a1"], ["a1", "a2"], ["a1", "c1"]])
def test_slow_bodies_of_one_account_leave_room_to_others(
    things: Things, monkeypatch: pytest.MonkeyPatch, tokens: list[str]
) -> None:
    monkeypatch.setattr(knobs(), "BODY_BYTES_MAX", 50_000)
    monkeypatch.setattr(knobs(), "BODIES_BYTES_MAX", 400_000)
    more = "Content-Length: 40000\r\n"
    with served(things, THREADS, account_of=ACCOUNTS.get) as server, ExitStack() as stack:
        slow = [
            connected(server, stack, asking("/x", token, "POST", more) + "x" * 39_999)
            for token in tokens
            for _ in range(12)
        ]
        refused: dict[socket.socket, int] = {}

        def some_are_refused() -> bool:
            answered = select.select([one for one in slow if one not in refused], [], [], 0)[0]
            refused.update((one, status_of(one)) for one in answered)
            return len(refused) >= len(slow) - KEPT_MAX

        eventually(some_are_refused)
        assert set(refused.values()) == {503}
        whole = asking("/x", "b1", "POST", more) + "x" * 40_000
        for _ in range(3):
            assert status_of(connected(server, stack, whole)) == 200
        kept = [one for one in slow if one not in refused]
        for one in kept:
            one.sendall(b"x")
        assert 200 in {status_of(one) for one in kept}
        assert status_of(connected(server, stack, whole.replace("b1", "a1"))) == 200


def test_what_is_given_back_is_there_for_all() -> None:
    room = Room(100)
    with room.share("") as stranger:
        stranger.take(30)
        stranger.belongs_to("a")  # its token was found to be valid
        with pytest.raises(BanyanError) as refused:
            stranger.take(30)
        assert refused.value.word == "unavailable"
        with room.share("b") as other:
            other.take(35)
            with pytest.raises(BanyanError):
                other.take(1)
    with room.share("a") as again:
        again.take(50)
    assert (room._left, room._taken) == (100, {})
