"""However much upkeep has to do for one account, others wait for a piece of it and not for all."""

import threading
from collections.abc import Collection, Sequence
from datetime import timedelta
from typing import Any

import pytest
from bson import ObjectId

from banyan.server import settle
from banyan.server.alarm import Alarm
from banyan.server.app import Silent
from banyan.server.calls import Context
from banyan.server.rota import Rota
from banyan.server.store import settlements, tasks
from banyan.server.store.edges import GraphChangedError
from banyan.server.store.mongo import Document, Store, now
from banyan.server.upkeep import duties
from banyan.server.upkeep.loop import Upkeep
from tests.contract.asking import new_id
from tests.harness import eventually
from tests.security.watched import WATCH, send, submit
from tests.server.worlds import Item, World

MANY = 12
AT_ONCE = 2
LONG_AGO = {"$set": {"lease_until": now() - timedelta(days=1)}}

pytestmark = pytest.mark.usefixtures("nothing_remembered")


# --- The turns ---------------------------------------------------------------------------------


def test_each_has_a_piece_before_anybody_has_two():
    works = {"a": iter([1, 2, 3, 4]), "b": iter([10]), "c": iter([20, 21])}
    assert list(Rota[str]().pieces(works)) == [1, 10, 20, 2, 21, 3, 4]


def test_who_was_not_served_before_a_round_was_cut_off_comes_first_in_the_next():
    rota = Rota[str]()
    for served in ("a", "b", "c", "a"):
        assert next(rota.turn(["a", "b", "c"])) == served
    assert next(rota.turn(["a", "bb", "c"])) == "bb"
    assert list(rota.turn(["a", "b"])) == ["a", "b"]
    assert list(rota.turn([])) == []


# --- Lapsed leases -----------------------------------------------------------------------------


def worker_of(world: World, account: str) -> str:
    if account not in world.tokens:
        world.tokens[account] = world._token(account, "worker")
    body = {"host": "h", "resources": {"cores": 1000, "memory": "1 TiB"}}
    made = send(world, account, "POST", "/workers", body)
    assert made.status_code == 201, made.text
    return str(made.json["_id"])


def hold(world: World, worker: str, account: str, owner: str, count: int) -> None:
    """Let this worker hold new tasks of this owner."""
    queue = new_id()
    task = {"command": "x", "state": "available", "queue": queue, "max_lost_count": 9}
    submit(world, owner, [task] * count)
    world.store["workers"].update_one({"_id": ObjectId(worker)}, {"$set": {"queues": [queue]}})
    body = {"worker": worker, "max": count, "queues": [queue]}
    answer = send(world, account, "POST", "/tasks/claim", body)
    assert len(answer.json["_items"]) == count, answer.text


