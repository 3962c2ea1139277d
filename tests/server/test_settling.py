"""Killed between any two commands to the database, a server leaves nothing for good.

Each kind of request that ends tasks or writes edges is made of as many equal graphs as it
takes commands; the server is killed before the first command of the first request, before
the second of the second, and so on. Then a server is started, and within 5 seconds every
graph is either as before the request or as after it; repeated, the request does the rest.
"""

import contextlib
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests
from bson import ObjectId
from pymongo import MongoClient

from banyan.domain.continuations import Cancel, settle
from banyan.domain.states import Ending
from banyan.server.store import mongo, settlements
from tests.contract.asking import new_id
from tests.contract.playing import Item, Play, Player, now
from tests.harness import Processes, Server, eventually
from tests.server.deaths import Deaths

COMMANDS_MAX = 28  # more than any of these requests sends: 23 at the most
Request = dict[str, Any]
States = dict[str, str]


@dataclass
class Graph:
    """One graph, the request that is killed, and the states before and after it."""

    ids: dict[str, str]
    request: Request
    before: States
    after: States

    def states(self, play: Play) -> States:
        return {name: play.task(one)["state"] for name, one in self.ids.items()}


BEFORE = {
    "parent": "running", "child": "inactive", "group": "inactive", "below_group": "inactive",
    "on_failure": "inactive", "below_failure": "inactive", "cleanup": "inactive",
}  # fmt: skip
SUCCEEDED = {
    **BEFORE, "parent": "terminated", "child": "available", "group": "terminated",
    "below_group": "available", "on_failure": "cancelled", "below_failure": "cancelled",
    "cleanup": "available",
}  # fmt: skip
FAILED = {
    **BEFORE, "parent": "terminated", "child": "cancelled", "group": "cancelled",
    "below_group": "cancelled", "on_failure": "available", "cleanup": "available",
}  # fmt: skip
CANCELLED = {**FAILED, "parent": "cancelled", "on_failure": "cancelled",
             "below_failure": "cancelled"}  # fmt: skip


def family(play: Play) -> dict[str, str]:
    """A parent with children of all kinds, some of which pass on what they meet."""
    ids = {name: new_id() for name in BEFORE}

    def named(*names: str) -> list[str]:
        return [ids[name] for name in names]

    tasks: list[Item] = [
        {"_id": ids["below_group"], "command": "true"},
        {"_id": ids["group"], "continuations": named("below_group")},
        {"_id": ids["child"], "command": "true"},
        {"_id": ids["below_failure"], "command": "true"},
        {"_id": ids["on_failure"], "command": "true", "continuations": named("below_failure")},
        {"_id": ids["cleanup"], "command": "true"},
        {
            "_id": ids["parent"],
            "command": "true",
            "continuations": named("child", "group"),
            "failure_continuations": named("on_failure"),
            "final_continuations": named("cleanup"),
        },
    ]
    answer = play.server.provider.post("tasks", [{"queue": play.queue, **one} for one in tasks])
    assert answer.status_code == 201, answer.text
    return ids


def patch(play: Play, task: str, body: Any, by: str = "provider") -> Request:
    token = play.server.tokens[by]
    return {"method": "PATCH", "path": f"/tasks/{task}", "body": body, "token": token}


def post(play: Play, path: str, body: Any) -> Request:
    token = play.server.tokens["provider"]
    return {"method": "POST", "path": f"/{path}", "body": body, "token": token}


def end_of_the_parent(play: Play, player: Player, exit_status: str, after: States) -> Graph:
    ids = family(play)
    play.server.provider.patch(f"tasks/{ids['parent']}", {"state": "available"})
    token = player.claim_one(ids["parent"]).json()["token"]
    data = {"token": token, "exit_status": exit_status, "time_terminated": now()}
    body = {"state": "terminated", "update_execution_data": data}
    return Graph(ids, patch(play, ids["parent"], body, by="worker"), BEFORE, after)


def success(play: Play, player: Player) -> Graph:
    return end_of_the_parent(play, player, "success", SUCCEEDED)


def failure(play: Play, player: Player) -> Graph:
    return end_of_the_parent(play, player, "failure (1)", FAILED)


def cancellation(play: Play, player: Player) -> Graph:
    ids = family(play)
    request = patch(play, ids["parent"], {"state": "cancelled"})
    return Graph(ids, request, {**BEFORE, "parent": "inactive"}, CANCELLED)


def cancellation_of_a_child(play: Play, player: Player) -> Graph:
    ids = family(play)
    after = {**BEFORE, "parent": "inactive", "group": "cancelled", "below_group": "cancelled"}
    request = post(play, f"tasks/{ids['group']}/cancel", {})
    return Graph(ids, request, {**BEFORE, "parent": "inactive"}, after)


