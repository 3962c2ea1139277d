"""Ended tasks are forgotten on request: for good, whole, and never under others' feet."""

import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from bson import ObjectId
from pymongo import MongoClient

from tests.contract.asking import new_id, refused
from tests.contract.playing import Play, Player, at_once, chunk, word
from tests.harness import Processes, Server, eventually

COMMANDS_MAX = 16  # more than a request to forget sends
HELLO = [chunk(0, b"hello")]


@pytest.fixture
def play(server: Server) -> Play:
    return Play(server)


@pytest.fixture
def player(play: Play) -> Player:
    return play.player()


def ended(play: Play, player: Player, exit_status: str = "success", **fields: object) -> str:
    """A task that ran once, and has said hello."""
    (task,) = play.submit(1, **fields)
    item = player.claim_one(task).json()
    assert player.report(item, log=HELLO).status_code == 200
    assert player.end(item, exit_status).status_code == 200
    return task


def left_of(uri: str, tasks: list[str]) -> dict[str, int]:
    """How much the database still holds of these tasks."""
    of_these = {"task": {"$in": [ObjectId(task) for task in tasks]}}
    with MongoClient(uri) as client:
        database = client.get_default_database()
        return {
            "tasks": database["tasks"].count_documents({"_id": of_these["task"]}),
            "attempts": database["attempts"].count_documents(of_these),
            "log_chunks": database["log_chunks"].count_documents(of_these),
        }


GONE = {"tasks": 0, "attempts": 0, "log_chunks": 0}
WHOLE = {"tasks": 1, "attempts": 1, "log_chunks": 1}


def test_a_forgotten_task_is_gone_with_its_attempts_and_output(
    play: Play, player: Player, module_database: str
):
    provider = play.server.provider
    task, other = ended(play, player), ended(play, player)
    attempt = play.attempts(task)[0]["_id"]
    assert left_of(module_database, [task]) == WHOLE
    answer = provider.post(f"tasks/{task}/forget")
    assert (answer.status_code, answer.json()) == (200, {"_status": "OK"})
    for path in (f"tasks/{task}", f"tasks/{task}/log", f"tasks/{task}/history"):
        refused(provider.get(path), 404, "not_found")
    refused(provider.get(f"attempts/{attempt}"), 404)
    refused(provider.post(f"tasks/{task}/forget"), 404)
    refused(provider.post(f"tasks/{task}/retry"), 404)
    assert left_of(module_database, [task]) == GONE
    assert left_of(module_database, [other]) == WHOLE


def test_many_are_forgotten_at_once_or_none(play: Play, player: Player, module_database: str):
    provider = play.server.provider
    tasks = [ended(play, player), ended(play, player, "failure (1)")]
    (waiting,) = play.submit(1)
    body = {"targets": [*tasks, waiting]}
    assert word(provider.post("tasks/forget", body)) == (422, "illegal_transition")
    assert left_of(module_database, tasks)["tasks"] == 2
    answer = provider.post("tasks/forget", {"targets": tasks})
    assert (answer.status_code, answer.json()) == (200, {"_status": "OK"})
    assert left_of(module_database, tasks) == GONE
    # Repeated, or with ids of nothing, it has nothing to do.
    again = provider.post("tasks/forget", {"targets": [*tasks, new_id()]})
    assert again.status_code == 200


def test_only_an_ended_task_is_forgotten(play: Play, player: Player):
    provider = play.server.provider
    held, running = play.submit(1, state="inactive")[0], play.submit(1)[0]
    item = player.claim_one(running).json()
    for task in (held, running):
        answer = provider.post(f"tasks/{task}/forget")
        assert word(answer) == (422, "illegal_transition")
        assert answer.json()["state"] == play.task(task)["state"]
    provider.post(f"tasks/{running}/cancel")
    assert word(provider.post(f"tasks/{running}/forget"))[0] == 422  # it is still on its way
    player.end(item, "cancelled", "cancelled")
    assert provider.post(f"tasks/{running}/forget").status_code == 200


