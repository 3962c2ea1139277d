"""Continuations over HTTP: what the end of a parent means to its children, near and far."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.contract.asking import new_id
from tests.contract.playing import Item, Play, Player
from tests.harness import Server, eventually

KINDS = {
    "continuations": "after",
    "failure_continuations": "after_failure",
    "final_continuations": "after_any",
}
FAILURES = ["failure (1)", "failure (SIGKILL)", "timeout", "oom"]


@pytest.fixture
def play(server: Server) -> Play:
    return Play(server)


@pytest.fixture
def player(play: Play) -> Player:
    return play.player(resources={"cores": 64, "memory": "64 GiB"})


def store(play: Play, *tasks: Item) -> None:
    """A graph in one list; groups unless they have a command, inactive unless they say."""
    answer = play.server.provider.post("tasks", [{"queue": play.queue, **task} for task in tasks])
    assert answer.status_code == 201, answer.text


def runs(_id: str, **fields: Any) -> Item:
    return {"_id": _id, "command": "true", "state": "available", **fields}


def states(play: Play, ids: list[str]) -> list[str]:
    return [play.task(one)["state"] for one in ids]


def end(play: Play, player: Player, task: str, how: str) -> None:
    """Let the task end: an exit status, or one of the ways to be cancelled."""
    if how == "cancelled before it ran":
        play.server.provider.post(f"tasks/{task}/cancel")
        return
    claimed = player.claim_one(task).json()
    if how.startswith("cancelled while it ran"):
        play.server.provider.post(f"tasks/{task}/cancel")
        by_itself = how.endswith("but ended by itself")
        answer = player.end(claimed, *([] if by_itself else ["cancelled", "cancelled"]))
    else:
        answer = player.end(claimed, how)
    assert answer.status_code == 200, answer.text


CANCELLATIONS = [
    "cancelled before it ran",
    "cancelled while it ran",
    "cancelled while it ran but ended by itself",
]
ENDS = {
    **{("continuations", how): how == "success" for how in ["success", *FAILURES, *CANCELLATIONS]},
    **{
        ("failure_continuations", how): how in FAILURES
        for how in ["success", *FAILURES, *CANCELLATIONS]
    },
    **{("final_continuations", how): True for how in ["success", *FAILURES, *CANCELLATIONS]},
}


@pytest.mark.parametrize(("kind", "how"), list(ENDS))
def test_each_kind_of_edge_is_satisfied_by_its_ends(
    play: Play, player: Player, kind: str, how: str
):
    parent, child, grandchild = new_id(), new_id(), new_id()
    store(
        play,
        {"_id": grandchild, "command": "true"},
        {"_id": child, "command": "true", "continuations": [grandchild]},
        runs(parent, **{kind: [child]}),
    )
    assert play.task(child)["pending_dependency_count"] == 1
    end(play, player, parent, how)
    if ENDS[kind, how]:
        assert states(play, [child, grandchild]) == ["available", "inactive"]
        assert play.task(child)["pending_dependency_count"] == 0
        assert play.task(parent)[kind] == [child]
    else:
        assert states(play, [child, grandchild]) == ["cancelled", "cancelled"]
        assert play.task(child)["pending_dependency_count"] == 1
        assert play.task(parent)[kind] == play.task(child)["continuations"] == []
        assert parent in play.task(child)["reason"]


@pytest.mark.parametrize("kind", list(KINDS))
def test_a_parent_that_is_lost_for_good_has_failed(serve: Callable[..., Server], kind: str):
    play = Play(serve(LEASE_SECONDS=0.5, LEASE_MARGIN_SECONDS=0.2, UPKEEP_SECONDS=0.2))
    parent, child = new_id(), new_id()
    store(
        play, {"_id": child, "command": "true"}, runs(parent, max_lost_count=0, **{kind: [child]})
    )
    play.player().claim_one(parent)
    eventually(lambda: play.task(child)["state"] != "inactive")
    assert play.task(parent)["outcome"] == "lost"
    expected = "cancelled" if kind == "continuations" else "available"
    assert play.task(child)["state"] == expected


@pytest.mark.parametrize("kind", list(KINDS))
def test_a_failure_with_attempts_left_settles_nothing(play: Play, player: Player, kind: str):
    parent, child = new_id(), new_id()
    store(
        play,
        {"_id": child, "command": "true"},
        runs(parent, max_attempt_count=2, **{kind: [child]}),
    )
    end(play, player, parent, "failure (1)")
    assert states(play, [parent, child]) == ["available", "inactive"]
    assert play.task(child)["pending_dependency_count"] == 1
    end(play, player, parent, "failure (1)")
    expected = "cancelled" if kind == "continuations" else "available"
    assert states(play, [parent, child]) == ["terminated", expected]


# --- Several parents --------------------------------------------------------------------


def test_a_child_is_available_when_every_edge_is_satisfied(play: Play, player: Player):
    succeeds, fails, ends, child = (new_id() for _ in range(4))
    store(
        play,
        runs(succeeds),
        runs(fails),
        runs(ends),
        {
            "_id": child,
            "command": "true",
            "after": [succeeds],
            "after_failure": [fails],
            "after_any": [ends],
        },
    )
    for parent, how, count in [
        (succeeds, "success", 3),
        (ends, "cancelled before it ran", 2),
        (fails, "timeout", 1),
    ]:
        assert play.task(child)["pending_dependency_count"] == count
        assert play.task(child)["state"] == "inactive"
        end(play, player, parent, how)
    assert play.task(child)["pending_dependency_count"] == 0
    assert play.task(child)["state"] == "available"


def test_one_parent_counts_once_however_many_edges_it_has_to_the_child(play: Play, player: Player):
    parent, child = new_id(), new_id()
    store(
        play,
        {"_id": child, "command": "true"},
        runs(parent, continuations=[child], final_continuations=[child]),
    )
    assert play.task(child)["pending_dependency_count"] == 1
    end(play, player, parent, "success")
    assert play.task(child)["state"] == "available"


def test_both_edges_of_one_parent_must_be_satisfied(play: Play, player: Player):
    parent, child = new_id(), new_id()
    store(
        play,
        {"_id": child, "command": "true"},
        runs(parent, continuations=[child], final_continuations=[child]),
    )
    end(play, player, parent, "failure (1)")
    assert play.task(child)["state"] == "cancelled"
    assert play.task(parent)["continuations"] == play.task(parent)["final_continuations"] == []


def test_a_child_is_cancelled_as_soon_as_one_edge_can_no_longer_be(play: Play, player: Player):
    fails, open_one, also_open, child = (new_id() for _ in range(4))
    store(
        play,
        {"_id": child, "command": "true"},
        runs(fails, continuations=[child]),
        runs(open_one, failure_continuations=[child]),
        {"_id": also_open, "final_continuations": [child]},
    )
    end(play, player, fails, "failure (1)")
    assert play.task(child)["state"] == "cancelled"
    assert play.task(child)["pending_dependency_count"] == 3
    assert play.task(fails)["continuations"] == []
    assert play.task(open_one)["failure_continuations"] == []
    assert play.task(also_open)["final_continuations"] == []


def test_a_child_that_was_cancelled_by_itself_stops_nothing_else(play: Play, player: Player):
    parent, cancelled, sibling = (new_id() for _ in range(3))
    store(
        play,
        {"_id": cancelled, "command": "true"},
        {"_id": sibling, "command": "true"},
        runs(parent, continuations=[cancelled, sibling]),
    )
    end(play, player, cancelled, "cancelled before it ran")
    assert play.task(parent)["continuations"] == [sibling]
    assert play.task(cancelled)["pending_dependency_count"] == 1
    end(play, player, parent, "success")
    assert states(play, [cancelled, sibling]) == ["cancelled", "available"]


# --- Far away ---------------------------------------------------------------------------


def chain(length: int, **fields: Any) -> list[Item]:
    ids = [new_id() for _ in range(length)]
    return [
        {"_id": one, **fields, "continuations": ids[number + 1 : number + 2]}
        for number, one in enumerate(ids)
    ]


def test_groups_pass_on_to_any_depth(play: Play, player: Player):
    groups, last, first = chain(300), new_id(), new_id()
    groups[-1]["continuations"] = [last]
    store(
        play,
        *groups,
        {"_id": last, "command": "true"},
        runs(first, continuations=[groups[0]["_id"]]),
    )
    end(play, player, first, "success")
    # A request leaves the rest of a very deep graph to upkeep.
    eventually(lambda: play.task(last)["state"] == "available")
    assert {play.task(group["_id"])["state"] for group in groups} == {"terminated"}


def test_a_cancelled_child_cancels_its_own_continuations_in_turn(play: Play, player: Player):
    below, first, cleanup = chain(300, command="true"), new_id(), new_id()
    below[-1]["final_continuations"] = [cleanup]
    store(
        play,
        *below,
        {"_id": cleanup, "command": "true"},
        runs(first, continuations=[below[0]["_id"]]),
    )
    end(play, player, first, "failure (1)")
    eventually(lambda: play.task(cleanup)["state"] == "available")
    for task in below:
        now = play.task(task["_id"])
        assert (now["state"], now["continuations"]) == ("cancelled", [])
        assert now["pending_dependency_count"] == 1


def test_final_continuations_of_what_was_cancelled_in_turn_still_run(play: Play, player: Player):
    first, skipped, cleanup, after_cleanup = (new_id() for _ in range(4))
    store(
        play,
        {"_id": after_cleanup, "command": "true"},
        {"_id": cleanup, "command": "true", "continuations": [after_cleanup]},
        {"_id": skipped, "command": "true", "final_continuations": [cleanup]},
        runs(first, continuations=[skipped]),
    )
    end(play, player, first, "oom")
    assert states(play, [skipped, cleanup, after_cleanup]) == ["cancelled", "available", "inactive"]
    assert play.task(skipped)["final_continuations"] == [cleanup]
    end(play, player, cleanup, "success")
    assert play.task(after_cleanup)["state"] == "available"


def test_more_groups_than_are_settled_at_one_time_all_pass_on(play: Play, player: Player):
    """One task releases 1,800 groups, each of them a task: 1,000 of a level go at a time."""
    first, ids = new_id(), [new_id() for _ in range(1800)]
    lasts = [new_id() for _ in ids]
    store(play, runs(first, continuations=[]))
    for start in range(0, len(ids), 450):
        some = range(start, start + 450)
        groups = [
            {"_id": ids[one], "after": [first], "continuations": [lasts[one]]} for one in some
        ]
        store(play, *groups, *({"_id": lasts[one], "command": "true"} for one in some))
    end(play, player, first, "success")
    where = f'{{"queue": "{play.queue}", "state": "available"}}'

    def released() -> bool:
        pages = [
            play.server.provider.get(
                "tasks", where=where, projection='{"state": 1}', max_results=1000, page=page
            )
            for page in (1, 2)
        ]
        return sum(len(page.json()["_items"]) for page in pages) == len(ids)

    eventually(released, 5)


def test_a_diamond_comes_together_once(play: Play, player: Player):
    top, left, right, bottom = (new_id() for _ in range(4))
    store(
        play,
        {"_id": bottom, "command": "true"},
        {"_id": left, "command": "true", "continuations": [bottom]},
        {"_id": right, "continuations": [bottom]},
        runs(top, continuations=[left, right]),
    )
    end(play, player, top, "success")
    assert states(play, [left, right, bottom]) == ["available", "terminated", "inactive"]
    assert play.task(bottom)["pending_dependency_count"] == 1
    end(play, player, left, "success")
    assert play.task(bottom)["state"] == "available"
    assert len(player.claim(9)) == 1
    assert player.claim(9) == []


def test_a_repeated_report_settles_nothing_twice(play: Play, player: Player):
    parent, child = new_id(), new_id()
    store(play, {"_id": child, "command": "true"}, runs(parent, continuations=[child]))
    claimed = player.claim_one(parent).json()
    player.end(claimed)
    child_claimed = player.claim_one(child).json()
    assert player.end(claimed).status_code == 200
    assert play.task(child)["attempt_id"] == child_claimed["attempt_id"]
    assert play.task(child)["state"] == "running"
