"""States over HTTP: who may move a task where, and what is answered to everything else."""

import itertools
from collections.abc import Callable
from typing import Any

import pytest

from banyan.domain.states import ENDED, Actor, State, may_move
from tests.contract.asking import refused
from tests.contract.playing import Item, Play, Player
from tests.harness import Server, eventually

STATES = [state.value for state in State]


@pytest.fixture
def play(server: Server) -> Play:
    return Play(server)


class Situation:
    """One task in a given state, and the worker that holds or held it."""

    def __init__(self, play: Play, state: str, **fields: Any) -> None:
        self.play = play
        self.provider = play.server.provider
        self.worker: Player = play.player()
        self.claimed: Item = {}
        start = state if state in ("inactive", "available") else "available"
        (self.id,) = play.submit(state=start, **fields)
        if state in ("running", "pending_cancellation", "terminated"):
            self.claimed = self.worker.claim_one(self.id).json()
        if state in ("cancelled", "pending_cancellation"):
            self.provider.post(f"tasks/{self.id}/cancel")
        if state == "terminated":
            self.worker.end(self.claimed)
        assert self.task["state"] == state

    @property
    def task(self) -> Item:
        return self.play.task(self.id)

    def patch(self, state: str) -> Any:
        return self.provider.patch(f"tasks/{self.id}", {"state": state})


def expected_of_provider(source: str, target: str) -> str | None:
    """The state after a provider's PATCH; None for a refusal."""
    if source == target:
        return source
    if target == "cancelled":
        return {"running": "pending_cancellation", "inactive": "cancelled",
                "available": "cancelled"}.get(source, source)  # fmt: skip
    if target == "pending_cancellation":
        return None
    return target if may_move(Actor.PROVIDER, State(source), State(target)) else None


@pytest.mark.parametrize(("source", "target"), list(itertools.product(STATES, STATES)))
def test_what_a_provider_asks_for(play: Play, source: str, target: str):
    situation = Situation(play, source)
    before = situation.task
    answer = situation.patch(target)
    expected = expected_of_provider(source, target)
    if expected is None:
        refused(answer, 422, "illegal_transition")
        assert answer.json()["state"] == source
    else:
        assert answer.status_code == 200, answer.text
        assert answer.json()["state"] == expected
    if expected in (None, source):
        assert situation.task["_etag"] == before["_etag"]
        assert situation.task["state"] == source
    else:
        assert situation.task["state"] == expected


@pytest.mark.parametrize("source", STATES)
def test_the_action_cancel_is_legal_in_every_state(play: Play, source: str):
    situation = Situation(play, source)
    before = situation.task
    answer = situation.provider.post(f"tasks/{situation.id}/cancel")
    assert answer.status_code == 200
    expected = expected_of_provider(source, "cancelled")
    assert answer.json()["state"] == situation.task["state"] == expected
    if expected == source:
        assert situation.task["_etag"] == before["_etag"]


@pytest.mark.parametrize("source", STATES)
def test_a_claim_takes_what_is_available_and_nothing_else(play: Play, source: str):
    situation = Situation(play, source)
    answer = situation.worker.claim_one(situation.id)
    if source == "available":
        assert (answer.status_code, answer.json()["state"]) == (200, "running")
        return
    if source == "running":
        refused(answer, 409, "conflict")
    else:
        refused(answer, 422, "illegal_transition")
    assert answer.json()["state"] == source
    assert situation.task["state"] == source


@pytest.mark.parametrize(
    ("source", "target"),
    list(itertools.product(["running", "pending_cancellation"], sorted({*STATES} - {"running"}))),
)
def test_what_the_worker_that_holds_it_reports(play: Play, source: str, target: str):
    situation = Situation(play, source)
    exit_status = "cancelled" if target == "cancelled" else "success"
    answer = situation.worker.end(situation.claimed, exit_status, state=target)
    if may_move(Actor.WORKER, State(source), State(target)):
        assert answer.status_code == 200
        assert situation.task["state"] == target
    else:
        refused(answer, 422)
        assert situation.task["state"] == source


@pytest.mark.parametrize("target", ["available", "inactive", "pending_cancellation"])
def test_a_report_about_an_ended_attempt_revives_nothing(play: Play, target: str):
    situation = Situation(play, "terminated")
    answer = situation.worker.end(situation.claimed, state=target)
    refused(answer, 422)
    assert situation.task["state"] == "terminated"


@pytest.mark.parametrize("exit_status", ["success", "failure (1)", "timeout", "oom", "cancelled"])
@pytest.mark.parametrize("target", ["terminated", "cancelled"])
def test_what_was_to_be_cancelled_never_runs_again_however_it_ended(
    play: Play, target: str, exit_status: str
):
    situation = Situation(play, "pending_cancellation", max_attempt_count=9)
    answer = situation.worker.end(situation.claimed, exit_status, state=target)
    assert answer.status_code == 200, answer.text
    by_itself = target == "terminated" and exit_status != "cancelled"
    assert situation.task["state"] == ("terminated" if by_itself else "cancelled")
    assert situation.worker.claim(9) == []