class Given:
    """What is given back, piece by piece: (owner, account of the worker, how many)."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.pieces: list[tuple[str, str, int]] = []
        self.reasons: list[str] = []
        give_back = duties.give_back

        def noted(context: Context, held: Sequence[Document], reason: str, **more: Any) -> int:
            ((owner, account),) = {(one["owner"], one["holder"]["account"]) for one in held}
            self.pieces.append((owner, account, len(held)))
            self.reasons.append(reason)
            return give_back(context, held, reason, **more)

        monkeypatch.setattr(duties, "give_back", noted)


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> Given:
    monkeypatch.setattr(tasks, "HELD_AT_ONCE", AT_ONCE)
    monkeypatch.setattr(duties, "_LAPSED", Rota())
    return Given(monkeypatch)


def running(world: World) -> int:
    return world.store["tasks"].count_documents({"state": "running"})


def test_the_lost_tasks_of_one_owner_wait_for_a_piece_of_anothers(world: World, given: Given):
    worker = worker_of(world, "mallory")
    hold(world, worker, "mallory", "alice", MANY)
    hold(world, worker, "mallory", "bob", 1)
    world.store["workers"].update_many({}, LONG_AGO)
    duties.leases(world.context)
    assert ("bob", "mallory", 1) in given.pieces[:2]
    assert len(given.pieces) == MANY // AT_ONCE + 1
    assert running(world) == 0


def test_those_of_an_honest_worker_wait_for_a_piece_of_a_rogue_ones(world: World, given: Given):
    """It has claimed very many tasks of the same owner, by many workers, and lets them lapse."""
    for _ in range(4):
        hold(world, worker_of(world, "mallory"), "mallory", "alice", MANY // 4)
    hold(world, worker_of(world, "worker"), "worker", "alice", 1)
    world.store["workers"].update_many({}, LONG_AGO)
    duties.leases(world.context)
    assert ("alice", "worker", 1) in given.pieces[:2]
    assert len(given.pieces) == MANY // AT_ONCE + 1
    assert running(world) == 0


def test_a_round_ends_in_time_and_the_next_one_goes_on_with_the_others(
    world: World, given: Given, monkeypatch: pytest.MonkeyPatch
):
    """Who is lost while it goes on is found by the next round, and has its turn there."""
    monkeypatch.setattr(duties, "LEASES_SECONDS", 0)
    hold(world, worker_of(world, "mallory"), "mallory", "alice", MANY)
    world.store["workers"].update_many({}, LONG_AGO)
    duties.leases(world.context)
    hold(world, worker_of(world, "worker"), "worker", "bob", 1)
    world.store["workers"].update_many({}, LONG_AGO)
    for _ in range(3):
        duties.leases(world.context)
    assert given.pieces == [
        ("alice", "mallory", AT_ONCE),
        ("bob", "worker", 1),
        ("alice", "mallory", AT_ONCE),
        ("alice", "mallory", AT_ONCE),
    ]


def test_who_was_removed_and_who_was_lost_are_told_apart(world: World, given: Given):
    removed, lost = worker_of(world, "mallory"), worker_of(world, "mallory")
    for worker in (removed, lost):
        hold(world, worker, "mallory", "alice", 1)
    world.store["workers"].delete_one({"_id": ObjectId(removed)})
    world.store["workers"].update_many({}, LONG_AGO)
    duties.leases(world.context)
    assert sorted(given.reasons) == ["its worker was removed", "lost with its worker"]
    counts = [one.get("lost_count", 0) for one in world.store["tasks"].find()]
    assert sorted(counts) == [0, 1]


def test_whose_tasks_are_lost_is_known_without_a_look_at_them(world: World):
    worker = worker_of(world, "mallory")
    hold(world, worker, "mallory", "alice", MANY)
    hold(world, worker, "mallory", "bob", MANY)
    assert tasks.owners_held_by(world.store, [ObjectId(worker)]) == {"alice", "bob"}
    found = {"state": "running", "holder.worker": {"$in": [ObjectId(worker)]}}
    documents, keys = examined(world, "owner", found)
    assert documents == 0
    assert keys <= 3  # one seek for each, and one for the end


def examined(world: World, field: str, query: Item) -> tuple[int, int]:
    """How many documents and entries of indexes a `distinct` of the tasks looks at."""
    asked = {"distinct": "tasks", "key": field, "query": query}
    told = world.store.database.command("explain", asked, verbosity="executionStats")
    stats = told["executionStats"]
    return stats["totalDocsExamined"], stats["totalKeysExamined"]


# --- Delays ------------------------------------------------------------------------------------


def delay(world: World, owner: str, count: int, days: int) -> list[ObjectId]:
    """Tasks of this owner whose time came so many days ago; below 0: it is still to come."""
    far = {"command": "x", "state": "available", "not_before": "2099-01-01T00:00:00Z"}
    ids = [ObjectId(new_id()) for _ in range(count)]
    submit(world, owner, [{**far, "_id": str(one)} for one in ids])
    moment = {"$set": {"wake_at": now() - timedelta(days=days)}}
    world.store["tasks"].update_many({"_id": {"$in": ids}}, moment)
    return ids


def awake(world: World, ids: Collection[ObjectId]) -> int:
    return world.store["tasks"].count_documents({"_id": {"$in": list(ids)}, "wake_at": None})


@pytest.fixture
def ring(monkeypatch: pytest.MonkeyPatch) -> Alarm:
    own = Alarm()
    monkeypatch.setattr(duties, "ALARM", own)
    monkeypatch.setattr(duties, "WOKEN_MAX", 4)
    monkeypatch.setattr(duties, "_DUE", Rota())
    return own


def test_a_delayed_task_waits_for_a_share_of_anothers(world: World, ring: Alarm):
    many, one = delay(world, "alice", MANY, 2), delay(world, "bob", 1, 1)
    duties.delays(world.context)
    assert (awake(world, many), awake(world, one)) == (2, 1)
    assert ring.wait(1), "there are more"
    for count in (6, 10, 12):
        duties.delays(world.context)
        assert awake(world, many) == count
    duties.delays(world.context)
    ring.wait(0.01)
    assert not ring.wait(0.01)


def test_of_more_owners_than_are_woken_at_once_each_has_its_turn(world: World, ring: Alarm):
    names = [f"owner-{number}" for number in range(6)]
    for name in names:
        world.tokens[name] = world._token(name)
        delay(world, name, 3, 1)
    for _ in range(2):
        assert not ring.wait(0.01)
        duties.delays(world.context)
        assert ring.wait(1), "there are more"
    woken = world.store["tasks"].distinct("owner", {"wake_at": None})
    assert sorted(woken) == names


def test_who_has_something_due_is_known_without_a_look_at_it(world: World):
    delay(world, "alice", MANY, 1)
    delay(world, "bob", MANY, -1)
    assert tasks.owners_due(world.store) == ["alice"]
    documents, keys = examined(world, "owner", tasks._due())
    assert documents == 0
    assert keys < MANY


# --- Settling ----------------------------------------------------------------------------------


def ended_parents(world: World, owner: str, count: int) -> list[str]:
    """Parents that ended, each with a child that has not heard of it; the ids of the children."""
    above, below = ([new_id() for _ in range(count)] for _ in range(2))
    submit(world, owner, [{"_id": one, "command": "x"} for one in above])
    child = {"command": "x", "state": "available"}
    kin = [{**child, "_id": one, "after": [top]} for one, top in zip(below, above, strict=True)]
    submit(world, owner, kin)
    end = {"state": "terminated", "outcome": "success", "ended_as": "success", "unsettled": True}
    ids = [ObjectId(one) for one in above]
    world.store["tasks"].update_many({"_id": {"$in": ids}}, {"$set": end})
    return below


class Heard(Silent):
    """The children of which it was said that they may be claimed, in order."""

    def __init__(self) -> None:
        self.ready: list[str] = []

    def signal(self, topic: str, **_: Any) -> None:
        self.ready.append(topic.removeprefix("available:"))


@pytest.fixture
def one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settle, "PARENTS_AT_ONCE", 1)
    monkeypatch.setattr(duties, "_UNSETTLED", Rota())


@pytest.mark.usefixtures("one_by_one")
def test_a_child_waits_for_a_piece_of_what_another_owner_has_left(world: World):
    many, one = ended_parents(world, "alice", MANY), ended_parents(world, "bob", 1)
    heard = Heard()
    duties.releases(Context(world.store, heard))
    assert one[0] in heard.ready[:2]
    assert sorted(heard.ready) == sorted([*many, *one])


@pytest.mark.usefixtures("one_by_one")
def test_what_may_be_claimed_is_said_at_once(world: World, monkeypatch: pytest.MonkeyPatch):
    """And not only when somebody else's children are released as well."""
    ended_parents(world, "alice", MANY)
    (one,) = ended_parents(world, "bob", 1)
    heard, asked, any_unsettled = Heard(), list[str](), settlements.any_unsettled

    def noted(store: Store, owner: str, limit: int) -> list[ObjectId]:
        asked.append(owner)
        assert (one in heard.ready) == ("bob" in asked[:-1])
        return any_unsettled(store, owner, limit)

    monkeypatch.setattr(settlements, "any_unsettled", noted)
    duties.releases(Context(world.store, heard))
    assert len(asked) == MANY + 1


