"""What the database is asked: by an index, without sorting, and as seldom for many as for one.

Every command that a request sends is caught on its way and explained. The application is
asked directly, in this process; the database is a real one, with thousands of tasks in it.
"""

import json
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from itertools import chain
from typing import Any

import pytest
from bson import ObjectId

from banyan.server.calls import Context, Silent
from banyan.server.store import ageing
from banyan.server.upkeep.duties import DUTIES
from banyan.server.upkeep.retention import Retention
from banyan.server.verbs.claim import CLAIMS
from tests.harness import eventually
from tests.server.explained import KINDS, Bench, Item, stages

_QUERIES = {"find", "aggregate", "distinct", "count", "findAndModify", "update", "delete"}
# A few documents, of which most are wanted.
_SMALL = {"workers"}

pytestmark = pytest.mark.usefixtures("nothing_remembered")


@pytest.fixture(scope="module")
def bench(module_database: str) -> Iterator[Bench]:
    made = Bench(module_database)
    for _ in range(3):
        made.submit(1000)
    worker = made.worker()
    made.end(made.claim(worker, 1000))
    made.claim(worker, 500, claim_id="first")
    yield made
    made.store.close()


def upkeep(bench: Bench) -> None:
    for duty in chain(*DUTIES.values()):
        duty(Context(bench.store, Silent()))


def retention(bench: Bench) -> None:
    bench.submit(1, retain="1 day")
    Retention().work(Context(bench.store, Silent()))
    ageing.attempts_with_output(bench.store, None, 10)  # asked for where there is too much


def forget(bench: Bench) -> None:
    (item,) = bench.claim(bench.worker(), 1)
    bench.end([item])
    bench.ask("provider", "POST", "/tasks/forget", {"targets": [item["_id"]]})


def cancel_child_and_retry(bench: Bench) -> None:
    child = bench.ask("provider", "POST", "/tasks", {"command": "true"})["_id"]
    parent = {"command": "true", "continuations": [child]}
    parent_id = bench.ask("provider", "POST", "/tasks", parent)["_id"]
    bench.ask("provider", "POST", "/tasks/cancel", {"targets": [parent_id]})
    bench.ask("provider", "POST", f"/tasks/{parent_id}/retry", {"downstream": True})


def report_output(bench: Bench) -> None:
    (item,) = bench.claim(bench.worker(), 1)
    log = [{"offset": 2 * n, "stream": "stdout", "data": "aGk="} for n in range(10)]
    data = {"token": item["token"], "log": log}
    path = f"/tasks/{item['_id']}"
    bench.ask("worker", "POST", f"{path}/update_execution_data", data)
    headers = {"Authorization": f"Bearer {bench.tokens['provider']}"}
    assert bench.client.get(f"{path}/log?offset=7", headers=headers).data == b"ihihihihihihi"[:13]
    bench.ask("provider", "GET", f"{path}/history")


def steal(bench: Bench) -> None:
    bench.submit(10, queue="loot")
    bench.claim(bench.worker(), 10, queues=["loot"])
    body = {"worker": bench.worker(), "max": 5, "queues": ["loot"]}
    assert bench.ask("worker", "POST", "/tasks/steal", body)["_items"]


def own(**arguments: str) -> Callable[[Bench], Any]:
    return lambda bench: bench.ask("provider", "GET", "/tasks", **arguments)


HOT: dict[str, Callable[[Bench], Any]] = {
    "claim": lambda bench: bench.claim(bench.worker(), 10),
    "claim beside others": lambda bench: bench.ask(
        "worker", "POST", "/tasks/claim",
        {"worker": bench.worker(), "max": 9, "fits": {"cores": 2}},
    ),
    "repeated claim": lambda bench: bench.claim(
        bench.ask("provider", "GET", "/workers")["_items"][0]["_id"], 500, claim_id="first"
    ),
    "end": lambda bench: bench.end(bench.claim(bench.worker(), 10)),
    "beat": lambda bench: bench.ask(
        "worker", "POST", f"/workers/{bench.worker()}/beat", {"attempts": []}
    ),
    "steal": steal,
    "output": report_output,
    "upkeep": upkeep,
    "retention": retention,
    "forget": forget,
    "submit": lambda bench: bench.submit(10),
    "submit once": lambda bench: bench.submit(1, dedupe_key=str(ObjectId())),
    "a parent ends": cancel_child_and_retry,
    "own tasks": own(),
    "own tasks, newest first": own(sort="-_created"),
    "own tasks in a state": own(where='{"state":"running"}'),
    "own tasks of a name": own(where='{"name":"nobody"}'),
    "own attempts": lambda bench: bench.ask("provider", "GET", "/attempts"),
    "a worker's attempts": lambda bench: bench.ask(
        "operator", "GET", "/attempts", where=json.dumps({"worker": str(ObjectId())})
    ),
}  # fmt: skip