@pytest.mark.parametrize(
    ("exit_status", "outcome"),
    [("success", "success"), ("failure (2)", "failure"), ("timeout", "timeout"), ("oom", "oom")],
)
def test_the_outcome_of_the_last_attempt_is_the_tasks(play: Play, exit_status: str, outcome: str):
    situation = Situation(play, "running")
    assert situation.worker.end(situation.claimed, exit_status).status_code == 200
    assert (situation.task["state"], situation.task["outcome"]) == ("terminated", outcome)


def test_a_failure_with_attempts_left_makes_it_available_again(play: Play):
    situation = Situation(play, "running", max_attempt_count=3)
    claimed = situation.claimed
    for _ in range(2):
        answer = situation.worker.end(claimed, "failure (1)")
        assert answer.json()["state"] == situation.task["state"] == "available"
        claimed = situation.worker.claim_one(situation.id).json()
    assert claimed["attempt_count"] == 3
    situation.worker.end(claimed, "failure (1)")
    assert (situation.task["state"], situation.task["outcome"]) == ("terminated", "failure")


def test_a_lapsed_lease_gives_out_what_ran_and_ends_what_was_to_be_cancelled(
    serve: Callable[..., Server],
):
    play = Play(serve(LEASE_SECONDS=1, LEASE_MARGIN_SECONDS=0.5, UPKEEP_SECONDS=0.2))
    again = Situation(play, "running")
    for_good = Situation(play, "running", max_lost_count=0)
    cancelled = Situation(play, "pending_cancellation")
    ends = {again.id: "available", for_good.id: "terminated", cancelled.id: "cancelled"}
    eventually(lambda: {one: play.task(one)["state"] for one in ends} == ends)
    assert for_good.task["outcome"] == "lost"
    refused(again.worker.end(again.claimed), 409, "lease_lost")
    assert again.task["state"] == "available"


def orders(situation: Situation) -> list[Item]:
    """What the worker is told to end."""
    answer = situation.worker.beat()
    assert answer.status_code == 200, answer.text
    return [{"attempt": one["attempt"], "force": one["force"]} for one in answer.json()["cancel"]]


@pytest.mark.parametrize("source", ["running", "pending_cancellation"])
def test_a_forced_cancel_is_told_to_the_worker_also_after_another(play: Play, source: str):
    situation = Situation(play, source)
    attempt = situation.task["attempt_id"]
    assert orders(situation) == (
        [] if source == "running" else [{"attempt": attempt, "force": False}]
    )
    for _ in range(2):  # again, it changes nothing
        answer = situation.provider.post(f"tasks/{situation.id}/cancel", {"force": True})
        assert (answer.status_code, answer.json()["state"]) == (200, "pending_cancellation")
        assert orders(situation) == [{"attempt": attempt, "force": True}]
    refused(situation.provider.post(f"tasks/{situation.id}/cancel", {"force": 1}), 422)


def test_what_is_retried_after_a_forced_cancel_has_its_grace_again(play: Play):
    situation = Situation(play, "running")
    situation.provider.post("tasks/cancel", {"targets": [situation.id], "force": True})
    situation.worker.end(situation.claimed, "cancelled", state="cancelled")
    situation.provider.post(f"tasks/{situation.id}/retry")
    claimed = situation.worker.claim_one(situation.id).json()
    situation.provider.post(f"tasks/{situation.id}/cancel")
    assert orders(situation) == [{"attempt": claimed["attempt_id"], "force": False}]


def test_cancelling_many_is_cancelling_each(play: Play):
    situations = [Situation(play, state) for state in STATES]
    ids = [situation.id for situation in situations]
    assert play.server.provider.post("tasks/cancel", {"targets": ids}).status_code == 200
    expected = [expected_of_provider(state, "cancelled") for state in STATES]
    assert [situation.task["state"] for situation in situations] == expected


# --- Groups -----------------------------------------------------------------------------


@pytest.mark.parametrize("created", ["available", "inactive"])
def test_a_group_that_becomes_available_is_at_once_terminated(play: Play, created: str):
    (group,) = play.submit(command=None, state=created)
    if created == "inactive":
        answer = play.server.provider.patch(f"tasks/{group}", {"state": "available"})
        assert (answer.status_code, answer.json()["state"]) == (200, "terminated")
    assert (play.task(group)["state"], play.task(group)["outcome"]) == ("terminated", "success")


def test_the_answer_to_the_creation_of_an_available_group_says_that_it_ended(play: Play):
    answer = play.server.provider.post("tasks", {"name": "group", "state": "available"})
    assert (answer.status_code, answer.json()["state"]) == (201, "terminated")