def activation_of_a_group(play: Play, player: Player) -> Graph:
    ids = family(play)
    play.server.provider.patch(f"tasks/{ids['parent']}", {"command": None})
    request = patch(play, ids["parent"], {"state": "available"})
    return Graph(ids, request, {**BEFORE, "parent": "inactive"}, SUCCEEDED)


def retry_with_downstream(play: Play, player: Player) -> Graph:
    ids = family(play)
    play.server.provider.post(f"tasks/{ids['parent']}/cancel")
    after = {**BEFORE, "parent": "available", "cleanup": "available"}
    request = post(play, f"tasks/{ids['parent']}/retry", {"downstream": True})
    return Graph(ids, request, CANCELLED, after)


def a_late_child(play: Play, player: Player) -> Graph:
    """One that its parent's end has cancelled before it came, with a child of its own."""
    ids = {"parent": new_id(), "child": new_id(), "below": new_id()}
    provider = play.server.provider
    provider.post("tasks", {"_id": ids["parent"], "name": "parent"})
    provider.post("tasks", {"_id": ids["below"], "name": "below"})
    provider.post(f"tasks/{ids['parent']}/cancel")
    body = {"_id": ids["child"], "after": [ids["parent"]], "continuations": [ids["below"]]}
    before = {"parent": "cancelled", "child": "absent", "below": "inactive"}
    after = {"parent": "cancelled", "child": "cancelled", "below": "cancelled"}
    return Graph(ids, post(play, "tasks", body), before, after)


def an_added_edge(play: Play, player: Player) -> Graph:
    ids = {"parent": new_id(), "child": new_id()}
    for one in ids.values():
        play.server.provider.post("tasks", {"_id": one, "name": "g"})
    same = dict.fromkeys(ids, "inactive")
    request = post(play, f"tasks/{ids['parent']}/add_continuations", [ids["child"]])
    return Graph(ids, request, same, same)


KINDS: list[Callable[[Play, Player], Graph]] = [
    success,
    failure,
    cancellation,
    cancellation_of_a_child,
    activation_of_a_group,
    retry_with_downstream,
    an_added_edge,
    a_late_child,
]


@pytest.fixture
def deaths(processes: Processes, fresh_database: str, tmp_path: Path) -> Deaths:
    return Deaths(processes, fresh_database, tmp_path)


def both_ends_agree(database: str) -> None:
    """Every edge to a child that is not cancelled stands on both ends; sets and counts agree."""
    parents = {"continuations": "after", "failure_continuations": "after_failure",
               "final_continuations": "after_any"}  # fmt: skip
    with MongoClient[dict[str, Any]](database) as client:
        tasks = {task["_id"]: task for task in client.get_default_database()["tasks"].find()}
    ended = {one for one, task in tasks.items() if task["state"] in ("terminated", "cancelled")}
    for one, task in tasks.items():
        assert task["pending_dependency_count"] == len(task["open_parents"])
        assert not task.get("unsettled")
        for to_children, to_parents in parents.items():
            below = {c for c in task[to_children] if tasks[c]["state"] == "cancelled"}
            assert not below, "a cancelled child stands in a list"
            for child in task[to_children]:
                assert one in tasks[child][to_parents]
            for parent in task[to_parents]:
                assert task["state"] == "cancelled" or one in tasks[parent][to_children]
        if task["state"] == "inactive":
            waits_for = {p for name in parents.values() for p in task[name]} - ended
            assert set(task["open_parents"]) == waits_for


def stored_states(database: str, graph: Graph) -> States:
    """As they are, whoever is awake."""
    with MongoClient[dict[str, Any]](database) as client:
        found = client.get_default_database()["tasks"].find({}, {"state": 1})
        states = {str(task["_id"]): task["state"] for task in found}
    return {name: states.get(one, "absent") for name, one in graph.ids.items()}


@pytest.mark.parametrize("kind", KINDS)
def test_killed_between_any_two_commands_it_leaves_a_graph_that_heals(
    serve: Callable[..., Server],
    deaths: Deaths,
    fresh_database: str,
    kind: Callable[[Play, Player], Graph],
):
    play = Play(serve())
    player = play.player(resources={"cores": 256, "memory": "256 GiB"})
    graphs = [kind(play, player) for _ in range(COMMANDS_MAX)]
    play.server.started.terminate()

    killed = deaths.of([graph.request for graph in graphs])
    assert killed >= 3
    graphs = graphs[: killed + 1]
    left = [stored_states(fresh_database, graph) for graph in graphs]
    assert left[0] == graphs[0].before
    assert left[-1] == graphs[-1].after

    play.server = serve()

    def healed() -> bool:
        for graph in graphs:
            assert stored_states(fresh_database, graph) in (graph.before, graph.after)
        both_ends_agree(fresh_database)
        return True

    eventually(healed, 5)
    for graph in graphs:
        _again(play.server, graph.request)
    for graph in graphs:
        assert stored_states(fresh_database, graph) == graph.after