@pytest.mark.parametrize("hot", HOT)
def test_what_is_asked_often_is_found_by_an_index_and_never_sorted(bench: Bench, hot: str):
    commands = bench.during(lambda: HOT[hot](bench))
    asked = [one for one in commands if next(iter(one)) in _QUERIES]
    assert commands
    for command in asked:
        collection = command[next(iter(command))]
        for plan in bench.plans(command):
            bad = stages(plan) & {"COLLSCAN", "SORT"}
            assert not bad or collection in _SMALL, (bad, command)


# What -> (who asks it, the command, a field that only its filter has, the index it must use).
ASKED: dict[str, tuple[str, str, str, str]] = {
    "waiting shapes": ("claim", "aggregate", "shape", "claim_in_time"),
    "claim candidates": ("claim", "find", "shape", "claim_in_time"),
    "what this claim_id took": ("repeated claim", "find", "holder.claim_id", "claim_id"),
    "what a worker holds": ("beat", "find", "holder.worker", "held_of_owner"),
    "who may be stolen from": ("steal", "aggregate", "holder.spare", "spare"),
    "what may be stolen": ("steal", "find", "holder.spare", "spare"),
    "who holds anything": ("upkeep", "distinct", "holder.worker", "held_of_owner"),
    "what is unsettled": ("upkeep", "distinct", "unsettled", "unsettled_of_owner"),
    "whose delay is over": ("upkeep", "distinct", "wake_at", "wake_of_owner"),
    "who waits for a parent": ("a parent ends", "find", "open_parents", "open_parents"),
    "cancelled because": ("a parent ends", "find", "cancelled_because", "cancelled_because"),
    "times of their own": ("retention", "distinct", "forget_after", "forget_after"),
    "the same dedupe_key": ("submit once", "find", "dedupe_key", "dedupe_by_submitter"),
    "output": ("output", "find", "attempt", "attempt_offset"),
    "history": ("output", "find", "task", "task_count"),
    "own, newest first": ("own tasks, newest first", "find", "owner", "owner_created"),
    "own in a state": ("own tasks in a state", "find", "state", "owner_state_id"),
    "own of a name": ("own tasks of a name", "find", "name", "name_id"),
    "own attempts": ("own attempts", "find", "owner", "owner_id"),
    "a worker's attempts": ("a worker's attempts", "find", "worker", "worker_id"),
}


@pytest.mark.parametrize("what", ASKED)
def test_each_query_has_its_own_index(bench: Bench, what: str):
    hot, kind, field, index = ASKED[what]
    sent = bench.during(lambda: HOT[hot](bench))
    asked = [one for one in sent if next(iter(one)) == kind and field in _filter(one)]
    assert asked, [next(iter(one)) for one in sent]
    for command in asked:
        (plan,) = bench.plans(command)
        assert _values(plan, "indexName") == {index}
        if kind == "distinct" or what == "waiting shapes":
            # One seek for each value, and no document.
            assert "DISTINCT_SCAN" in stages(plan)
            assert "FETCH" not in stages(plan)


def _filter(command: Item) -> set[str]:
    """The names of the fields by which a command searches."""
    if "pipeline" in command:
        return _keys(command["pipeline"][0]["$match"])
    given = command.get("filter", command.get("query"))
    return _keys(command["updates"][0]["q"] if given is None else given)


def _keys(given: Any) -> set[str]:
    if isinstance(given, dict):
        return set(given).union(*(_keys(value) for value in given.values()))
    if isinstance(given, list):
        return set().union(*(_keys(value) for value in given))
    return set()