@pytest.mark.usefixtures("one_by_one")
def test_a_settling_that_is_cut_off_goes_on_with_the_others(
    world: World, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(duties, "SETTLE_SECONDS", 0)
    ended_parents(world, "alice", MANY)
    one, heard = ended_parents(world, "bob", 1), Heard()
    for _ in range(2):
        duties.releases(Context(world.store, heard))
    assert len(heard.ready) == 2
    assert one[0] in heard.ready


def test_whose_children_wait_is_known_without_a_look_at_their_parents(world: World):
    ended_parents(world, "alice", MANY)
    ended_parents(world, "bob", MANY)
    assert settlements.owners_unsettled(world.store) == ["alice", "bob"]
    documents, keys = examined(world, "owner", {"unsettled": True})
    assert documents == 0
    assert keys <= 3


def test_one_settling_takes_so_much_and_no_more(world: World):
    """A request looks at its time after each, and in upkeep the others wait for it."""
    parent = new_id()
    submit(world, "alice", [{"_id": parent, "command": "x"}])
    submit(world, "alice", [{"command": "x", "after_any": [parent]}] * 5000)
    WATCH.reset()
    answer = send(world, "alice", "POST", f"/tasks/{parent}/cancel")
    assert answer.status_code == 200
    written = [one for one in WATCH.commands if "updates" in one]
    sizes = [len(part["q"]["_id"]["$in"]) for one in written for part in one["updates"]
             if "$in" in str(part["q"].get("_id"))]  # fmt: skip
    assert max(sizes) <= 2000


# --- The duties --------------------------------------------------------------------------------


@pytest.mark.parametrize("slow", duties.DUTIES)
def test_however_long_one_duty_takes_the_others_come(
    world: World, monkeypatch: pytest.MonkeyPatch, slow: str
):
    monkeypatch.setenv("BANYAN_UPKEEP_SECONDS", "0.05")
    stuck, done = threading.Event(), threading.Event()
    rounds = dict.fromkeys(duties.DUTIES, 0)

    def doing(name: str) -> duties.Duty:
        def duty(_: Context) -> None:
            if name == slow:
                stuck.set()
                done.wait(60)
            elif stuck.is_set():
                rounds[name] += 1

        return duty

    own = {name: (doing(name),) for name in duties.DUTIES}
    monkeypatch.setattr("banyan.server.upkeep.loop.DUTIES", own)
    upkeep = Upkeep(world.uri, Silent())
    upkeep.start()
    try:
        eventually(lambda: all(rounds[name] >= 3 for name in rounds if name != slow))
    finally:
        done.set()
        upkeep.stop()


# --- Requests that try again -------------------------------------------------------------------


@pytest.mark.parametrize("what", ["submit", "retry", "forget"])
def test_all_tries_of_a_request_have_one_end(
    world: World, monkeypatch: pytest.MonkeyPatch, what: str
):
    """Each of them may take twenty seconds, and a graph may change under all eight."""
    parent = new_id()
    submit(world, "alice", [{"_id": parent, "command": "x"}])
    send(world, "alice", "POST", f"/tasks/{parent}/cancel")
    ends: list[float] = []

    def transaction(_: Store, work: Any, until: float) -> None:
        ends.append(until)
        raise GraphChangedError

    monkeypatch.setattr(Store, "transaction", transaction)
    if what == "submit":
        answer = send(world, "alice", "POST", "/tasks", {"command": "x", "after_any": [parent]})
    else:
        answer = send(world, "alice", "POST", f"/tasks/{parent}/{what}")
    assert answer.status_code == 409
    assert len(ends) == 8
    assert len(set(ends)) == 1
