"""The typed client against a real server; a proxy loses answers on the way."""

import pydoc
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import requests
from bson import ObjectId
from pymongo import MongoClient

import banyan
from banyan.client import holding
from banyan.client.api import Client
from banyan.client.ids import new_id
from banyan.errors import BanyanError
from tests.harness import Server


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    with Client(server.url, server.tokens["provider"]) as client:
        yield client


def refused(call: Any) -> BanyanError:
    with pytest.raises(BanyanError) as caught:
        call()
    return caught.value


def test_one_task_comes_back_whole_and_a_list_in_its_order(client: Client) -> None:
    one = client.submit({"command": "true", "name": "one"}, hold=True)
    assert (one["name"], one["state"]) == ("one", "inactive")
    assert client.get(one["_id"])["command"] == "true"
    parent, child = new_id(), new_id()
    created = client.submit(
        [{"_id": child, "name": "c", "after": [parent]}, {"_id": parent, "name": "p"}], hold=True
    )
    assert [task["_id"] for task in created] == [child, parent]
    assert client.get(parent)["continuations"] == [child]


def test_a_long_graph_is_sent_in_pieces_whatever_its_order(client: Client) -> None:
    ids = [new_id() for _ in range(1100)]
    chain = [
        {"_id": id, "name": f"t{n}", "continuations": ids[n + 1 : n + 2], "tags": {"set": "chain"}}
        for n, id in enumerate(ids)
    ]
    created = client.submit(list(reversed(chain)), hold=True)
    assert [task["_id"] for task in created] == list(reversed(ids))
    assert client.get(ids[999])["continuations"] == [ids[1000]]
    found = list(client.find({"tags.set": "chain"}, sort="_id", projection={"name": 1}))
    assert sorted(task["_id"] for task in found) == sorted(ids)
    some = list(client.find({"tags.set": "chain"}, sort="_id", limit=1050))
    assert [task["_id"] for task in some] == sorted(ids)[:1050]
    client.release(ids[:1])
    ended = client.wait(ids, timeout_seconds=60)
    assert [task["_id"] for task in ended] == ids
    assert {task["outcome"] for task in ended} == {"success"}


def test_a_cycle_is_refused_and_nothing_is_stored(client: Client) -> None:
    one, two = new_id(), new_id()
    tasks = [{"_id": one, "after": [two]}, {"_id": two, "after": [one]}]
    assert refused(lambda: client.submit(tasks)).word == "invalid"
    assert refused(lambda: client.get(one)).word == "not_found"


def test_wait_tells_of_changes_and_of_what_is_not_there(client: Client) -> None:
    ids = [task["_id"] for task in client.submit([{"name": "g"}] * 3, hold=True)]
    told: list[tuple[int, int]] = []
    timer = threading.Timer(0.3, client.release, [ids[:1]])
    timer.start()
    with pytest.raises(TimeoutError, match="1 of 3"):
        client.wait(ids, timeout_seconds=2, on_change=lambda n, total: told.append((n, total)))
    timer.join()
    assert told == [(0, 3), (1, 3)]
    assert refused(lambda: client.wait([new_id()])).word == "not_found"
    assert client.wait([]) == []


def test_wait_ends_as_soon_as_the_last_one_has(client: Client) -> None:
    ids = [task["_id"] for task in client.submit([{"name": "g"}] * 250, hold=True)]
    timer = threading.Timer(0.3, client.release, [ids])
    timer.start()
    assert len(client.wait(ids, timeout_seconds=20)) == 250
    timer.join()


