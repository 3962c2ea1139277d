"""Workers: how they come, what of them is shown, and how they go."""

import json
import time
import uuid
from typing import Any

import pytest

from tests.contract.playing import Item, Play, Player, at_once, now, word
from tests.harness import Server


@pytest.fixture
def play(server: Server) -> Play:
    return Play(server)


def shown(play: Play, player: Player) -> Item:
    """The worker as `GET /workers` shows it to a provider."""
    where = json.dumps({"_id": player.id})
    (worker,) = play.server.provider.get("workers", where=where).json()["_items"]
    found: Item = worker
    return found


# --- Registration --------------------------------------------------------------------------


def test_a_worker_registers_itself(server: Server):
    body = {
        "host": "node1",
        "resources": {
            "cores": 8,
            "memory": "16 GiB",
            "gpus": [{"memory": "8 GiB", "compute_capability": "7.5"}],
            "custom": {"licences": 2},
        },
        "queues": ["default", "night"],
        "labels": {"zone": "a"},
    }
    answer = server.worker.post("workers", body)
    assert answer.status_code == 201
    worker = answer.json()
    assert worker["host"] == "node1"
    assert (worker["queues"], worker["labels"]) == (["default", "night"], {"zone": "a"})
    assert (worker["mode"], worker["account"]) == ("active", "worker")
    resources = worker["resources"]
    assert (resources["cores"], resources["memory"]) == (8, 16 * 2**30)
    assert resources["gpus"] == [{"memory": 8 * 2**30, "compute_capability": "7.5"}]
    assert resources["custom"] == {"licences": 2}
    again = server.worker.get(f"workers/{worker['_id']}").json()
    assert {name: again[name] for name in body} == {name: worker[name] for name in body}


def test_a_worker_that_names_none_serves_the_queue_default(server: Server):
    body = {"host": "h", "resources": {"cores": 1, "memory": 1}}
    worker = server.worker.post("workers", body).json()
    assert (worker["queues"], worker["labels"]) == (["default"], {})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("host", ""),
        ("host", 5),
        ("host", "h" * 254),
        ("host", "rack 7"),
        ("host", "rack7\n"),
        ("host", "rack$(touch${IFS}here)"),
        ("host", "rack\u202e7"),
        ("host", "-rf"),
        ("resources", {}),
        ("resources", {"cores": 1}),
        ("resources", {"memory": "1 GiB"}),
        ("resources", {"cores": -1, "memory": 1}),
        ("resources", {"cores": 1, "memory": "lots"}),
        ("resources", {"cores": 1, "memory": 1, "unknown": 1}),
        ("resources", {"cores": 1, "memory": 1, "gpus": [{"colour": 1}]}),
        ("resources", {"cores": 1, "memory": 1, "custom": {"a b": 1}}),
        ("resources", 5),
        ("queues", []),
        ("queues", ["a b"]),
        ("queues", ["a", "a"]),
        ("queues", "default"),
        ("labels", {"a b": "c"}),
        ("labels", {"a": 5}),
        ("labels", []),
        ("mode", "active"),
        ("used", {}),
        ("account", "mine"),
        ("unknown", 1),
    ],
)
def test_a_registration_that_makes_no_sense_is_refused(server: Server, field: str, value: Any):
    body = {"host": "h", "resources": {"cores": 1, "memory": 1}, field: value}
    answer = server.worker.post("workers", body)
    assert word(answer) == (422, "invalid")
    assert answer.json()["_issues"].keys() == {field}


@pytest.mark.parametrize("missing", ["host", "resources"])
def test_a_registration_needs_host_and_resources(server: Server, missing: str):
    body: Item = {"host": "h", "resources": {"cores": 1, "memory": 1}}
    del body[missing]
    answer = server.worker.post("workers", body)
    assert word(answer) == (422, "invalid")
    assert answer.json()["_issues"].keys() == {missing}


# --- What is shown -------------------------------------------------------------------------


def test_a_list_of_workers_shows_capacity_reserved_used_last_beat_and_mode(play: Play):
    player = play.player(resources={"cores": 4, "memory": "4 GiB", "gpus": 2})
    before = shown(play, player)
    assert before["resources"]["cores"] == 4
    assert before["reserved"] == {"cores": 0, "memory_bytes": 0, "gpu_count": 0}
    assert (before["mode"], before["used"]) == ("active", {})
    play.submit(2, requested_resources={"cores": 1, "memory": "1 GiB"})
    play.submit(1, requested_resources={"cores": 1.5, "memory": 0, "gpus": 1})
    items = player.claim(3)
    player.beat(used={"cores": 0.5, "memory_bytes": 1000})
    busy = shown(play, player)
    assert busy["reserved"] == {"cores": 3.5, "memory_bytes": 2 * 2**30, "gpu_count": 1}
    assert busy["used"] == {"cores": 0.5, "memory_bytes": 1000}
    assert busy["last_beat"] > before["last_beat"]
    for item in items:
        player.end(item)
    assert shown(play, player)["reserved"] == {"cores": 0, "memory_bytes": 0, "gpu_count": 0}