def _values(plan: Any, key: str) -> set[str]:
    """All values under a key, anywhere in a plan."""
    if isinstance(plan, dict):
        own = {plan[key]} if key in plan else set()
        return own.union(*(_values(value, key) for value in plan.values()))
    if isinstance(plan, list):
        return set().union(*(_values(value, key) for value in plan))
    return set()


# --- As seldom for many as for one ---------------------------------------------------------


def sent_for(bench: Bench, work: Callable[[int], Any], count: int) -> list[str]:
    """The commands that the work sends, as `find tasks`; who asks is remembered for a while."""
    sent = bench.during(lambda: work(count))
    told = [f"{name} {command[name]}" for command in sent for name in [next(iter(command))]]
    return [one for one in told if not one.endswith(" tokens")]


@pytest.mark.parametrize(("few", "many"), [(2, 1000), (3, 100)])
def test_a_claim_asks_as_much_for_many_tasks_as_for_few(bench: Bench, few: int, many: int):
    for count in (few, many):
        bench.submit(count, queue="claims")
    worker = bench.worker()

    def claim(count: int) -> None:
        bench.claim(worker, count, queues=["claims"])

    sent = [sent_for(bench, claim, count) for count in (few, many)]
    assert sent[0] == sent[1]


def test_a_claim_of_one_task_asks_for_less(bench: Bench):
    bench.submit(3, queue="single")
    worker = bench.worker()
    one, two = (
        sent_for(bench, lambda n: bench.claim(worker, n, queues=["single"]), n) for n in (1, 2)
    )
    assert len(one) < len(two)


def at_once(bench: Bench, *claims: Callable[[], list[Item]]) -> list[list[Item]]:
    """What claims get that come at one moment, in this order."""
    with ThreadPoolExecutor(len(claims)) as pool:
        futures: list[Future[list[Item]]] = []
        with CLAIMS.held_up(bench.store):
            for number, claim in enumerate(claims, 1):
                futures.append(pool.submit(claim))
                eventually(lambda n=number: len(CLAIMS.waiting(bench.store)) == n)
        return [future.result() for future in futures]


def free(cores: int) -> Item:
    return {"cores": cores, "memory": "1 TiB", "gpus": [], "custom": {}}


def test_claims_of_one_moment_are_one_look_and_one_write(bench: Bench):
    oldest_first = bench.submit(9, queue="crowd")
    wish: Item = {"queues": ["crowd"], "fits": free(100)}
    claims = [partial(bench.claim, bench.worker(), 3, **wish) for _ in range(3)]
    won: list[list[Item]] = []
    sent = sent_for(bench, lambda _: won.extend(at_once(bench, *claims)), 0)
    for command in ("update tasks", "insert attempts", "aggregate tasks"):
        assert sent.count(command) == 1, sent
    assert sent.count("find tasks") == 1 + len(claims)  # each reads what it has won
    # Who came first has the oldest.
    assert [item["_id"] for items in won for item in items] == oldest_first