def test_the_link_is_there_once_it_has_ended(play: Play, player: Player):
    (task,) = play.submit(1)
    assert "forget" not in play.task(task)["_links"]
    item = player.claim_one(task).json()
    player.end(item)
    link = play.task(task)["_links"]["forget"]
    assert (link["href"], link["method"]) == (f"/tasks/{task}/forget", "POST")


def test_others_tasks_are_not_there_and_workers_may_not(play: Play, player: Player):
    task = ended(play, player)
    stranger = play.server.account("provider", name=f"stranger-{task}")
    refused(stranger.post(f"tasks/{task}/forget"), 404, "not_found")
    assert stranger.post("tasks/forget", {"targets": [task]}).status_code == 200
    refused(play.server.worker.post(f"tasks/{task}/forget"), 403, "forbidden")
    assert play.task(task)["state"] == "terminated"


def test_a_dedupe_key_is_free_again(play: Play, player: Player):
    key = new_id()
    task = ended(play, player, dedupe_key=key)
    again = {"command": "false", "dedupe_key": key}
    assert word(play.server.provider.post("tasks", again)) == (409, "dedupe_mismatch")
    play.server.provider.post(f"tasks/{task}/forget")
    made = play.server.provider.post("tasks", again)
    assert made.status_code == 201
    assert made.json()["_id"] != task


@pytest.mark.parametrize("late", [False, True])
def test_a_parent_stays_while_a_child_of_it_has_not_ended(play: Play, player: Player, late: bool):
    provider = play.server.provider
    other = play.submit(1, state="inactive")[0]
    parent, child = new_id(), new_id()
    tasks = [{"_id": parent, "command": "true", "state": "available", "queue": play.queue}]
    below = {"_id": child, "command": "true", "after": [parent, other], "queue": play.queue}
    provider.post("tasks", tasks if late else [*tasks, below])
    player.end(player.claim_one(parent).json())
    if late:
        provider.post("tasks", below)
    answer = provider.post(f"tasks/{parent}/forget")
    assert word(answer) == (422, "illegal_transition")
    assert child in answer.json()["_error"]["message"]
    provider.post(f"tasks/{child}/cancel")
    assert provider.post(f"tasks/{parent}/forget").status_code == 200
    assert play.task(child)["state"] == "cancelled"


def test_a_child_stays_while_a_parent_of_it_is_retried(play: Play, player: Player):
    provider = play.server.provider
    parent, child = new_id(), new_id()
    provider.post("tasks", [
        {"_id": parent, "command": "true", "state": "available", "queue": play.queue},
        {"_id": child, "command": "true", "after": [parent], "state": "available",
         "queue": play.queue},
    ])  # fmt: skip
    for task in (parent, child):
        player.end(player.claim_one(task).json())
    assert provider.post(f"tasks/{parent}/retry").status_code == 200
    assert word(provider.post(f"tasks/{child}/forget")) == (422, "illegal_transition")
    player.end(player.claim_one(parent).json())
    # Together they may go; and a child whose parent went is retried on its own.
    provider.post(f"tasks/{parent}/forget")
    assert provider.post(f"tasks/{child}/retry").json()["state"] == "available"


def test_nothing_is_hung_on_what_is_gone(play: Play, player: Player):
    task = ended(play, player)
    play.server.provider.post(f"tasks/{task}/forget")
    issues = refused(play.server.provider.post("tasks", {"after": [task]}), 422)
    assert task in str(issues["after"])


def test_of_forget_and_retry_at_one_moment_one_wins(
    play: Play, player: Player, module_database: str
):
    provider = play.server.provider
    for _ in range(10):
        task = ended(play, player, "failure (1)")
        forgotten, retried = at_once(
            [
                partial(provider.post, f"tasks/{task}/forget"),
                partial(provider.post, f"tasks/{task}/retry"),
            ]
        )
        codes = (forgotten.status_code, retried.status_code)
        assert codes in ((200, 404), (422, 200)), (forgotten.text, retried.text)
        left = GONE if forgotten.status_code == 200 else WHOLE
        assert left_of(module_database, [task]) == left
        provider.post(f"tasks/{task}/cancel")