def test_wait_does_not_wait_for_what_is_no_longer_there(
    client: Client, module_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(holding, "HOLD_SECONDS", 1.0)
    task = client.submit({"command": "true"}, hold=True)["_id"]

    def vanish() -> None:  # forgotten, with whatever had become of it
        with MongoClient[Any](module_database) as mongo:
            mongo.get_default_database()["tasks"].delete_one({"_id": ObjectId(task)})

    timer = threading.Timer(0.3, vanish)
    timer.start()
    assert refused(lambda: client.wait([task], timeout_seconds=60)).word == "not_found"
    timer.join()


def test_release_tells_what_could_not_be_released(client: Client) -> None:
    parent = client.submit({"name": "p"}, hold=True)
    child = client.submit({"name": "c", "after": [parent["_id"]]}, hold=True)
    assert refused(lambda: client.release([child["_id"]])).status == 422


def test_accounts_and_workers(server: Server) -> None:
    with Client(server.url, server.tokens["admin"]) as admin:
        account = admin.create_account("somebody", ["provider", "operator"])
        assert "somebody" in [one["name"] for one in admin.accounts()]
        with Client(server.url, account["token"]) as somebody:
            assert somebody.workers() == []
            admin.revoke_account(account["_id"])
        with Client(server.url, account["token"]) as somebody:
            assert refused(somebody.workers).word == "unauthenticated"


# --- answers that are lost ---------------------------------------------------------------


class Lossy:
    """Passes requests on to a server, and loses the next `lose` answers."""

    def __init__(self, url: str) -> None:
        self.lose = 0
        lossy = self

        class Handler(BaseHTTPRequestHandler):
            def _pass_on(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                answer = requests.request(
                    self.command, url + self.path, headers=dict(self.headers), data=body, timeout=30
                )
                if lossy.lose > 0:
                    lossy.lose -= 1
                    return
                self.send_response(answer.status_code)
                for name in ("Content-Type", "ETag"):
                    if name in answer.headers:
                        self.send_header(name, answer.headers[name])
                self.end_headers()
                self.wfile.write(answer.content)

            do_GET = do_POST = do_PATCH = _pass_on

            def log_message(self, *arguments: Any) -> None:
                """Says nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"


@pytest.fixture
def lossy(server: Server) -> Iterator[Lossy]:
    proxy = Lossy(server.url)
    thread = threading.Thread(target=proxy.server.serve_forever, args=(0.02,))
    thread.start()
    yield proxy
    proxy.server.shutdown()
    thread.join()
    proxy.server.server_close()


@pytest.fixture
def unlucky(server: Server, lossy: Lossy) -> Iterator[Client]:
    with Client(lossy.url, server.tokens["provider"]) as client:
        yield client


def test_a_lost_answer_makes_no_second_task(unlucky: Client, lossy: Lossy, server: Server) -> None:
    for tasks in ([{"name": "lost-1"}], [{"name": "lost-3"}] * 3):
        lossy.lose = 2
        created = unlucky.submit(tasks, hold=True)
        found = list(unlucky.find({"name": tasks[0]["name"]}))
        assert sorted(task["_id"] for task in found) == sorted(task["_id"] for task in created)


def test_a_lost_answer_with_a_dedupe_key_makes_no_second_task(
    unlucky: Client, lossy: Lossy
) -> None:
    lossy.lose = 1
    first = unlucky.submit({"name": "keyed", "dedupe_key": "k1"}, hold=True)
    again = unlucky.submit({"name": "keyed", "dedupe_key": "k1"}, hold=True)
    assert first["_id"] == again["_id"]


def test_an_id_that_somebody_else_has_taken_is_told_even_after_a_lost_answer(
    unlucky: Client, lossy: Lossy
) -> None:
    taken = unlucky.submit({"command": "mine"}, hold=True)["_id"]
    lossy.lose = 1
    same_id = {"_id": taken, "command": "another"}
    assert refused(lambda: unlucky.submit(same_id)).word == "already_exists"
    assert unlucky.get(taken)["command"] == "mine"


def test_an_id_that_is_taken_is_told(client: Client) -> None:
    task = client.submit({"command": "mine"}, hold=True)
    same = {"_id": task["_id"], "command": "mine"}
    assert refused(lambda: client.submit(same)).word == "already_exists"


def test_help_shows_what_programs_need():
    shown = pydoc.render_doc(banyan, renderer=pydoc.plaintext)
    for name in ("Client", "Executor", "TaskFailed", "BanyanError"):
        assert re.search(rf"^    class {name}\(", shown, re.MULTILINE), name


def test_a_key_with_very_many_parents_is_recognised(server: Server):
    with Client(server.url, server.tokens["provider"]) as client:
        parents = [one["_id"] for one in client.submit([{}] * 1100, hold=True)]
        task = {"command": "true", "dedupe_key": new_id(), "after": parents}
        first, second = client.submit(task), client.submit(task)
        assert second["_id"] == first["_id"]
        client.cancel(parents)
