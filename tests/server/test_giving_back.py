"""What the server takes from a worker: killed in the middle, it leaves no attempt without an end.

Each kind of request is made of as many tasks as it takes commands; the server is killed before
the first command of the first request, before the second of the second, and so on.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from bson import ObjectId

from banyan.server.calls import Context, Silent
from banyan.server.doctor import database, examine
from banyan.server.upkeep import duties
from tests.contract.playing import Item, Play, Player
from tests.harness import Processes, Server
from tests.server.deaths import Deaths, Request

COMMANDS_MAX = 14  # more than any of these requests sends


def as_worker(play: Play, method: str, path: str, body: Any = None) -> Request:
    token = play.server.tokens["worker"]
    return {"method": method, "path": f"/{path}", "body": body, "token": token}


def release(play: Play, player: Player, claimed: Item) -> Request:
    return as_worker(play, "POST", "tasks/release", {"tokens": [claimed["token"]]})


def theft(play: Play, player: Player, claimed: Item) -> Request:
    thief = Player(play.server.worker, player.registered["queues"][0])
    return as_worker(play, "POST", "tasks/steal", {"worker": thief.id, "max": 1})


@pytest.mark.parametrize("kind", [release, theft])
def test_killed_between_any_two_commands_it_leaves_no_attempt_without_an_end(
    serve: Callable[..., Server],
    processes: Processes,
    fresh_database: str,
    tmp_path: Path,
    kind: Callable[[Play, Player, Item], Request],
):
    server = serve()
    requests, tasks = [], []
    for _ in range(COMMANDS_MAX):
        play = Play(server)
        player = play.player()
        tasks += play.submit()
        requests.append(kind(play, player, player.claim_one(tasks[-1]).json()))
    server.started.terminate()
    killed = Deaths(processes, fresh_database, tmp_path).of(requests)
    assert killed >= 3
    with database(fresh_database) as store:
        wrong = [one for one in examine(store, again_after_seconds=0) if one.check == "attempts"]
        assert wrong == []
        given_back = {"_id": ObjectId(tasks[killed]), "holder.worker": {"$ne": ObjectId(player.id)}}
        assert store["tasks"].count_documents(given_back) == 1


def test_who_ends_while_it_is_given_back_is_one_of_the_two(server: Server, module_database: str):
    """Upkeep decides on what it read; the worker's end comes in between, and stands."""
    play = Play(server)
    player = play.player()
    (task,) = play.submit()
    claimed = player.claim_one(task).json()
    with database(module_database) as store:
        long_ago = {"lease_until": datetime(2020, 1, 1, tzinfo=UTC)}
        held = store["tasks"].find_one({"_id": ObjectId(task)})
        assert held is not None
        player.end(claimed)
        store["workers"].update_one({"_id": ObjectId(player.id)}, {"$set": long_ago})
        assert (
            duties.give_back(Context(store, Silent()), [held], "lost with its worker", lost=True)
            == 0
        )
    assert play.task(task)["outcome"] == "success"
    assert [one["exit_status"] for one in play.attempts(task)] == ["success"]
