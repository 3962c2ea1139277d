"""What is decided about one task: only legal moves, cancelled for good, the end but once."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from banyan.domain import lifecycle
from banyan.domain.continuations import CHILD_LISTS
from banyan.domain.lifecycle import Change, Decision, Refusal, Same
from banyan.domain.states import ENDED, HELD, Actor, Ending, Outcome, State, may_move

NOW = datetime(2026, 11, 22, 6, 51, 14, tzinfo=UTC)
HOLDER = {"attempt": "a1", "worker": "w1", "account": "acc", "granted": {}, "claimed": NOW}
EXIT_STATUSES = [
    "success", "failure (1)", "failure (255)", "failure (SIGKILL)", "timeout", "oom", "cancelled",
    "lost",
]  # fmt: skip
Task = Mapping[str, Any]


def a_task(state: str = "inactive", **fields: Any) -> dict[str, Any]:
    task = {
        "_id": "t",
        "owner": "acc",
        "state": state,
        "command": "true",
        "max_attempt_count": 1,
        "max_lost_count": 3,
        "retry_delay_milliseconds": 0,
        "retry_backoff": 1.0,
        "attempt_count": 1,
        "open_parents": [],
        **{name: [] for name in CHILD_LISTS},
        **fields,
    }
    if state in HELD:
        task = {"holder": HOLDER, **task, "attempt_id": "a1"}
    return task


tasks = st.builds(
    a_task,
    st.sampled_from([state.value for state in State]),
    command=st.sampled_from(["true", ["sleep", "1"], None]),
    max_attempt_count=st.integers(1, 3),
    failure_count=st.integers(0, 3),
    max_lost_count=st.integers(0, 2),
    lost_count=st.integers(0, 3),
    retry_delay_milliseconds=st.sampled_from([0, 1000]),
    retry_backoff=st.sampled_from([1.0, 2.0]),
    open_parents=st.lists(st.sampled_from("pqr"), unique=True),
    continuations=st.lists(st.sampled_from("xyz"), unique=True),
    not_before=st.sampled_from([None, NOW - timedelta(hours=1), NOW + timedelta(hours=1)]),
)


def the_end(exit_status: str, **more: Any) -> dict[str, Any]:
    return {"exit_status": exit_status, "time_terminated": NOW, **more}


# Every event that a task can meet: who may move it by that event, and the decision.
EVENTS: dict[str, tuple[set[Actor], Any]] = {
    **{
        f"move to {target}": (
            {Actor.PROVIDER},
            lambda task, target=target: lifecycle.move(task, target, NOW),
        )
        for target in State
    },
    "cancel": ({Actor.PROVIDER}, lifecycle.cancel),
    "cancelled by its provider": (
        {Actor.PROVIDER},
        lambda task: lifecycle.cancelled(task, Actor.PROVIDER, "why"),
    ),
    "cancelled by the server": (
        {Actor.SERVER},
        lambda task: lifecycle.cancelled(task, Actor.SERVER, "why", "p"),
    ),
    "claim": (
        {Actor.WORKER},
        lambda task: lifecycle.claim(task, {**HOLDER, "attempt": "a2"}, {"worker": "w1"}),
    ),
    **{
        f"{target} with {exit_status}": (
            {Actor.WORKER, Actor.SERVER},  # an attempt that failed gives the task to the server
            lambda task, target=target, exit_status=exit_status: lifecycle.finish(
                task, target, the_end(exit_status), NOW
            ),
        )
        for target in State
        for exit_status in EXIT_STATUSES
    },
    "lost": ({Actor.SERVER}, lambda task: lifecycle.lost(task, "lapsed", NOW)),
    "given back": ({Actor.SERVER}, lambda task: lifecycle.given_back(task, "removed", NOW)),
}
RETRIES: dict[str, tuple[set[Actor], Any]] = {
    "retry": ({Actor.RETRY}, lambda task: lifecycle.retry(task, [], NOW)),
    "retry below open parents": ({Actor.RETRY}, lambda task: lifecycle.retry(task, ["p"], NOW)),
}


@settings(max_examples=300)
@given(tasks, st.sampled_from(list(State)), st.sampled_from(EXIT_STATUSES))
def test_an_end_is_decided_from_what_is_read_for_it(
    task: Task, target: State, exit_status: str
) -> None:
    task = {**task, "reason": "why", "queue": "q", "available_since": NOW}
    read = {name: task[name] for name in lifecycle.READ_AT_END if name in task}
    for decide in (
        lambda one: lifecycle.finish(one, target, the_end(exit_status), NOW),
        lambda one: lifecycle.lost(one, "lapsed", NOW),
        lambda one: lifecycle.given_back(one, "removed", NOW),
    ):
        assert decide(read) == decide(task)


def after(task: Task, decision: Decision) -> dict[str, Any]:
    """The task as the store would leave it."""
    if not isinstance(decision, Change):
        return dict(task)
    for name, value in decision.expected.items():
        found: Any = task
        for part in name.split("."):
            found = found.get(part) if isinstance(found, Mapping) else None
        assert found == value, f"the guard on {name} does not hold for the task that was decided on"
    written = {**task, **decision.set}
    for name in decision.unset:
        written.pop(name, None)
    return written


def legal(actors: set[Actor], task: Task, target: State) -> bool:
    """In the table for one of them; a group that becomes available is at once terminated."""
    source = State(task["state"])
    if any(may_move(actor, source, target) for actor in actors):
        return True
    passed_on = target == State.TERMINATED and lifecycle.is_group(task)
    return passed_on and any(may_move(actor, source, State.AVAILABLE) for actor in actors)


@pytest.mark.parametrize("event", sorted({**EVENTS, **RETRIES}))
@settings(max_examples=30)
@given(task=tasks)
def test_every_move_that_is_decided_is_in_the_table(task: Task, event: str) -> None:
    actors, decide = {**EVENTS, **RETRIES}[event]
    decision = decide(task)
    if isinstance(decision, Change) and "state" in decision.set:
        assert decision.expected["state"] == task["state"]
        assert legal(actors, task, State(decision.set["state"]))


@given(tasks, st.lists(st.sampled_from(sorted(EVENTS)), max_size=12))
def test_whatever_happens_after_a_cancellation_the_task_never_runs_again(
    task: Task, events: list[str]
) -> None:
    cancelled = after(task, lifecycle.cancel(task))
    assert cancelled["state"] in {*ENDED, State.PENDING_CANCELLATION}
    for event in events:
        cancelled = after(cancelled, EVENTS[event][1](cancelled))
        assert cancelled["state"] in {*ENDED, State.PENDING_CANCELLATION}
    if cancelled["state"] in ENDED and task["state"] not in ENDED:
        assert cancelled["ended_as"] == Ending.CANCELLED


@given(
    tasks.filter(lambda task: task["state"] in HELD),
    st.sampled_from([State.TERMINATED, State.CANCELLED]),
    st.sampled_from(EXIT_STATUSES),
)
def test_the_end_of_an_attempt_may_be_reported_again(
    task: Task, target: State, exit_status: str
) -> None:
    first = lifecycle.finish(task, target, the_end(exit_status), NOW)
    assume(isinstance(first, Change))
    ended = after(task, first)
    assert ended["state"] not in HELD
    assert lifecycle.finish(ended, target, the_end(exit_status), NOW) == Same()


@given(tasks)
def test_cancelling_twice_is_cancelling_once(task: Task) -> None:
    once = after(task, lifecycle.cancel(task))
    assert lifecycle.cancel(once) == Same()


@given(tasks, st.sampled_from(State))
def test_a_task_that_is_there_already_is_left_alone(task: Task, target: State) -> None:
    reached = {**task, "state": target}
    assert lifecycle.move(reached, target, NOW) == Same()


@pytest.mark.parametrize("event", sorted({**EVENTS, **RETRIES}))
@settings(max_examples=30)
@given(task=tasks)
def test_what_ends_is_marked_until_its_children_are_settled(task: Task, event: str) -> None:
    decision = {**EVENTS, **RETRIES}[event][1](task)
    if not isinstance(decision, Change) or decision.set.get("state") not in ENDED:
        return
    assert decision.ends
    assert (decision.set["outcome"] is None) == (decision.set["state"] == State.CANCELLED)
    if not decision.set["unsettled"]:
        assert decision.set["state"] == State.TERMINATED
        assert all(decision.expected[name] == [] for name in CHILD_LISTS)


# --- One decision at a time -------------------------------------------------------------


def test_available_waits_for_open_parents() -> None:
    refusal = lifecycle.move(a_task(open_parents=["p"]), State.AVAILABLE, NOW)
    assert isinstance(refusal, Refusal)
    assert refusal.word == "illegal_transition"
    assert "1 task that has not ended" in refusal.message


def test_the_guard_of_an_activation_counts_the_parents_again() -> None:
    change = lifecycle.move(a_task(), State.AVAILABLE, NOW)
    assert isinstance(change, Change)
    assert change.expected == {"state": "inactive", "open_parents": []}


def test_a_group_is_done_as_soon_as_it_is_available() -> None:
    change = lifecycle.move(a_task(command=None), State.AVAILABLE, NOW)
    assert isinstance(change, Change)
    assert change.set["state"] == State.TERMINATED
    assert change.set["outcome"] == Outcome.SUCCESS


def test_nobody_moves_a_task_to_pending_cancellation_by_that_name() -> None:
    decision = lifecycle.move(a_task("running"), State.PENDING_CANCELLATION, NOW)
    assert isinstance(decision, Refusal)


def test_a_running_task_is_asked_to_stop() -> None:
    change = lifecycle.move(a_task("running"), State.CANCELLED, NOW)
    assert isinstance(change, Change)
    assert change.set["state"] == State.PENDING_CANCELLATION
    assert not change.ends


@pytest.mark.parametrize(
    ("state", "word"),
    [
        ("running", "conflict"),
        ("inactive", "illegal_transition"),
        ("pending_cancellation", "illegal_transition"),
        ("cancelled", "illegal_transition"),
        ("terminated", "illegal_transition"),
    ],
)
def test_only_what_is_available_is_claimed(state: str, word: str) -> None:
    refusal = lifecycle.claim(a_task(state), HOLDER, {})
    assert isinstance(refusal, Refusal)
    assert refusal.word == word


@pytest.mark.parametrize(
    ("exit_status", "outcome", "ending"),
    [
        ("success", Outcome.SUCCESS, Ending.SUCCESS),
        ("failure (3)", Outcome.FAILURE, Ending.FAILURE),
        ("failure (SIGSEGV)", Outcome.FAILURE, Ending.FAILURE),
        ("timeout", Outcome.TIMEOUT, Ending.FAILURE),
        ("oom", Outcome.OOM, Ending.FAILURE),
    ],
)
def test_the_last_attempt_ends_the_task(exit_status: str, outcome: Outcome, ending: Ending) -> None:
    change = lifecycle.finish(a_task("running"), State.TERMINATED, the_end(exit_status), NOW)
    assert isinstance(change, Change)
    assert (change.set["state"], change.set["outcome"]) == (State.TERMINATED, outcome)
    assert change.set["ended_as"] == ending


@pytest.mark.parametrize("exit_status", ["failure (1)", "timeout", "oom"])
def test_a_failure_with_attempts_left_makes_it_available_again(exit_status: str) -> None:
    task = a_task(
        "running", max_attempt_count=3, retry_delay_milliseconds=1000, retry_backoff=2.0,
        failure_count=1,
    )  # fmt: skip
    change = lifecycle.finish(task, State.TERMINATED, the_end(exit_status), NOW)
    assert isinstance(change, Change)
    assert not change.ends
    assert change.set["state"] == State.AVAILABLE
    assert change.set["wake_at"] == NOW + timedelta(seconds=2)


def test_losses_are_counted_apart_from_failures() -> None:
    task = a_task("running", max_attempt_count=1, max_lost_count=1, lost_count=0)
    once = lifecycle.lost(task, "lapsed", NOW)
    assert isinstance(once, Change)
    assert (once.set["state"], once.set["lost_count"]) == (State.AVAILABLE, 1)
    assert "failure_count" not in once.set
    twice = lifecycle.lost({**task, "lost_count": 1}, "lapsed", NOW)
    assert isinstance(twice, Change)
    assert (twice.set["state"], twice.set["outcome"]) == (State.TERMINATED, Outcome.LOST)
    assert twice.set["ended_as"] == Ending.FAILURE


def test_what_is_given_back_is_nobodys_fault() -> None:
    change = lifecycle.given_back(a_task("running", max_lost_count=0), "removed", NOW)
    assert isinstance(change, Change)
    assert change.set["state"] == State.AVAILABLE
    assert not {"lost_count", "failure_count"} & change.set.keys()
    assert change.unset == ("holder",)


@pytest.mark.parametrize("exit_status", EXIT_STATUSES)
@pytest.mark.parametrize("target", [State.TERMINATED, State.CANCELLED])
def test_from_pending_cancellation_every_end_counts_as_cancelled(
    exit_status: str, target: State
) -> None:
    task = a_task("pending_cancellation", max_attempt_count=5, max_lost_count=5)
    change = lifecycle.finish(task, target, the_end(exit_status), NOW)
    assert isinstance(change, Change)
    assert change.set["state"] in ENDED
    assert change.set["ended_as"] == Ending.CANCELLED


@pytest.mark.parametrize("decide", [lifecycle.lost, lifecycle.given_back])
def test_a_lapsed_lease_ends_what_was_to_be_cancelled(decide: Any) -> None:
    change = decide(a_task("pending_cancellation"), "lapsed", NOW)
    assert (change.set["state"], change.set["outcome"]) == (State.CANCELLED, None)


def test_a_running_task_that_nobody_cancelled_does_not_end_as_cancelled() -> None:
    for target, exit_status in [(State.CANCELLED, "success"), (State.TERMINATED, "cancelled")]:
        refusal = lifecycle.finish(a_task("running"), target, the_end(exit_status), NOW)
        assert isinstance(refusal, Refusal)


@given(tasks, st.sampled_from(sorted({*State} - ENDED)), st.sampled_from(EXIT_STATUSES))
def test_an_attempt_ends_a_task_or_nothing(task: Task, target: State, exit_status: str) -> None:
    assert isinstance(lifecycle.finish(task, target, the_end(exit_status), NOW), Refusal)


def test_a_claim_that_has_read_a_task_before_it_was_changed_loses() -> None:
    """It would grant what was asked for then."""
    read = a_task("available")
    change = lifecycle.edit_where_it_waits(read, {"timeout_milliseconds": 5}, NOW)
    change = lifecycle.as_edit(read, change)
    claim = lifecycle.claim(read, HOLDER, {})
    assert isinstance(claim, Change)
    changed = {**read, **change.set}
    assert any(changed.get(name) != value for name, value in claim.expected.items())
    assert change.set.keys() & {"wake_at", "available_since"} == set()  # nor is a delay cut short


@pytest.mark.parametrize("state", ["cancelled", "terminated"])
def test_retry_is_one_more_attempt(state: str) -> None:
    ended = a_task(state, max_attempt_count=3, failure_count=3, lost_count=9, ended_as="failure")
    change = lifecycle.retry(ended, [], NOW)
    assert isinstance(change, Change)
    assert change.set["state"] == State.AVAILABLE
    assert (change.set["outcome"], change.set["ended_as"]) == (None, None)
    running = a_task(max_attempt_count=3) | {**change.set, "state": "running", "holder": HOLDER}
    again = lifecycle.finish(running, State.TERMINATED, the_end("failure (1)"), NOW)
    assert isinstance(again, Change)
    assert again.set["state"] == State.TERMINATED


def test_a_retried_task_waits_for_the_parents_that_are_open() -> None:
    change = lifecycle.retry(a_task("terminated"), ["p", "q"], NOW)
    assert isinstance(change, Change)
    assert (change.set["state"], change.set["pending_dependency_count"]) == (State.INACTIVE, 2)
    assert change.set["open_parents"] == ["p", "q"]


@pytest.mark.parametrize("state", ["inactive", "running", "pending_cancellation"])
def test_only_what_has_ended_is_retried(state: str) -> None:
    assert isinstance(lifecycle.retry(a_task(state), [], NOW), Refusal)
