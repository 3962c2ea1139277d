"""What random requests have found, each kept as a test of its own."""

import time
from typing import Any

import pytest

from tests.contract.asking import make, new_id, refused
from tests.contract.playing import Item, Play, chunk
from tests.harness import Server

SOON_SECONDS = 5.0  # it took longer than ten


@pytest.fixture
def play(server: Server) -> Play:
    return Play(server)


def held(play: Play) -> tuple[Any, Item]:
    """A player and the task that it has claimed."""
    play.submit()
    player = play.player()
    (item,) = player.claim()
    return player, item


def test_ten_thousand_broken_pieces_of_output_are_refused_soon(play: Play):
    player, item = held(play)
    start = time.monotonic()
    issues = refused(player.report(item, log=[chunk(0, b""), 0] * 5000), 422, "invalid")
    assert time.monotonic() - start < SOON_SECONDS
    assert "1" in issues["log"]
    assert "0" not in issues["log"]


def test_what_is_wrong_in_a_long_list_is_named_by_its_place(play: Play):
    player, item = held(play)
    log = [chunk(0, b"")] * 1000 + [{"offset": -1, "stream": "stdout", "data": ""}]
    issues = refused(player.report(item, log=log), 422, "invalid")
    assert set(issues["log"]) == {"1000"}


def test_a_list_over_its_length_is_refused_whole(server: Server):
    task = make(server.provider)
    answer = server.provider.post(f"tasks/{task['_id']}/add_continuations", [new_id()] * 5000)
    assert "1024" in str(refused(answer, 422, "invalid")["add_continuations"])


def test_a_repeated_value_is_found_in_a_long_list(server: Server):
    task = make(server.provider)
    ids = [new_id() for _ in range(500)]
    answer = server.provider.post(f"tasks/{task['_id']}/add_continuations", [*ids, ids[3]])
    assert "twice" in str(refused(answer, 422, "invalid")["add_continuations"])


def test_a_thousand_unknown_fields_do_not_make_a_long_answer(server: Server):
    answer = server.provider.post("tasks", {f"field{index}": 1 for index in range(100_000)})
    assert 0 < len(refused(answer, 422, "invalid")) < 100


def test_a_good_long_list_beside_a_bad_field_is_not_blamed(play: Play):
    player, item = held(play)
    issues = refused(player.report(item, log=[chunk(0, b"")] * 9000, reason=5), 422, "invalid")
    assert set(issues) == {"reason"}


def test_a_claim_by_name_changes_nothing_else(play: Play):
    player = play.player()
    (task_id,) = play.submit()
    claim = {"state": "running", "update_execution_data": {"worker": player.id}}
    for more in ({"priority": 5}, {"update_execution_data": {"worker": player.id, "log": 5}}):
        refused(player.api.patch(f"tasks/{task_id}", {**claim, **more}), 422, "invalid")
    refused(player.api.post(f"tasks/{task_id}/claim", {"worker": player.id, "max": 2}), 422)
    assert play.task(task_id)["state"] == "available"


def test_what_a_claim_says_is_free_is_checked_even_if_it_is_repeated(play: Play):
    play.submit()
    player = play.player()
    assert player.claim(claim_id="same")
    body = {"worker": player.id, "claim_id": "same", "fits": {"cores": -1}}
    assert "fits" in refused(player.api.post("tasks/claim", body), 422, "invalid")


@pytest.mark.parametrize("body", [{"unknown": 1}, [], "x", 5])
def test_an_action_that_takes_nothing_is_sent_nothing(play: Play, body: Any):
    player = play.player()
    refused(player.api.post(f"workers/{player.id}/drain", body), 422, "invalid")
    assert player.api.get(f"workers/{player.id}").json()["mode"] == "active"


def test_release_refuses_a_field_that_it_does_not_know(play: Play):
    player, item = held(play)
    body = {"tokens": [item["token"]], "unknown": 1}
    refused(player.api.post("tasks/release", body), 422, "invalid")
    assert play.task(item["_id"])["state"] == "running"
