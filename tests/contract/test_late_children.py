"""New tasks that name parents in any state, and tasks that are brought back with what they had."""

import itertools
from typing import Any

import pytest

from tests.contract.asking import new_id, refused
from tests.contract.playing import Item, Play, Player
from tests.harness import Server

AFTER = ("after", "after_failure", "after_any")
LISTS = {
    "after": "continuations",
    "after_failure": "failure_continuations",
    "after_any": "final_continuations",
}
# How a parent ended -> the kinds of edge that this satisfies.
ENDS = {
    "success": {"after", "after_any"},
    "failure (1)": {"after_failure", "after_any"},
    "timeout": {"after_failure", "after_any"},
    "cancelled": {"after_any"},
    "cancelled, but ended by itself": {"after_any"},
}


@pytest.fixture
def play(server: Server) -> Play:
    return Play(server)


@pytest.fixture
def player(play: Play) -> Player:
    return play.player(resources={"cores": 64, "memory": "64 GiB"})


def end(play: Play, player: Player, task: str, how: str) -> None:
    claimed = player.claim_one(task).json()
    if how.startswith("cancelled"):
        play.server.provider.post(f"tasks/{task}/cancel")
    answer = player.end(claimed, how) if how in ENDS and "," not in how else player.end(claimed)
    assert answer.status_code == 200, answer.text


def ended(play: Play, player: Player, how: str) -> str:
    (task,) = play.submit()
    end(play, player, task, how)
    return task


def cancel(play: Play, task: str) -> None:
    assert play.server.provider.post(f"tasks/{task}/cancel").status_code == 200


def retry(play: Play, task: str, downstream: bool | None = None) -> Item:
    body = {} if downstream is None else {"downstream": downstream}
    answer = play.server.provider.post(f"tasks/{task}/retry", body)
    assert answer.status_code == 200, answer.text
    found: Item = answer.json()
    return found


def states(play: Play, *tasks: str) -> list[str]:
    return [play.task(one)["state"] for one in tasks]


# --- Created with `after` ---------------------------------------------------------------


@pytest.mark.parametrize(("kind", "how"), list(itertools.product(AFTER, ENDS)))
def test_a_parent_that_has_ended_counts_at_once(play: Play, player: Player, kind: str, how: str):
    parent = ended(play, player, how)
    (child,) = play.submit(**{kind: [parent]})
    if kind in ENDS[how]:
        assert states(play, child) == ["available"]
        assert play.task(parent)[LISTS[kind]] == [child]
    else:
        assert states(play, child) == ["cancelled"]
        assert parent in play.task(child)["reason"]
        assert play.task(parent)[LISTS[kind]] == []
    assert play.task(child)["pending_dependency_count"] == 0


@pytest.mark.parametrize("kind", AFTER)
@pytest.mark.parametrize("state", ["inactive", "available", "running", "pending_cancellation"])
@pytest.mark.parametrize("created", ["available", "inactive"])
def test_a_parent_that_is_open_is_waited_for(
    play: Play, player: Player, state: str, kind: str, created: str
):
    (parent,) = play.submit(state="inactive" if state == "inactive" else "available")
    claimed: Any = None
    if state in ("running", "pending_cancellation"):
        claimed = player.claim_one(parent).json()
    if state == "pending_cancellation":
        cancel(play, parent)
    (child,) = play.submit(state=created, **{kind: [parent]})
    assert states(play, parent, child) == [state, "inactive"]
    assert play.task(child)["pending_dependency_count"] == 1
    assert play.task(parent)[LISTS[kind]] == [child]
    if claimed:
        how = "failure (1)" if kind == "after_failure" else "success"
        player.end(claimed, how)
        cancelled = state == "pending_cancellation" and kind != "after_any"
        assert states(play, child) == ["cancelled" if cancelled else "available"]


def test_some_parents_have_ended_and_some_have_not(play: Play, player: Player):
    done, going = ended(play, player, "success"), play.submit()[0]
    (child,) = play.submit(after=[done, going])
    assert play.task(child)["pending_dependency_count"] == 1
    end(play, player, going, "success")
    assert states(play, child) == ["available"]