def test_what_processes_that_would_not_end_keep_is_not_called_free(play: Play):
    player = play.player(resources={"cores": 32, "memory": "4 GiB"})
    stuck = {"cores": 30, "memory_bytes": 2**20, "gpu_count": 0}
    player.beat(used={"cores": 0, "memory_bytes": 0, "stuck": stuck})
    assert shown(play, player)["reserved"] == stuck
    [task] = play.submit(1, requested_resources={"cores": 10, "memory": 0})
    told = lambda: play.server.provider.get(f"tasks/{task}/explain").json()["causes"][0]  # noqa: E731
    assert told()["lacking"] == {"cores": {"wanted": 10, "most": 2}}
    assert "processes that would not end are in the way of 30 cores" in told()["message"]
    assert "ended tasks still take 1 MiB of 4 GiB of memory there" in told()["message"]
    seen = play.server.provider.get(f"workers/{player.id}/statistics").json()
    assert seen["reserved"] == stuck
    player.beat(used={"cores": 0, "memory_bytes": 0})
    assert "there is room for it now" in told()["message"]
    assert shown(play, player)["reserved"]["cores"] == 0


def test_memory_that_is_not_left_any_more_is_given_before_the_next_beat(play: Play):
    player = play.player(resources={"cores": 4, "memory": "4 GiB"})
    stuck = {"cores": 0, "memory_bytes": 4 << 30, "gpu_count": 0}
    player.beat(used={"cores": 0, "memory_bytes": 0, "stuck": stuck})
    (task,) = play.submit(requested_resources={"cores": 1, "memory": "2 GiB"})
    assert player.claim(4, fits={"cores": 4, "memory": 0}) == []
    (claimed,) = player.claim(4, fits={"cores": 4, "memory": "4 GiB"})
    assert claimed["_id"] == task


def test_the_view_running_shows_what_a_worker_holds(play: Play):
    play.submit(3)
    player = play.player()
    first, second = player.claim(2)
    running = lambda: {  # noqa: E731
        item["_id"]
        for item in play.server.provider.get(f"workers/{player.id}/running").json()["_items"]
    }
    assert running() == {first["_id"], second["_id"]}
    player.end(first)
    assert running() == {second["_id"]}


@pytest.mark.parametrize(
    "body",
    [
        {"used": {"cores": -1}},
        {"used": {"unknown": 1}},
        {"used": {"stuck": {"cores": -1}}},
        {"used": {"stuck": {"unknown": 1}}},
        {"used": 5},
        {"attempts": "all"},
        {"attempts": ["x"]},
        {"unknown": 1},
        [],
    ],
)
def test_a_beat_that_makes_no_sense_is_refused(play: Play, body: Any):
    player = play.player()
    assert word(player.api.post(f"workers/{player.id}/beat", body)) == (422, "invalid")


def test_a_worker_sees_itself_and_not_the_workers_of_others(play: Play):
    other = play.player(play.server.account("worker", name=uuid.uuid4().hex))
    mine = play.player()
    for path in ("", "/running"):
        assert mine.api.get(f"workers/{mine.id}{path}").status_code == 200
        assert word(mine.api.get(f"workers/{other.id}{path}")) == (404, "not_found")
    for action in ("beat", "drain"):
        assert word(mine.api.post(f"workers/{other.id}/{action}")) == (404, "not_found")
    assert word(mine.api.delete(f"workers/{other.id}")) == (404, "not_found")
    ids = [w["_id"] for w in mine.api.get("workers", max_results=1000).json()["_items"]]
    assert mine.id in ids
    assert other.id not in ids
    assert other.beat().status_code == 200


# --- Drain ---------------------------------------------------------------------------------


def test_a_draining_worker_finishes_what_runs_and_takes_nothing_new(play: Play):
    (task,) = play.submit()
    player = play.player()
    (item,) = player.claim(1)
    answer = play.server.operator.post(f"workers/{player.id}/drain")
    assert (answer.status_code, answer.json()["mode"]) == (200, "draining")
    assert shown(play, player)["mode"] == "draining"
    (more,) = play.submit()
    assert player.claim(1) == []
    assert player.steal(1) == []
    assert word(player.claim_one(more)) == (409, "conflict")
    assert player.report(item, time_started=now()).status_code == 200
    assert player.end(item).status_code == 200
    assert (play.task(task)["outcome"], play.task(more)["state"]) == ("success", "available")


def test_a_drained_worker_takes_tasks_again_once_it_is_resumed(play: Play):
    player = play.player()
    (task,) = play.submit(1)
    operator = play.server.operator
    operator.post(f"workers/{player.id}/drain")
    for _ in range(2):
        answer = operator.post(f"workers/{player.id}/resume")
        assert (answer.status_code, answer.json()["mode"]) == (200, "active")
    assert player.beat().json()["mode"] == "active"
    assert [item["_id"] for item in player.claim()] == [task]
    assert word(operator.post(f"workers/{player.id}/resume", {"x": 1})) == (422, "invalid")
    assert word(play.server.provider.post(f"workers/{player.id}/resume")) == (403, "forbidden")