def test_claims_of_very_many_tasks_are_several_writes(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("banyan.server.verbs.claim._TASKS_AT_ONCE", 6)
    bench.submit(16, queue="large")
    counts = (3, 3, 10)
    claims = [partial(bench.claim, bench.worker(), count, queues=["large"]) for count in counts]
    sent = sent_for(bench, lambda _: at_once(bench, *claims), 0)
    assert sent.count("update tasks") == 2


def test_who_has_little_room_gets_its_fill_beside_who_has_much(bench: Bench):
    """They read different kinds, and the first tasks of these are the same."""
    bench.submit(4 * KINDS, queue="unequal")
    large, small = at_once(
        bench,
        partial(bench.claim, bench.worker(), 2 * KINDS, queues=["unequal"], fits=free(1000)),
        partial(bench.claim, bench.worker(), 1, queues=["unequal"], fits=free(1)),
    )
    assert not {item["_id"] for item in large} & {item["_id"] for item in small}


@pytest.mark.parametrize("first", ["idle", "busy"])
def test_who_is_idle_and_who_claims_ahead_both_get_their_fill(bench: Bench, first: str):
    ids = bench.submit(8, queue=f"{first}-first", requested_resources={"cores": 1})
    own = {"queues": [f"{first}-first"]}
    busy = partial(bench.claim, bench.worker(), 4, fits=free(0), max=1, ahead=4, **own)
    idle = partial(bench.claim, bench.worker(), 4, fits=free(10), **own)
    won = at_once(bench, *((idle, busy) if first == "idle" else (busy, idle)))
    assert sorted(item["_id"] for items in won for item in items) == sorted(ids)


@pytest.mark.parametrize(("few", "many"), [(1, 1000), (2, 100)])
def test_a_bulk_end_asks_as_much_for_many_tasks_as_for_few(bench: Bench, few: int, many: int):
    for count in (few, many):
        bench.submit(count, queue="ends")
    worker = bench.worker()
    items = {count: bench.claim(worker, count, queues=["ends"]) for count in (few, many)}
    sent = [sent_for(bench, lambda n: bench.end(items[n]), count) for count in (few, many)]
    assert sent[0] == sent[1]


@pytest.mark.parametrize(("few", "many"), [(2, 1000), (3, 100)])
def test_a_bulk_submit_asks_as_much_for_many_tasks_as_for_few(bench: Bench, few: int, many: int):
    bench.submit(KINDS)  # the kinds of request are known from now on
    sent = [sent_for(bench, bench.submit, count) for count in (few, many)]
    assert sent[0] == sent[1]


@pytest.mark.parametrize(("few", "many"), [(1, 1000), (2, 100)])
def test_a_bulk_edit_asks_as_much_for_many_tasks_as_for_few(bench: Bench, few: int, many: int):
    ids = {count: bench.submit(count, queue="edits") for count in (few, many)}

    def edit(count: int) -> None:
        changes = [{"_id": one, "priority": 7, "tags": {"a": "b"}} for one in ids[count]]
        bench.ask("provider", "PATCH", "/tasks", changes)

    sent = [sent_for(bench, edit, count) for count in (few, many)]
    assert sent[0] == sent[1]


@pytest.mark.parametrize(("few", "many"), [(1, 1000), (2, 100)])
def test_a_bulk_cancellation_asks_as_much_for_many_tasks_as_for_few(
    bench: Bench, few: int, many: int
):
    ids = {count: bench.submit(count, queue="cancels") for count in (few, many)}

    def cancel(count: int) -> None:
        bench.ask("provider", "POST", "/tasks/cancel", {"targets": ids[count]})

    sent = [sent_for(bench, cancel, count) for count in (few, many)]
    assert sent[0] == sent[1]


def test_a_beat_asks_as_much_for_many_attempts_as_for_few(bench: Bench):
    """Attempts that it holds, and as many that it has lost."""
    beats: dict[int, tuple[str, list[str]]] = {}
    for count in (1, 500):
        worker = bench.worker()
        bench.submit(count, queue="beats")
        items = bench.claim(worker, count, queues=["beats"])
        lost = [str(ObjectId()) for _ in range(count)]
        beats[count] = worker, [item["attempt_id"] for item in items] + lost

    def beat(count: int) -> None:
        worker, attempts = beats[count]
        answer = bench.ask("worker", "POST", f"/workers/{worker}/beat", {"attempts": attempts})
        assert len(answer["lost"]) == count

    sent = [sent_for(bench, beat, count) for count in beats]
    assert sent[0] == sent[1]


def test_a_settling_asks_as_much_for_many_children_as_for_few(bench: Bench):
    def fan_out(count: int) -> list[Item]:
        """A parent with so many children, running on a worker."""
        queue = f"fan{count}"
        body = {"worker": bench.worker(), "queues": [queue]}
        parent = str(ObjectId())
        group = [{"_id": parent, "command": "true", "queue": queue, "state": "available"}]
        child = {"command": "true", "after": [parent], "state": "available", "queue": queue}
        bench.ask("provider", "POST", "/tasks", group + [child] * count)
        items: list[Item] = bench.ask("worker", "POST", "/tasks/claim", body)["_items"]
        assert [item["_id"] for item in items] == [parent]
        return items

    waiting = {count: fan_out(count) for count in (1, 999)}
    sent = [sent_for(bench, lambda n: bench.end(waiting[n]), count) for count in waiting]
    assert sent[0] == sent[1]
