"""Contract §5, hypermedia: what an item's links hold, for this caller, now."""

from typing import Any

import pytest

from tests.contract.asking import Item, make, read
from tests.contract.playing import Play
from tests.harness import Api, Server

EDGES = {
    f"{verb}_{field}"
    for verb in ("add", "remove")
    for field in ("continuations", "failure_continuations", "final_continuations")
}
ACTIONS = {*EDGES, "cancel", "retry", "claim", "release", "update_execution_data"}


def actions(item: Item) -> set[str]:
    """The names of an item's links that are actions."""
    return {name for name in item["_links"] if name in ACTIONS}


def seen(api: Api, task_id: str) -> set[str]:
    """The actions that a task offers to a caller."""
    return actions(read(api, task_id))


def test_a_link_has_title_href_and_method(server: Server):
    task = read(server.provider, make(server.provider))
    for name, link in task["_links"].items():
        assert link.keys() == {"title", "href", "method"}, name
        assert all(link.values()), name


def test_an_item_links_to_itself_parent_collection_and_related(server: Server):
    task = read(server.provider, make(server.provider))
    links = task["_links"]
    assert links["self"]["href"] == f"/tasks/{task['_id']}"
    assert links["parent"]["href"] == "/"
    assert links["collection"]["href"] == "/tasks"
    for name in ("self", "parent", "collection", "attempts"):
        assert server.provider.get(links[name]["href"]).status_code == 200, links[name]


def test_every_link_of_a_get_leads_somewhere(server: Server):
    play = Play(server)
    [task_id] = play.submit()
    player = play.player()
    [item] = player.claim()
    player.end(item)
    attempt = server.provider.get(f"attempts/{item['attempt_id']}").json()
    worker = server.provider.get(f"workers/{player.id}").json()
    for source in (read(server.provider, task_id), attempt, worker):
        for name, link in source["_links"].items():
            if link["method"] == "GET":
                answer = server.provider.get(link["href"])
                assert answer.status_code == 200, (name, link, answer.text[:300])


def test_the_actions_are_those_of_the_state(server: Server):
    play = Play(server)
    [task_id] = play.submit(state="inactive")
    player = play.player()
    assert seen(server.provider, task_id) == {*EDGES, "cancel"}
    server.provider.patch(f"tasks/{task_id}", {"state": "available"})
    assert seen(server.provider, task_id) == {"cancel"}
    [item] = player.claim()
    assert seen(server.provider, task_id) == {"cancel"}
    player.end(item, "failure (1)")
    assert seen(server.provider, task_id) == {"retry"}
    server.provider.post(f"tasks/{task_id}/retry")
    server.provider.post(f"tasks/{task_id}/cancel")
    assert seen(server.provider, task_id) == {"retry"}


def test_the_actions_are_those_of_the_caller(server: Server):
    play = Play(server)
    [task_id] = play.submit()
    player = play.player()
    assert seen(server.worker, task_id) == {"claim"}
    player.claim()
    assert seen(server.worker, task_id) == {"release", "update_execution_data"}
    assert seen(server.operator, task_id) == {"cancel"}


@pytest.mark.parametrize("state", ["inactive", "available"])
def test_the_answer_to_a_write_has_the_links_of_what_is_now(server: Server, state: str):
    made = make(server.provider, state=state)
    assert actions(made) == seen(server.provider, made["_id"])
    cancelled = server.provider.post(f"tasks/{made['_id']}/cancel").json()
    assert actions(cancelled) == {"retry"}


def test_an_action_may_be_taken_as_its_link_says(server: Server):
    task, child = make(server.provider), make(server.provider)
    for name, body in (("add_continuations", [child["_id"]]), ("cancel", None)):
        link = read(server.provider, task)["_links"][name]
        answer = server.provider.request(link["method"], link["href"], body)
        assert answer.status_code == 200, answer.text


def test_home_leads_to_all_that_the_caller_may_read(server: Server):
    def children(api: Api) -> set[str]:
        found: Any = api.get("").json()["_links"]["child"]
        for link in found:
            assert api.get(link["href"]).status_code == 200
        return {link["href"] for link in found}

    assert children(server.provider) >= {"/tasks", "/attempts", "/workers"}
    assert "/accounts" not in children(server.provider)
    assert "/accounts" in children(server.admin)


def test_a_collection_links_to_what_may_be_done_with_it(server: Server):
    for_providers = server.provider.get("tasks").json()["_links"]
    assert {"self", "parent", "create", "edit", "cancel", "retry"} <= for_providers.keys()
    assert "claim" not in for_providers
    for_workers = server.worker.get("tasks").json()["_links"]
    assert {"claim", "steal", "release"} <= for_workers.keys()
    assert "create" not in for_workers
    assert for_workers["claim"] == {
        "title": for_workers["claim"]["title"], "href": "/tasks/claim", "method": "POST",
    }  # fmt: skip


def test_minimal_leaves_links_and_echoes_out(server: Server):
    prefer = {"Prefer": "return=minimal"}
    made = server.provider.post("tasks", {"command": "x"}, headers=prefer).json()
    assert made.keys() == {"_id", "_etag", "state", "_status"}
    path = f"tasks/{made['_id']}"
    changed = server.provider.patch(path, {"name": "x"}, headers=prefer).json()
    assert changed.keys() == {"_id", "_etag", "state", "_status"}
    prefer = {"Prefer": 'RETURN = "Minimal"; Wait=0'}
    found = server.provider.get(path, headers=prefer).json()
    assert "_links" not in found
    assert "_links" not in server.provider.get("tasks", headers=prefer, max_results=1).json()
    assert found["name"] == "x"