def test_one_parent_that_ended_the_wrong_way_cancels_it_and_what_comes_after(
    play: Play, player: Player
):
    failed, going = ended(play, player, "failure (1)"), play.submit()[0]
    child, grandchild, cleanup = new_id(), new_id(), new_id()
    answer = play.server.provider.post("tasks", [
        {"_id": child, "command": "true", "after": [going, failed], "state": "available"},
        {"_id": grandchild, "command": "true", "after": [child], "state": "available"},
        {"_id": cleanup, "command": "true", "after_any": [child], "state": "available"},
    ])  # fmt: skip
    assert [item["state"] for item in answer.json()["_items"]] == [
        "cancelled", "cancelled", "available",
    ]  # fmt: skip
    assert play.task(going)["continuations"] == []
    assert play.task(child)["pending_dependency_count"] == 1


def test_a_graph_in_one_list_starts_where_nothing_is_waited_for(play: Play, player: Player):
    first, second, group, last = (new_id() for _ in range(4))
    answer = play.server.provider.post("tasks", [
        {"_id": last, "command": "true", "after": [group], "state": "available"},
        {"_id": group, "after": [first, second], "state": "available"},
        {"_id": first, "command": "true", "state": "available"},
        {"_id": second, "command": "true", "after": [first], "state": "available"},
    ])  # fmt: skip
    assert answer.status_code == 201, answer.text
    assert states(play, first, second, group, last) == [
        "available", "inactive", "inactive", "inactive",
    ]  # fmt: skip
    end(play, player, first, "success")
    end(play, player, second, "success")
    assert states(play, group, last) == ["terminated", "available"]


def test_an_available_group_with_its_children_in_one_list_is_over_at_once(play: Play):
    group, child = new_id(), new_id()
    answer = play.server.provider.post("tasks", [
        {"_id": group, "state": "available", "continuations": [child]},
        {"_id": child, "command": "true"},
    ])  # fmt: skip
    assert [item["state"] for item in answer.json()["_items"]] == ["terminated", "available"]


# --- Retry with downstream --------------------------------------------------------------


def a_failed_graph(play: Play, player: Player) -> list[str]:
    """first -> second -> third, first -final-> cleanup; the first has failed."""
    first, second, third, cleanup = (new_id() for _ in range(4))
    answer = play.server.provider.post("tasks", [
        {"_id": third, "command": "true"},
        {"_id": second, "command": "true", "continuations": [third]},
        {"_id": cleanup, "command": "true"},
        {"_id": first, "command": "true", "state": "available", "continuations": [second],
         "final_continuations": [cleanup]},
    ])  # fmt: skip
    assert answer.status_code == 201, answer.text
    end(play, player, first, "failure (1)")
    assert states(play, first, second, third, cleanup) == [
        "terminated", "cancelled", "cancelled", "available",
    ]  # fmt: skip
    return [first, second, third, cleanup]


def test_retry_with_downstream_restores_what_was_cancelled_because_of_it(
    play: Play, player: Player
):
    first, second, third, cleanup = a_failed_graph(play, player)
    assert retry(play, first, downstream=True)["state"] == "available"
    assert states(play, second, third, cleanup) == ["inactive", "inactive", "available"]
    assert play.task(first)["continuations"] == [second]
    assert play.task(second)["continuations"] == [third]
    assert play.task(second)["pending_dependency_count"] == 1
    assert (play.task(second)["reason"], play.task(second)["outcome"]) == (None, None)
    end(play, player, first, "success")
    end(play, player, second, "success")
    assert states(play, third, cleanup) == ["available", "available"]


@pytest.mark.parametrize("downstream", [None, False])
def test_retry_alone_leaves_what_was_cancelled(play: Play, player: Player, downstream: bool | None):
    first, second, third, _ = a_failed_graph(play, player)
    retry(play, first, downstream)
    assert states(play, first, second, third) == ["available", "cancelled", "cancelled"]
    end(play, player, first, "success")
    assert states(play, second, third) == ["cancelled", "cancelled"]