def test_a_server_killed_while_it_settles_a_wide_graph(
    serve: Callable[..., Server], fresh_database: str
):
    """The real thing, with whatever duties it held; 400 groups, each with a task behind it."""
    play = Play(serve())
    player = play.player()
    (parent,) = play.submit()
    ids = [new_id() for _ in range(800)]
    groups, lasts = ids[:400], ids[400:]
    tasks: list[Item] = [{"_id": one, "command": "true", "queue": play.queue} for one in lasts]
    tasks += [
        {"_id": group, "after": [parent], "continuations": [last]}
        for group, last in zip(groups, lasts, strict=True)
    ]
    assert play.server.provider.post("tasks", tasks).status_code == 201
    claimed = player.claim_one(parent).json()

    def states() -> set[str]:
        with MongoClient[dict[str, Any]](fresh_database) as client:
            return set(client.get_default_database()["tasks"].distinct("state"))

    ending = threading.Thread(target=_unanswered, args=[player, claimed])
    ending.start()
    eventually(lambda: "running" not in states(), every_seconds=0.001)
    play.server.started.kill()
    ending.join(30)
    play.server = serve()

    def healed() -> bool:
        both_ends_agree(fresh_database)
        return states() == {"terminated", "available"}

    eventually(healed, 5)


def test_who_settles_late_changes_nothing_of_a_task_that_was_retried(
    serve: Callable[..., Server], fresh_database: str
):
    """What it read belongs to the life before, and is written only there."""
    play = Play(serve())
    player = play.player()
    (parent,) = play.submit()
    (child,) = play.submit(after=[parent])
    store = mongo.Store(fresh_database)
    before = store["tasks"].find_one({"_id": ObjectId(child)}) or {}
    player.end(player.claim_one(parent).json(), "failure (1)")
    ended = store["tasks"].find_one({"_id": ObjectId(parent)}) or {}
    late = settle(before, {ended["_id"]: Ending(ended["ended_as"])})
    assert isinstance(late, Cancel)

    play.server.provider.post(f"tasks/{parent}/retry", {"downstream": True})
    updates = settlements.of_children({before["_id"]: before}, [late], mongo.now())
    settlements.write(store, updates)
    assert play.task(child)["state"] == "inactive"

    play.server.started.terminate()  # so that nobody settles the second end
    unsettled = {"state": "terminated", "ended_as": "success", "unsettled": True}
    store["tasks"].update_one({"_id": ended["_id"]}, {"$set": unsettled})
    settlements.write(store, settlements.marks([ended]))
    play.server = serve()
    eventually(lambda: play.task(child)["state"] == "available", 5)
    store.close()


def _unanswered(player: Player, claimed: Item) -> None:
    with contextlib.suppress(requests.RequestException):
        player.end(claimed)


def _again(server: Server, request: Request) -> None:
    """As a client does that had no answer; what it is told may be that it was done before."""
    api = server.worker if request["token"] == server.tokens["worker"] else server.provider
    answer = api.request(request["method"], request["path"], request["body"])
    word = answer.json().get("_error", {}).get("word")
    done_before = word == "already_exists" or answer.json().get("state") == "terminated"
    assert answer.status_code in (200, 201) or done_before, answer.text


def test_a_child_that_was_retried_meanwhile_stays_in_its_parents_list(
    serve: Callable[..., Server], fresh_database: str
):
    """Otherwise its parent would end as one that nobody waits for, and the child wait for ever."""
    play = Play(serve())
    (parent,) = play.submit()
    (child,) = play.submit(after=[parent])
    store = mongo.Store(fresh_database)
    play.server.provider.post(f"tasks/{child}/cancel")
    as_read = store["tasks"].find_one({"_id": ObjectId(child)}) or {}
    gone = settlements.with_parents(store, [{**as_read, "parent_count": 1}])
    play.server.provider.post(f"tasks/{child}/retry")
    assert play.task(parent)["continuations"] == [child]
    settlements.take_out(store, gone)
    assert play.task(parent)["continuations"] == [child]
    play.server.provider.post(f"tasks/{child}/cancel")
    eventually(lambda: play.task(parent)["continuations"] == [])
    store.close()
