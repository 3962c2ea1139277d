"""Who knows the id of a task that is no concern of his learns nothing of it, whatever he sends."""

from collections.abc import Callable
from typing import Any

import pytest
from bson import ObjectId

from tests.contract.playing import Item, Play, Player, now, word
from tests.contract.playing import play as play
from tests.harness import Api, Server

LOST = (409, "lease_lost")
STATES = ("inactive", "available", "running", "terminated", "cancelled")


class Stranger:
    """A worker of an account that is for a queue of its own, with an attempt there."""

    def __init__(self, server: Server) -> None:
        own = Play(server)
        body = {"name": own.queue, "roles": ["worker"], "queues": [own.queue]}
        self.api = Api(server.url, server.admin.post("accounts", body).json()["token"])
        own.submit()
        self.player = own.player(self.api)
        (self.item,) = self.player.claim(1)

    @property
    def token(self) -> str:
        return str(self.item["token"])


@pytest.fixture
def stranger(server: Server) -> Stranger:
    return Stranger(server)


def in_state(play: Play, state: str) -> str:
    (task,) = play.submit(state="inactive" if state == "inactive" else "available")
    if state in ("running", "terminated"):
        player = play.player()
        item = player.claim_one(task).json()
        assert state == "running" or player.end(item).status_code == 200
    if state == "cancelled":
        assert play.server.provider.post(f"tasks/{task}/cancel").status_code == 200
    assert play.task(task)["state"] == state
    return task


def end(token: str) -> Item:
    data = {"token": token, "exit_status": "success", "time_terminated": now()}
    return {"state": "terminated", "update_execution_data": data}


def progress(token: str) -> Item:
    return {"progress": {"done": 1}, "update_execution_data": {"token": token}}


Attack = Callable[[Stranger, str, str], Any]
BY_TOKEN: dict[str, Attack] = {
    "report": lambda one, task, token: one.api.post(
        f"tasks/{task}/update_execution_data", {"token": token}
    ),
    "end": lambda one, task, token: one.api.patch(f"tasks/{task}", end(token)),
    "progress": lambda one, task, token: one.api.patch(f"tasks/{task}", progress(token)),
    "release": lambda one, task, token: one.api.post(f"tasks/{task}/release", {"token": token}),
}
CLAIMS: dict[str, Attack] = {
    "claim": lambda one, task, _: one.player.claim_one(task),
    "claim, as a verb": lambda one, task, _: one.api.post(
        f"tasks/{task}/claim", {"worker": one.player.id}
    ),
}


def told(answer: Any, task: str) -> Any:
    """All that an answer says but for the id that was asked for."""
    return answer.status_code, answer.text.replace(task, "ID")


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("attack", [*BY_TOKEN, *CLAIMS])
def test_of_another_queue_nothing_is_told(
    play: Play, stranger: Stranger, attack: str, state: str
) -> None:
    do = {**BY_TOKEN, **CLAIMS}[attack]
    task, none = in_state(play, state), str(ObjectId())
    for wrong in ("no-token", stranger.token, ""):
        there, not_there = do(stranger, task, wrong), do(stranger, none, wrong)
        assert told(there, task) == told(not_there, none)
        expected = (404, "not_found") if wrong or attack in CLAIMS else (401, "token_missing")
        assert word(there) == expected
    assert play.task(task)["state"] == state


def test_in_a_list_nothing_is_told_either(play: Play, stranger: Stranger) -> None:
    tasks = [in_state(play, state) for state in STATES]
    reports = [{"_id": task, **end(stranger.token)} for task in [*tasks, str(ObjectId())]]
    items = stranger.api.patch("tasks", reports).json()["_items"]
    assert {one["_error"]["word"] for one in items} == {"not_found"}
    assert not any("state" in one for one in items)


@pytest.mark.parametrize("attack", BY_TOKEN)
def test_who_may_claim_a_task_hears_that_he_has_lost_it(
    play: Play, stranger: Stranger, attack: str
) -> None:
    """What a worker says too late must not look as if there were no such task."""
    (task,) = play.submit(queue=stranger.item["queue"])
    (item,) = stranger.player.claim(1)
    assert item["_id"] == task
    assert stranger.api.delete(f"workers/{stranger.player.id}").status_code == 204
    again = Player(stranger.api, stranger.item["queue"]).claim_one(task)
    assert again.status_code == 200, again.text
    answer = BY_TOKEN[attack](stranger, task, item["token"])
    assert word(answer) == LOST
    assert answer.json()["state"] == "running"


@pytest.mark.parametrize("name", ["progress", "result"])
def test_a_running_task_learns_nothing_of_others(play: Play, stranger: Stranger, name: str) -> None:
    speaking = Api(play.server.url, stranger.token)
    none, said = str(ObjectId()), {"done": 1}
    not_there = speaking.post(f"tasks/{none}/{name}", said)
    assert word(not_there) == (404, "not_found")
    for state in STATES:
        task = in_state(play, state)
        there = speaking.post(f"tasks/{task}/{name}", said)
        assert told(there, task) == told(not_there, none)
    own = speaking.post(f"tasks/{stranger.item['_id']}/{name}", said)
    assert own.status_code == 200, own.text
