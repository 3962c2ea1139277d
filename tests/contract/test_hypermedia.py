"""Contract §5: from `GET /` to anywhere by links alone, through the whole life of a task.

The walker knows no address: it knows names of links, and what to write where.
"""

from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.contract.asking import Item
from tests.contract.playing import RESOURCES, chunk, now
from tests.harness import Api, Server


class Walker:
    """A caller who follows links and nothing else."""

    def __init__(self, api: Api) -> None:
        self._api = api

    def home(self) -> Item:
        """The only address that a walker knows."""
        answer = self._api.get("/")
        assert answer.status_code == 200, answer.text
        found: Item = answer.json()
        return found

    def collection(self, title: str) -> Item:
        """A collection that home leads to."""
        (link,) = [one for one in self.home()["_links"]["child"] if one["title"] == title]
        return self._go(link).json()

    def follow(self, page: Item, name: str, body: Any = None) -> Item:
        """What the link of a page leads to; fails where the page has no such link."""
        assert name in page["_links"], f"no link {name!r}, only {sorted(page['_links'])}"
        found: Item = self._go(page["_links"][name], body).json()
        return found

    def text(self, page: Item, name: str) -> str:
        """As `follow`, where text is answered."""
        found: str = self._go(page["_links"][name]).text
        return found

    def again(self, page: Item) -> Item:
        """The page as it is now."""
        return self.follow(page, "self")

    def _go(self, link: Item, body: Any = None) -> Any:
        assert link.keys() == {"title", "href", "method"}
        parts = urlsplit(link["href"])
        arguments = {name: values[0] for name, values in parse_qs(parts.query).items()}
        answer = self._api.request(link["method"], parts.path, body, **arguments)
        assert answer.status_code in (200, 201), (link, answer.status_code, answer.text)
        return answer


@pytest.fixture
def owner(server: Server) -> Walker:
    return Walker(server.provider)


@pytest.fixture
def worker(server: Server) -> Walker:
    return Walker(server.worker)


def create(owner: Walker, **fields: Any) -> Item:
    """A new task, by the link of the collection."""
    body = {"command": "true", "queue": "hypermedia", **fields}
    return owner.follow(owner.collection("tasks"), "create", body)


def test_the_whole_life_of_a_task_by_links_alone(owner: Walker, worker: Walker):
    parent, child = create(owner, name="parent"), create(owner, name="child")
    parent = owner.follow(parent, "add_continuations", [child["_id"]])
    parent = owner.follow(parent, "edit", {"state": "available"})

    body = {"host": "h", "resources": RESOURCES, "queues": ["hypermedia"]}
    me = worker.follow(worker.collection("workers"), "create", body)
    assert worker.follow(me, "beat", {})["mode"] == "active"
    claim = {"worker": me["_id"], "start": True}
    (held,) = worker.follow(worker.collection("tasks"), "claim", claim)["_items"]
    assert held["_id"] == parent["_id"]
    token = held["token"]
    output = {"token": token, "log": [chunk(0, b"hello\n")]}
    held = worker.follow(held, "update_execution_data", output)
    assert [one["_id"] for one in worker.follow(me, "running")["_items"]] == [parent["_id"]]
    end = {"token": token, "exit_status": "success", "time_terminated": now()}
    worker.follow(held, "edit", {"state": "terminated", "update_execution_data": end})

    parent = owner.again(parent)
    assert (parent["state"], parent["outcome"]) == ("terminated", "success")
    assert owner.text(parent, "log") == "hello\n"
    (attempt,) = owner.follow(parent, "history")["_items"]
    assert owner.text(attempt, "log") == "hello\n"
    assert owner.follow(attempt, "worker")["_id"] == me["_id"]
    assert owner.follow(attempt, "task")["_id"] == parent["_id"]
    (listed,) = owner.follow(parent, "attempts")["_items"]
    assert listed["_id"] == attempt["_id"]
    assert owner.again(child)["state"] == "available"


def test_what_was_cancelled_is_tried_again_by_links(owner: Walker):
    task = owner.follow(create(owner), "cancel")
    assert task["state"] == "cancelled"
    assert "cancel" not in task["_links"]
    assert owner.follow(task, "retry")["state"] == "available"


def test_accounts_are_reached_by_links(server: Server):
    admin = Walker(server.admin)
    body = {"name": "walked", "roles": ["provider"]}
    account = admin.follow(admin.collection("accounts"), "create", body)
    assert Walker(Api(server.url, account["token"])).collection("tasks")["_items"] == []
    assert admin.follow(account, "revoke")["revoked"] is True


def test_home_leads_to_the_description_of_the_api(owner: Walker):
    assert owner.follow(owner.home(), "describedby")["openapi"].startswith("3.1")


def test_pages_are_turned_by_links(owner: Walker):
    made = {create(owner)["_id"] for _ in range(3)}
    page = owner.collection("tasks")
    first = owner.follow(
        {"_links": {"one": {**page["_links"]["self"], "href": "/tasks?max_results=2"}}}, "one"
    )
    seen = [item["_id"] for item in first["_items"]]
    page = first
    while "next" in page["_links"]:
        page = owner.follow(page, "next")
        seen += [item["_id"] for item in page["_items"]]
    assert made <= set(seen)
    assert len(set(seen)) == len(seen)


def test_a_worker_is_offered_writes_only_while_it_holds_the_task(owner: Walker, worker: Walker):
    queue = "offers"
    task = create(owner, queue=queue, state="available")
    body = {"host": "h", "resources": RESOURCES, "queues": [queue]}
    me = worker.follow(worker.collection("workers"), "create", body)
    (held,) = worker.follow(worker.collection("tasks"), "claim", {"worker": me["_id"]})["_items"]
    assert {"set_progress", "set_result", "edit", "release"} <= held["_links"].keys()
    assert "set_progress" not in owner.again(task)["_links"]
    end = {"token": held["token"], "exit_status": "success", "time_terminated": now()}
    ended = worker.follow(held, "edit", {"state": "terminated", "update_execution_data": end})
    assert not {"set_progress", "set_result", "edit", "release"} & ended["_links"].keys()


def test_a_collection_offers_a_write_only_to_those_who_may(server: Server):
    assert "progress" not in Walker(server.provider).collection("tasks")["_links"]
    assert "progress" in Walker(server.worker).collection("tasks")["_links"]
