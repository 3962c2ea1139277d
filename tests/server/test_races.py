"""Requests at the same moment, to two server processes: one wins, and the other is told so.

Who loses: a second claim, an edit that met another state, an edge whose end has moved on.
Who never loses: a cancellation by its action, a worker's report, a new task.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

from tests.contract.asking import new_id
from tests.contract.playing import Item, Play, Player, at_once
from tests.harness import Api, Processes, Server, start_server

ROUNDS = 20
AVAILABLE = {"state": "available"}


@pytest.fixture(scope="module")
def server(module_database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    directory = tmp_path_factory.mktemp("server")
    own = Processes(directory)
    yield start_server(own, directory / "data", module_database, server_processes=2)
    own.end()


@pytest.fixture
def play(server: Server) -> Play:
    return Play(server)


@pytest.fixture
def player(play: Play) -> Player:
    return play.player(resources={"cores": 256, "memory": "256 GiB"})


def group(api: Api) -> str:
    answer = api.post("tasks", {"name": "g"})
    assert answer.status_code == 201
    return str(answer.json()["_id"])


def later(api: Api, requests: int, call: Callable[[], Any]) -> Callable[[], Any]:
    """The call after some requests: it meets what takes longer at another moment each time."""

    def waited() -> Any:
        for _ in range(requests):
            api.get("healthz")
        return call()

    return waited


def statuses(answers: list[Any]) -> list[int]:
    return [answer.status_code for answer in answers]


def lost(answer: Any, *states: str) -> bool:
    """Refused for what another request did: at the write (409), or seen at the read (422)."""
    assert answer.status_code in (409, 422), answer.text
    assert answer.json().get("state") in states, answer.text
    if answer.status_code == 409:
        assert answer.json()["_error"]["word"] == "conflict"
    return True


def waits(play: Play, child: str) -> Item:
    """The child, after a look at whether both ends of each of its edges are there."""
    task = play.task(child)
    for to_parents, to_children in [
        ("after", "continuations"),
        ("after_any", "final_continuations"),
    ]:
        for parent in task[to_parents]:
            assert task["state"] == "cancelled" or child in play.task(parent)[to_children]
    return task


# --- Claims -----------------------------------------------------------------------------


def test_of_many_simultaneous_claims_of_one_task_one_wins(play: Play):
    players = [play.player() for _ in range(16)]
    for task in play.submit(10):
        answers = at_once([partial(one.claim_one, task) for one in players])
        assert sorted(statuses(answers)) == [200] + [409] * 15
        for answer in answers:
            if answer.status_code == 409:
                lost(answer, "running")
        assert len(play.attempts(task)) == 1
        (winner,) = [answer.json() for answer in answers if answer.status_code == 200]
        assert play.task(task)["attempt_id"] == winner["attempt_id"]


def test_claims_of_many_never_share_a_task(play: Play):
    tasks = play.submit(60)
    players = [play.player(resources={"cores": 16, "memory": "16 GiB"}) for _ in range(8)]
    taken: list[str] = []
    while len(taken) < len(tasks):
        items = at_once([partial(one.claim, 4, fits={"cores": 16}) for one in players])
        more = [item["_id"] for answer in items for item in answer]
        assert more, "tasks were left, and nobody got one"
        taken += more
    assert sorted(taken) == sorted(tasks)


def test_a_cancellation_beats_or_follows_a_claim(play: Play, player: Player):
    """The claim loses where the cancellation was first; else the claimed task is to stop."""
    for task in play.submit(ROUNDS):
        cancelled, claimed = at_once(
            [
                partial(play.server.provider.post, f"tasks/{task}/cancel"),
                partial(player.claim_one, task),
            ]
        )
        assert cancelled.status_code == 200
        if claimed.status_code == 200:
            assert play.task(task)["state"] == "pending_cancellation"
        else:
            assert lost(claimed, "cancelled")
            assert play.task(task)["state"] == "cancelled"
            assert play.attempts(task) == []


def test_a_cancellation_by_patch_may_lose_to_a_claim_and_says_what_won(play: Play, player: Player):
    for task in play.submit(ROUNDS):
        patch = partial(play.server.provider.patch, f"tasks/{task}", {"state": "cancelled"})
        cancelled, claimed = at_once([patch, partial(player.claim_one, task)])
        if claimed.status_code != 200:
            lost(claimed, "cancelled")
            expected = "cancelled"
        elif cancelled.status_code == 409:
            lost(cancelled, "running")
            expected = "running"
        else:
            expected = "pending_cancellation"
        assert play.task(task)["state"] == expected


# --- Ends -------------------------------------------------------------------------------


def test_a_cancellation_and_the_end_both_stand_and_the_child_hears_of_one(
    play: Play, player: Player
):
    """Whichever is first decides: what ends from pending_cancellation counts as cancelled."""
    for task in play.submit(ROUNDS):
        (child,) = play.submit(after=[task])
        claimed = player.claim_one(task).json()
        patch = partial(play.server.provider.patch, f"tasks/{task}", {"state": "cancelled"})
        cancelled, ended = at_once([patch, partial(player.end, claimed)])
        assert ended.status_code == 200
        assert play.task(task)["state"] == "terminated"
        if cancelled.status_code == 409:
            lost(cancelled, "terminated")
            assert play.task(child)["state"] == "available"
        else:
            assert play.task(child)["state"] in ("available", "cancelled")
            if cancelled.json()["state"] == "pending_cancellation":
                assert play.task(child)["state"] == "cancelled"


@pytest.mark.parametrize(("how", "expected"), [("success", "available"), ("oom", "cancelled")])
def test_a_new_child_and_its_parents_end_both_succeed(
    play: Play, player: Player, how: str, expected: str
):
    """The child is never left waiting for a parent that has ended."""
    for task in play.submit(ROUNDS):
        claimed = player.claim_one(task).json()
        child = {"command": "true", "queue": play.queue, "state": "available", "after": [task]}
        created, ended = at_once(
            [
                partial(play.server.provider.post, "tasks", child),
                partial(player.end, claimed, how),
            ]
        )
        assert statuses([created, ended]) == [201, 200], (created.text, ended.text)
        assert waits(play, created.json()["_id"])["state"] == expected
        assert play.task(task)["state"] == "terminated"


def test_parents_that_end_at_one_moment_release_their_child_once(play: Play, player: Player):
    for _ in range(5):
        parents = [player.claim_one(task).json() for task in play.submit(8)]
        (child,) = play.submit(after=[one["_id"] for one in parents])
        ends = at_once([partial(player.end, one) for one in parents])
        assert statuses(ends) == [200] * 8
        assert play.task(child)["pending_dependency_count"] == 0
        assert play.task(child)["state"] == "available"


def test_of_parents_that_succeed_and_fail_at_one_moment_the_failure_counts(
    play: Play, player: Player
):
    for _ in range(5):
        parents = [player.claim_one(task).json() for task in play.submit(6)]
        (child,) = play.submit(after=[one["_id"] for one in parents])
        hows = ["success"] * 5 + ["timeout"]
        at_once([partial(player.end, one, how) for one, how in zip(parents, hows, strict=True)])
        assert play.task(child)["state"] == "cancelled"
        assert all(play.task(one["_id"])["continuations"] == [] for one in parents)


def test_the_same_end_reported_many_times_at_once_is_one_end(play: Play, player: Player):
    for task in play.submit(5, max_attempt_count=9):
        claimed = player.claim_one(task).json()
        answers = at_once([partial(player.end, claimed, "failure (1)")] * 8)
        assert statuses(answers) == [200] * 8
        assert play.task(task)["state"] == "available"
        assert len(play.attempts(task)) == 1


# --- Edges ------------------------------------------------------------------------------


def test_edges_and_their_child_becoming_available_exclude_each_other(play: Play):
    """Nothing is available that waits for a parent."""
    api = play.server.provider
    for number, child in enumerate(play.submit(ROUNDS, state="inactive")):
        parents = [group(api) for _ in range(3)]
        activate = later(api, number % 5, partial(api.patch, f"tasks/{child}", AVAILABLE))
        link = "tasks/{}/add_continuations"
        links = [partial(api.post, link.format(parent), [child]) for parent in parents]
        *linked, first, second = at_once([*links, activate, activate])
        task = waits(play, child)
        won = [p for p, answer in zip(parents, linked, strict=True) if answer.status_code == 200]
        assert sorted(task["after"]) == sorted(won)
        if won:
            assert lost(first, "inactive")
            assert lost(second, "inactive")
            assert (task["state"], task["pending_dependency_count"]) == ("inactive", len(won))
        else:
            assert 200 in statuses([first, second])
            assert set(statuses(linked)) <= {409, 422}
            assert task["state"] == "available"
        assert stored_edges(play, parents) == len(won)


def test_an_edge_and_its_parent_becoming_available_come_one_after_the_other(play: Play):
    """The edge loses where the parent was first; else the parent goes with its new child."""
    api = play.server.provider
    for number, child in enumerate(play.submit(ROUNDS, state="inactive")):
        parent = group(api)
        linked, activated = at_once(
            [
                partial(api.post, f"tasks/{parent}/add_continuations", [child]),
                later(api, number % 5, partial(api.patch, f"tasks/{parent}", AVAILABLE)),
            ]
        )
        assert activated.status_code in (200, 409), activated.text
        if activated.status_code == 409:
            assert linked.status_code == 200
            assert lost(activated, "inactive")
            assert api.patch(f"tasks/{parent}", AVAILABLE).status_code == 200
        task = waits(play, child)
        if linked.status_code == 200:
            assert (task["state"], task["after"]) == ("available", [parent])
        else:
            assert linked.status_code in (409, 422), linked.text
            assert (task["state"], task["after"]) == ("inactive", [])
            assert play.task(parent)["continuations"] == []


def test_an_edge_and_the_cancellation_of_an_end_come_one_after_the_other(play: Play):
    api = play.server.provider
    for number, child in enumerate(play.submit(ROUNDS, state="inactive")):
        parent = group(api)
        victim = (parent, child)[number % 2]
        linked, cancelled = at_once(
            [
                partial(api.post, f"tasks/{parent}/add_continuations", [child]),
                later(api, number % 5, partial(api.post, f"tasks/{victim}/cancel")),
            ]
        )
        assert cancelled.status_code == 200
        assert play.task(victim)["state"] == "cancelled"
        assert play.task(parent)["continuations"] == []
        if linked.status_code == 200:
            assert play.task(child)["state"] == "cancelled"
        else:
            assert linked.status_code in (409, 422)
            assert play.task(child)["after"] == []


def stored_edges(play: Play, tasks: list[str]) -> int:
    return sum(len(play.task(one)["continuations"]) for one in tasks)


def test_of_two_requests_that_each_add_half_of_a_cycle_one_is_refused(play: Play):
    """The halves share no task, so that only their order keeps them apart."""
    api = play.server.provider
    for _ in range(2 * ROUNDS):
        one, two, three, four = ring = [group(api) for _ in range(4)]
        for parent, child in ((one, two), (three, four)):
            assert api.post(f"tasks/{parent}/add_continuations", [child]).status_code == 200
        answers = at_once(
            [
                partial(api.post, f"tasks/{two}/add_continuations", [three]),
                partial(api.post, f"tasks/{four}/add_continuations", [one]),
            ]
        )
        assert sorted(statuses(answers)) == [200, 422]
        assert stored_edges(play, ring) == 3


@pytest.mark.parametrize("length", [2, 3, 5])
def test_requests_that_each_add_a_part_of_a_cycle_never_store_it(play: Play, length: int):
    """All but one are stored; the last one meets the cycle."""
    api = play.server.provider
    for _ in range(ROUNDS):
        ring = [group(api) for _ in range(length)]
        answers = at_once(
            [
                partial(api.post, f"tasks/{one}/add_continuations", [ring[number - 1]])
                for number, one in enumerate(ring)
            ]
        )
        refused = [answer for answer in answers if answer.status_code != 200]
        assert refused, "a whole cycle was stored"
        assert {answer.status_code for answer in refused} <= {409, 422}
        assert stored_edges(play, ring) == length - len(refused)
        if not any(answer.status_code == 409 for answer in refused):
            assert len(refused) == 1
            assert "cycle" in refused[0].text


def test_a_new_task_and_an_edge_never_close_a_cycle_together(play: Play):
    """One adds one -> two, the other a new task between two and one."""
    api = play.server.provider
    for _ in range(ROUNDS):
        one, two, new = group(api), group(api), new_id()
        between = {"_id": new, "name": "g", "after": [two], "continuations": [one]}
        linked, created = at_once(
            [
                partial(api.post, f"tasks/{one}/add_continuations", [two]),
                partial(api.post, "tasks", between),
            ]
        )
        assert sorted([linked.status_code == 200, created.status_code == 201]) == [False, True]
        loser = created if linked.status_code == 200 else linked
        assert loser.status_code in (409, 422), loser.text
        assert play.task(one)["continuations"] == ([two] if loser is created else [])


def test_many_new_children_of_one_parent_all_count(play: Play, player: Player):
    (parent,) = play.submit()
    child = {"command": "true", "queue": play.queue, "state": "available", "after": [parent]}
    answers = at_once([partial(play.server.provider.post, "tasks", child)] * 12)
    assert statuses(answers) == [201] * 12
    children = {answer.json()["_id"] for answer in answers}
    assert set(play.task(parent)["continuations"]) == children
    player.end(player.claim_one(parent).json())
    assert {play.task(one)["state"] for one in children} == {"available"}


# --- Retries ----------------------------------------------------------------------------


def test_retries_at_one_moment_are_one_retry(play: Play, player: Player):
    for task in play.submit(5):
        (child,) = play.submit(after=[task])
        player.end(player.claim_one(task).json(), "failure (1)")
        again = partial(play.server.provider.post, f"tasks/{task}/retry", {"downstream": True})
        assert statuses(at_once([again] * 6)) == [200] * 6
        assert [play.task(one)["state"] for one in (task, child)] == ["available", "inactive"]
        assert play.task(task)["continuations"] == [child]
        player.end(player.claim_one(task).json(), "failure (1)")
        assert [play.task(one)["state"] for one in (task, child)] == ["terminated", "cancelled"]
