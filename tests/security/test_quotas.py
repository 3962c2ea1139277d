"""What one owner may have: nobody fills the database for everybody else, and nobody pays for it."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from bson import ObjectId

from banyan.config import knobs
from banyan.errors import EXIT_UNAVAILABLE, BanyanError
from banyan.server import auth, quotas
from banyan.server.calls import Context, Silent
from banyan.server.quotas import QUOTAS, Quotas
from banyan.server.store import holdings
from banyan.server.upkeep.duties import recount
from tests.contract.playing import RESOURCES, word
from tests.harness import Processes, Server, eventually
from tests.server.explained import Bench, stages

EXCEEDED = (403, "quota_exceeded")
OPEN = 5


def told(answer: Any) -> dict[str, Any]:
    """The numbers of a refusal."""
    assert word(answer) == EXCEEDED
    return {name: answer.json()[name] for name in ("limit", "value", "used", "asked")}


@pytest.fixture
def server(serve: Callable[..., Server]) -> Server:
    return serve(OWNER_OPEN_TASKS_MAX=OPEN, OWNER_TASKS_MAX=8, ACCOUNT_WORKERS_MAX=3)


def test_beyond_the_open_tasks_of_an_owner_nothing_is_stored(server: Server):
    alice = server.account("provider", name="alice")
    bob = server.account("provider", name="bob")
    assert alice.post("tasks", [{"name": "x"}] * 4).status_code == 201
    refused = alice.post("tasks", [{"name": "y"}] * 2)
    assert told(refused) == {"limit": "open_tasks", "value": OPEN, "used": 4, "asked": 2}
    assert "OWNER_OPEN_TASKS_MAX" in refused.json()["_error"]["message"]
    assert len(alice.get("tasks").json()["_items"]) == 4
    assert alice.post("tasks", {"name": "y"}).status_code == 201
    assert bob.post("tasks", [{"name": "x"}] * OPEN).status_code == 201


def test_the_command_line_says_that_it_may_work_later(server: Server, processes: Processes):
    environment = {"BANYAN_URL": server.url, "BANYAN_TOKEN": server.tokens["provider"]}
    arguments = ["submit", "--array", f"1-{OPEN + 1}", "--", "true"]
    submitted = processes.banyan(*arguments, environment=environment)
    assert submitted.wait(60) == EXIT_UNAVAILABLE
    assert "the limit of 5" in submitted.stderr


def test_what_has_ended_makes_room_for_more(server: Server):
    ids = [one["_id"] for one in server.provider.post("tasks", [{}] * OPEN).json()["_items"]]
    assert word(server.provider.post("tasks", {})) == EXCEEDED
    assert server.provider.post("tasks/cancel", {"targets": ids[:2]}).status_code == 200
    eventually(lambda: server.provider.post("tasks", {}).status_code == 201)


def test_what_is_retried_counts_anew(server: Server):
    ids = [one["_id"] for one in server.provider.post("tasks", [{}] * 3).json()["_items"]]
    assert server.provider.post("tasks/cancel", {"targets": ids}).status_code == 200
    eventually(lambda: server.provider.post("tasks", [{}] * 3).status_code == 201)
    refused = server.provider.post("tasks/retry", {"targets": ids})
    assert told(refused) == {"limit": "open_tasks", "value": OPEN, "used": 3, "asked": 3}
    assert server.provider.post("tasks/retry", {"targets": ids[:2]}).status_code == 200


def test_what_is_kept_for_ever_is_bounded_too(server: Server):
    """Ended tasks are not open, but stored."""
    kept = {"state": "available", "retain": "forever"}  # a group: it ends at once
    for _ in range(8):  # that one has ended may be counted a moment later
        eventually(lambda: server.provider.post("tasks", kept).status_code == 201)
    refused = server.provider.post("tasks", kept)
    assert told(refused) == {"limit": "tasks", "value": 8, "used": 8, "asked": 1}
    where = '{"state":"terminated"}'
    (one, *_) = server.provider.get("tasks", where=where).json()["_items"]
    assert server.provider.post(f"tasks/{one['_id']}/forget").status_code == 200
    eventually(lambda: server.provider.post("tasks", kept).status_code == 201)


def test_who_repeats_a_request_is_told_so_at_the_limit_too(server: Server):
    chosen = [{"_id": str(ObjectId())} for _ in range(OPEN - 1)]
    keyed = {"dedupe_key": "k"}
    assert server.provider.post("tasks", chosen).status_code == 201
    assert server.provider.post("tasks", keyed).status_code == 201
    assert word(server.provider.post("tasks", {})) == EXCEEDED
    assert word(server.provider.post("tasks", chosen)) == (409, "already_exists")
    assert server.provider.post("tasks", keyed).status_code == 200


def test_what_a_task_submits_is_its_owners(server: Server):
    task = {"command": "x", "state": "available"}
    server.provider.post("tasks", [task, *[{}] * (OPEN - 1)])
    worker = server.worker.post("workers", {"host": "h", "resources": RESOURCES}).json()["_id"]
    (item,) = server.worker.post("tasks/claim", {"worker": worker}).json()["_items"]
    own = type(server.provider)(server.url, item["token"])
    assert told(own.post("tasks", {}))["limit"] == "open_tasks"


def test_an_account_registers_so_many_workers_and_no_more(server: Server):
    body = {"host": "h", "resources": RESOURCES}
    for _ in range(3):
        registered = server.worker.post("workers", body)
        assert registered.status_code == 201
    assert told(server.worker.post("workers", body))["limit"] == "workers"
    other = server.account("worker", name="other")
    assert other.post("workers", body).status_code == 201
    assert server.worker.delete(f"workers/{registered.json()['_id']}").status_code == 204
    eventually(lambda: server.worker.post("workers", body).status_code == 201)


def test_no_limit_is_one_of_the_values(serve: Callable[..., Server]):
    server = serve(OWNER_OPEN_TASKS_MAX=0, OWNER_TASKS_MAX=1, ACCOUNT_WORKERS_MAX=0)
    assert server.provider.post("tasks", {}).status_code == 201
    assert told(server.provider.post("tasks", {}))["limit"] == "tasks"
    assert server.worker.post("workers", {"host": "h", "resources": RESOURCES}).status_code == 201


# --- Several server processes, each with what it has counted -----------------------------------


class Clock:
    """Stands still until it is told to go on."""

    def __init__(self) -> None:
        self.time = 1e6

    def monotonic(self) -> float:
        return self.time


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(quotas, "time", made)
    return made


@pytest.fixture
def five(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """At most five open tasks, in this process."""
    monkeypatch.setenv("BANYAN_OWNER_OPEN_TASKS_MAX", str(OPEN))
    knobs.cache_clear()
    QUOTAS.forget()
    yield
    monkeypatch.undo()
    knobs.cache_clear()
    QUOTAS.forget()


def counts(bench: Bench, work: Callable[[], Any]) -> int:
    """How often the database is asked for a count."""
    return sum("count" in one for one in bench.during(work))


def test_a_submission_asks_for_no_count(bench: Bench, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(auth, "CACHE_SECONDS", 1000)
    assert counts(bench, lambda: bench.submit(1)) == 0  # the first of this owner in this process
    sent = bench.during(lambda: bench.submit(1))
    assert [next(iter(one)) for one in sent] == ["insert"]
    assert counts(bench, lambda: recount(Context(bench.store, Silent()))) == 2


def test_who_submits_very_much_at_once_waits_for_a_count(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
):
    """Else each new process would let in as much again as anybody may have."""
    monkeypatch.setattr(quotas, "_SLACK", 100_000)  # parts of a million: ten
    assert counts(bench, lambda: bench.submit(10)) == 0
    assert counts(bench, lambda: bench.submit(1)) == 1


def test_who_submits_waits_for_no_count_while_upkeep_counts(bench: Bench, clock: Clock):
    bench.submit(1)
    for _ in range(5):
        clock.time += quotas.FRESH_SECONDS * 1.2
        assert counts(bench, lambda: bench.submit(1)) == 0
        assert counts(bench, lambda: recount(Context(bench.store, Silent()))) == 2
    clock.time += quotas.FRESH_SECONDS * 1.2
    recount(Context(bench.store, Silent()))
    assert counts(bench, lambda: recount(Context(bench.store, Silent()))) == 0  # nobody submits


def test_what_another_process_let_in_is_seen_soon(bench: Bench, clock: Clock, five: None):
    bench.submit(1)
    another = Quotas()
    another.admit(bench.store, "provider", OPEN - 1)
    for _ in range(OPEN - 1):
        bench.store["tasks"].insert_one({"owner": "provider", "state": "available"})
    with pytest.raises(BanyanError, match="would pass the limit of 5"):
        another.admit(bench.store, "provider", 1)
    bench.submit(1)  # this process has not counted since: a little more than the limit
    clock.time += quotas.FRESH_SECONDS * 3
    with pytest.raises(BanyanError) as caught:
        QUOTAS.admit(bench.store, "provider", 1)
    assert caught.value.extra["used"] == OPEN + 1


def test_whoever_is_refused_asks_for_few_counts(bench: Bench, clock: Clock, five: None):
    bench.submit(OPEN)

    def try_often() -> None:
        for _ in range(20):
            with pytest.raises(BanyanError):
                QUOTAS.admit(bench.store, "provider", 1)

    assert counts(bench, try_often) == 0
    clock.time += quotas.PAUSE_SECONDS * 1.1
    assert counts(bench, try_often) == 1


def test_a_count_that_takes_long_is_made_seldom(bench: Bench, clock: Clock, five: None):
    made: list[float] = []

    def slow(store: Any, owner: str, most: int) -> int:
        clock.time += 4
        made.append(clock.time)
        return OPEN

    limits = [quotas.TASKS[0]._replace(counted=slow)]
    while len(made) < 3:
        clock.time += 1
        with pytest.raises(BanyanError):
            QUOTAS.admit(bench.store, "provider", 1, limits)
    assert made[1] - made[0] > 20 * 4 <= made[2] - made[1]


def test_counts_look_at_no_document(bench: Bench):
    bench.submit(10)
    for count in (holdings.open_tasks, holdings.stored_tasks):
        (command,) = bench.during(lambda count=count: count(bench.store, "provider", 10_000))
        for plan in bench.plans(command):
            assert not stages(plan) & {"COLLSCAN", "FETCH"}, plan
        assert count(bench.store, "provider", 10_000) == 10
        assert count(bench.store, "provider", 4) == 4