def test_it_may_fail_again_and_be_retried_again(play: Play, player: Player):
    first, second, third, _ = a_failed_graph(play, player)
    for _ in range(2):
        retry(play, first, downstream=True)
        assert states(play, second, third) == ["inactive", "inactive"]
        end(play, player, first, "failure (1)")
        assert states(play, first, second, third) == ["terminated", "cancelled", "cancelled"]
        assert play.task(first)["continuations"] == []


def test_what_a_provider_cancelled_by_itself_is_not_restored(play: Play, player: Player):
    first, second, third = (new_id() for _ in range(3))
    play.server.provider.post("tasks", [
        {"_id": second, "command": "true"},
        {"_id": third, "command": "true"},
        {"_id": first, "command": "true", "state": "available", "continuations": [second, third]},
    ])  # fmt: skip
    cancel(play, second)
    end(play, player, first, "failure (1)")
    retry(play, first, downstream=True)
    assert states(play, second, third) == ["cancelled", "inactive"]
    assert play.task(first)["continuations"] == [third]


def test_what_another_failed_parent_keeps_from_running_is_not_restored(play: Play, player: Player):
    first, other = play.submit(2)
    (child,) = play.submit(after=[first, other])
    end(play, player, first, "failure (1)")
    end(play, player, other, "failure (1)")
    retry(play, first, downstream=True)
    assert states(play, first, child) == ["available", "cancelled"]
    answer = play.server.provider.post("tasks/retry", {"targets": [other], "downstream": True})
    assert answer.status_code == 200
    assert states(play, other) == ["available"]


def test_a_whole_graph_is_retried_in_one_request(play: Play, player: Player):
    first, second, third, _ = a_failed_graph(play, player)
    targets = {"targets": [third, first, second]}
    assert play.server.provider.post("tasks/retry", targets).status_code == 200
    assert states(play, first, second, third) == ["available", "inactive", "inactive"]
    for task in (first, second, third):
        end(play, player, task, "success")


def test_a_retried_group_passes_on_at_once(play: Play):
    group, child = new_id(), new_id()
    play.server.provider.post("tasks", [
        {"_id": group, "continuations": [child]},
        {"_id": child, "command": "true"},
    ])  # fmt: skip
    cancel(play, group)
    assert states(play, group, child) == ["cancelled", "cancelled"]
    assert retry(play, group, downstream=True)["state"] == "terminated"
    assert states(play, group, child) == ["terminated", "available"]


def test_one_target_that_may_not_be_retried_and_nothing_is(play: Play, player: Player):
    good = ended(play, player, "failure (1)")
    (inactive,) = play.submit(state="inactive")
    for bad in (inactive, new_id()):
        refused(play.server.provider.post("tasks/retry", {"targets": [good, bad]}), 422)
    assert states(play, good) == ["terminated"]


def test_a_retry_that_would_close_a_cycle_is_refused(play: Play):
    """While it was cancelled, a new task came after it and before what it waits for."""
    (above,) = play.submit(state="inactive")
    (task,) = play.submit(after=[above])
    cancel(play, task)
    (between,) = play.submit(after=[task], continuations=[above])
    assert states(play, above, task, between) == ["cancelled"] * 3
    answer = play.server.provider.post(f"tasks/{task}/retry", {"downstream": True})
    refused(answer, 422, "illegal_transition")
    assert states(play, above, task, between) == ["cancelled"] * 3
    assert retry(play, task)["state"] == "available"


@pytest.mark.parametrize("body", [{"downstream": 1}, {"downstream": None}, {"x": 1}, [], "x"])
def test_malformed_retries_are_refused(play: Play, player: Player, body: Any):
    task = ended(play, player, "success")
    refused(play.server.provider.post(f"tasks/{task}/retry", body), 422, "invalid")
    assert states(play, task) == ["terminated"]