def test_of_forget_and_a_late_child_at_one_moment_no_child_waits_for_nothing(
    play: Play, player: Player
):
    provider = play.server.provider
    for _ in range(10):
        task = ended(play, player)
        forgotten, hung = at_once(
            [
                partial(provider.post, f"tasks/{task}/forget"),
                partial(provider.post, "tasks", {"command": "true", "after": [task]}),
            ]
        )
        codes = (forgotten.status_code, hung.status_code)
        assert codes in ((200, 422), (422, 201)), (forgotten.text, hung.text)


def test_killed_before_any_command_it_leaves_all_of_a_task_or_a_note_of_the_rest(
    play: Play, player: Player, processes: Processes, tmp_path: Path, module_database: str
):
    tasks = [ended(play, player) for _ in range(COMMANDS_MAX)]
    token = play.server.provider.token
    requests = [
        {
            "method": "POST",
            "path": f"/tasks/{task}/forget",
            "body": {},
            "token": token,
            "alone": True,
        }
        for task in tasks
    ]
    (tmp_path / "requests").write_text("\n".join(map(json.dumps, requests)))
    dying = processes.start(
        [sys.executable, "-m", "tests.harness.dying", str(tmp_path / "requests")],
        {"BANYAN_MONGO_URI": module_database},
    )
    assert dying.wait(100) == 0, dying.stderr
    killed = dying.stdout.splitlines()[:-1]
    assert 5 < len(killed) < COMMANDS_MAX
    seen = []
    with MongoClient(module_database) as client:
        notes = client.get_default_database()["forgotten"]
        for task in tasks[: len(killed)]:
            left = left_of(module_database, [task])
            noted = notes.find_one({"tasks": ObjectId(task)})
            assert left == WHOLE if noted is None else left["tasks"] == 0
            seen.append(noted is not None)  # the rest may have been removed by upkeep since
    assert set(seen) == {False, True}, "it was killed on both sides of the removal"


def test_a_task_goes_by_itself_and_who_waits_for_it_is_told(serve: Callable[..., Server]):
    """The duty at work in a server of two processes, one of which does it."""
    server = serve(server_processes=2, RETENTION_SECONDS=0.2, UPKEEP_SECONDS=0.2)
    play = Play(server)
    player = play.player()
    kept = ended(play, player, retain="1 hour")
    (task,) = play.submit(1)
    player.end(player.claim_one(task).json())
    seen = server.provider.get(f"tasks/{task}")
    waiting = partial(
        server.provider.get,
        f"tasks/{task}",
        headers={"If-None-Match": seen.headers["ETag"], "Prefer": "wait=50"},
    )
    assert server.provider.patch(f"tasks/{task}", {"retain": 0}).status_code == 200
    eventually(lambda: waiting().status_code == 404, 30)
    assert play.task(kept)["retain"] == 3_600_000


def test_how_long_a_task_is_kept_is_a_field_like_others(play: Play, player: Player):
    provider = play.server.provider
    for given, stored in (("2 days", 172_800_000), ("forever", "forever"), (None, None), (7, 7)):
        (task,) = play.submit(1, retain=given)
        assert play.task(task)["retain"] == stored
        provider.post(f"tasks/{task}/cancel")
    task = ended(play, player)
    assert provider.patch(f"tasks/{task}", {"retain": "forever"}).json()["retain"] == "forever"
    where = json.dumps({"retain": "forever", "queue": play.queue})
    found = provider.get("tasks", where=where).json()["_items"]
    assert task in {one["_id"] for one in found}
    for wrong in ("soon", -1, True, 1.5, [], 2**60):
        assert refused(provider.patch(f"tasks/{task}", {"retain": wrong}), 422)["retain"]