# --- Available with open parents --------------------------------------------------------


@pytest.mark.parametrize("kind", ["after", "after_failure", "after_any"])
@pytest.mark.parametrize("parent_state", ["inactive", "available", "running"])
def test_available_with_parents_still_open_is_refused(play: Play, parent_state: str, kind: str):
    parent = Situation(play, parent_state)
    (child,) = play.submit(state="inactive", **{kind: [parent.id]})
    answer = play.server.provider.patch(f"tasks/{child}", {"state": "available"})
    refused(answer, 422, "illegal_transition")
    assert answer.json()["state"] == play.task(child)["state"] == "inactive"


# --- Retry ------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["one", "many"])
def test_a_retry_may_ask_for_other_resources_and_is_claimed_by_them(play: Play, form: str):
    asked = {"cores": 2, "memory": "1 GiB"}
    situation = Situation(play, "terminated", requested_resources=asked)
    more = {"requested_resources": {"memory": "3 GiB"}, "timeout_milliseconds": "1 h"}
    path, body = (
        (f"tasks/{situation.id}/retry", more)
        if form == "one"
        else ("tasks/retry", {"targets": [situation.id], **more})
    )
    answer = situation.provider.post(path, body)
    assert answer.status_code == 200, answer.text
    task = situation.task
    assert task["requested_resources"]["cpu_memory_bytes"] == 3 * 2**30
    assert task["requested_resources"]["cpu_cores"]["count"] == 2
    assert task["timeout_milliseconds"] == 3_600_000
    assert situation.worker.claim(fits={"cores": 4, "memory": "2 GiB"}) == []
    (claimed,) = situation.worker.claim(fits={"cores": 4, "memory": "3 GiB"})
    assert claimed["granted_resources"]["memory_bytes"] == 3 * 2**30


@pytest.mark.parametrize(
    "changed", [{"requested_resources": {"memory": "much"}}, {"timeout_milliseconds": 0}, {"x": 1}]
)
def test_a_retry_with_wrong_changes_is_refused_and_changes_nothing(play: Play, changed: Item):
    situation = Situation(play, "terminated")
    refused(situation.provider.post(f"tasks/{situation.id}/retry", changed), 422, "invalid")
    assert situation.task["state"] == "terminated"


@pytest.mark.parametrize("source", STATES)
def test_only_what_has_ended_is_retried(play: Play, source: str):
    situation = Situation(play, source)
    before = situation.task
    answer = situation.provider.post(f"tasks/{situation.id}/retry")
    if source in ENDED:
        assert (answer.status_code, answer.json()["state"]) == (200, "available")
        assert (situation.task["outcome"], situation.task["reason"]) == (None, None)
    elif source == "available":
        assert answer.status_code == 200
        assert situation.task["_etag"] == before["_etag"]
        changed = {"requested_resources": {"memory": "1 GiB"}}
        answer = situation.provider.post(f"tasks/{situation.id}/retry", changed)
        refused(answer, 422, "illegal_transition")
    else:
        refused(answer, 422, "illegal_transition")
        assert situation.task["state"] == source


def test_a_retry_is_one_more_attempt_and_the_earlier_ones_are_kept(play: Play):
    situation = Situation(play, "running", max_attempt_count=2)
    claimed = situation.claimed
    for _ in range(2):
        situation.worker.end(claimed, "failure (1)")
        if situation.task["state"] == "available":
            claimed = situation.worker.claim_one(situation.id).json()
    situation.provider.post(f"tasks/{situation.id}/retry")
    claimed = situation.worker.claim_one(situation.id).json()
    assert claimed["attempt_count"] == 3
    situation.worker.end(claimed, "failure (1)")
    assert situation.task["state"] == "terminated"
    assert len(play.attempts(situation.id)) == 3


def test_the_worker_of_an_earlier_attempt_can_say_nothing_after_a_retry(play: Play):
    situation = Situation(play, "terminated")
    situation.provider.post(f"tasks/{situation.id}/retry")
    refused(situation.worker.end(situation.claimed, "failure (1)"), 409, "lease_lost")
    assert situation.task["state"] == "available"


def test_a_retried_task_waits_for_the_parents_that_are_open(play: Play):
    parent = Situation(play, "running")
    (child,) = play.submit(after=[parent.id])
    play.server.provider.post(f"tasks/{child}/cancel")
    assert play.task(parent.id)["continuations"] == []
    answer = play.server.provider.post(f"tasks/{child}/retry")
    assert (answer.status_code, answer.json()["state"]) == (200, "inactive")
    assert play.task(child)["pending_dependency_count"] == 1
    assert play.task(parent.id)["continuations"] == [child]
    parent.worker.end(parent.claimed)
    assert play.task(child)["state"] == "available"