def test_a_worker_may_drain_itself_and_repeat_it(play: Play):
    player = play.player()
    for _ in range(2):
        answer = player.api.post(f"workers/{player.id}/drain")
        assert (answer.status_code, answer.json()["mode"]) == (200, "draining")


def test_a_beat_that_waits_hears_of_the_drain_at_once(play: Play):
    player = play.player()
    start = time.monotonic()
    answer, _ = at_once(
        [
            lambda: player.beat(wait=30),
            lambda: play.server.operator.post(f"workers/{player.id}/drain"),
        ]
    )
    if answer.json()["mode"] == "active":  # it was answered before
        answer = player.beat(wait=30)
    assert answer.json()["mode"] == "draining"
    assert time.monotonic() - start < 10


def test_who_has_heard_of_the_drain_is_held_and_hears_of_the_end_of_it_at_once(play: Play):
    player = play.player()
    operator = play.server.operator
    operator.post(f"workers/{player.id}/drain")
    heard = {"If-None-Match": player.beat().headers["ETag"]}

    def beat(seconds: float) -> Item:
        """A beat of who knows that it drains."""
        path = f"workers/{player.id}/beat"
        answer: Item = player.api.post(path, {}, headers=heard, wait=seconds).json()
        return answer

    start = time.monotonic()
    assert beat(0.5)["mode"] == "draining"
    assert time.monotonic() - start > 0.4, "it was held"
    told, _ = at_once([lambda: beat(60), lambda: operator.post(f"workers/{player.id}/resume")])
    assert told["mode"] == "active"
    assert beat(60)["mode"] == "active", "that is news, whoever asks for it again"
    assert time.monotonic() - start < 30


def test_what_was_wanted_and_told_is_no_news(play: Play):
    play.submit(2, requested_resources={"cores": 1})
    victim = play.player()
    victim.claim(1, fits={"cores": 1}, start=True, ahead=1)
    assert play.player().steal(1) == []
    told = victim.beat(wanted_number=0)
    assert told.json()["wanted"]["number"] == 1
    again = victim.api.post(
        f"workers/{victim.id}/beat",
        {"wanted_number": 1},
        headers={"If-None-Match": told.headers["ETag"]},
    )
    assert again.headers["ETag"] == told.headers["ETag"]


# --- Removal -------------------------------------------------------------------------------


def test_an_operator_removes_a_worker_and_its_tasks_are_given_back(play: Play):
    (task,) = play.submit(max_lost_count=0)
    player = play.player()
    (item,) = player.claim(1)
    answer = play.server.operator.delete(f"workers/{player.id}")
    assert (answer.status_code, answer.content) == (204, b"")
    assert play.task(task)["state"] == "available"  # and nobody is to blame
    assert play.server.operator.get(f"workers/{player.id}").status_code == 404
    assert word(player.end(item)) == (409, "lease_lost")
    (again,) = play.player().claim(1)
    assert again["_id"] == task


def test_a_removed_worker_is_told(play: Play):
    player = play.player()
    play.server.operator.delete(f"workers/{player.id}")
    assert word(player.beat()) == (404, "not_found")
    assert word(player.api.post("tasks/claim", {"worker": player.id})) == (404, "not_found")
    assert word(play.server.operator.delete(f"workers/{player.id}")) == (404, "not_found")


def test_a_removed_worker_is_told_at_once_when_its_beat_waits(play: Play):
    player = play.player()
    start = time.monotonic()
    answer, _ = at_once(
        [lambda: player.beat(wait=30), lambda: play.server.operator.delete(f"workers/{player.id}")]
    )
    if answer.status_code == 200:  # it was answered before
        answer = player.beat(wait=30)
    assert word(answer) == (404, "not_found")
    assert time.monotonic() - start < 10


def test_a_removed_workers_cancelled_task_becomes_cancelled(play: Play):
    (task,) = play.submit()
    player = play.player()
    player.claim(1)
    play.server.provider.post(f"tasks/{task}/cancel")
    play.server.operator.delete(f"workers/{player.id}")
    assert play.task(task)["state"] == "cancelled"


def test_a_worker_may_remove_itself_when_it_ends(play: Play):
    (task,) = play.submit()
    player = play.player()
    player.claim(1)
    assert player.api.delete(f"workers/{player.id}").status_code == 204
    assert play.task(task)["state"] == "available"


def test_what_was_killed_with_its_worker_is_lost_with_it(play: Play):
    """Otherwise a task that kills its worker would run for ever."""
    (task,) = play.submit(max_lost_count=1)
    for _ in range(2):
        player = play.player()
        player.claim_one(task)
        assert word(player.api.delete(f"workers/{player.id}?lost=yes")) == (400, "bad_request")
        assert player.api.delete(f"workers/{player.id}?lost=1").status_code == 204
    assert (play.task(task)["state"], play.task(task)["outcome"]) == ("terminated", "lost")


def test_a_provider_removes_no_worker(play: Play):
    player = play.player()
    assert word(play.server.provider.delete(f"workers/{player.id}")) == (403, "forbidden")
    assert word(play.server.provider.post(f"workers/{player.id}/drain")) == (403, "forbidden")
    assert player.beat().status_code == 200
