"""Workers that say much of themselves: each is bounded, and of many only what is needed is read."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import bson
import pytest
from bson import ObjectId

from banyan.server.exposition import Exposition
from banyan.server.schemas.workers import SAID_BYTES_MAX
from banyan.server.store import attempts, tasks, workers
from banyan.server.store.mongo import Store, now
from banyan.server.upkeep import duties
from tests.contract.playing import word
from tests.harness import Server
from tests.server.explained import Bench

GPU = {"memory": 2**30, "compute_capability": "9.0", "uuid": "u" * 45, "name": "n" * 30}
MIG = {"cores": 8, "memory": "8 GiB", "gpus": [GPU] * 56}  # eight cards in seven parts each
QUEUES = [f"{number:0128}" for number in range(63)]
LABELS = {f"{number:064}": "x" * 256 for number in range(64)}


def register(server: Server, **more: Any) -> Any:
    body = {"host": "h", "resources": {"cores": 1, "memory": 1}, **more}
    return server.worker.post("workers", body)


@pytest.mark.parametrize(
    "gpus",
    [
        [{}] * 65,
        65,
        [{"uuid": "u" * 97}],
        [{"name": "n" * 97}],
    ],
)
def test_gpus_without_number_or_measure_are_refused(server: Server, gpus: Any) -> None:
    resources = {"cores": 1, "memory": 1, "gpus": gpus}
    assert word(register(server, resources=resources)) == (422, "invalid")


def test_a_large_machine_is_welcome(server: Server) -> None:
    answer = register(server, resources=MIG, queues=["a", "b"], labels={"site": "here"})
    assert answer.status_code == 201, answer.text


@pytest.mark.parametrize(
    "more",
    [
        {"labels": LABELS},
        {"queues": QUEUES, "resources": MIG},
        {"queues": QUEUES, "labels": dict(list(LABELS.items())[:32])},
    ],
)
def test_all_together_is_bounded(server: Server, more: dict[str, Any]) -> None:
    answer = register(server, **more)
    assert word(answer) == (413, "too_large")
    assert f"{SAID_BYTES_MAX:,}" in answer.json()["_error"]["message"]


@pytest.fixture
def bench(bench: Bench) -> Bench:
    worker = {
        "host": "h",
        "account": "worker",
        "mode": "active",
        "queues": ["default", *QUEUES],
        "labels": {"site": "here"},
        "resources": {"cores": 1, "memory": 2**30, "gpus": [GPU] * 3, "disk": None, "custom": {}},
        "used": {"cores": 1},
        "claim_ids": ["c" * 128] * 32,
        "lease_until": now() + timedelta(hours=1),
    }
    bench.store["workers"].insert_many([{**worker, "_id": ObjectId()} for _ in range(3)])
    return bench


def read_of(store: Store, commands: list[Any]) -> int:
    """The bytes of all workers that these commands have read."""
    asked = [one for one in commands if one.get("find") == "workers"]
    assert asked
    return sum(
        len(bson.encode(document))
        for one in asked
        for document in store["workers"].find(one["filter"], one.get("projection"))
    )


def test_figures_are_made_of_little(bench: Bench) -> None:
    found = list(workers.live(bench.store, {}, workers.FIGURES))
    assert [one["gpu_count"] for one in found] == [3, 3, 3]
    assert sum(len(bson.encode(one)) for one in found) < 1500
    told = bench.ask("operator", "GET", "/workers/statistics")
    assert told["capacity"] == {"cores": 3, "memory_bytes": 3 * 2**30, "gpu_count": 9}
    assert told["by_queue"]["default"] == 3


@pytest.mark.parametrize(("resources", "most"), [({}, 150), ({"gpus": 1}, 400)])
def test_an_explanation_reads_of_a_worker_what_its_task_asks_for(
    bench: Bench, resources: dict[str, int], most: int
) -> None:
    body = {"state": "available", "command": "x", "labels": {"site": "here"}}
    task = bench.ask("provider", "POST", "/tasks", {**body, "requested_resources": resources})
    path = f"/tasks/{task['_id']}/explain"
    sent = bench.during(lambda: bench.ask("provider", "GET", path))
    assert read_of(bench.store, sent) < 3 * most
    assert "3 workers could run it" in str(bench.ask("provider", "GET", path))


LABEL, QUEUE = "no worker of its queue has all the labels", "no worker serves the queue"


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"labels": {"site": "there"}}, LABEL),
        ({"labels": {"0": "here"}}, LABEL),
        ({"queue": "nobodys"}, QUEUE),
        ({"queue": "nobodys", "labels": {"site": "here"}}, QUEUE),
        ({"requested_resources": {"cores": 2}}, "no worker has enough: 2 cores wanted"),
        ({"requested_resources": {"custom": {"0": 1}}}, "no worker has enough: 1 0 wanted"),
        ({"requested_resources": {"gpus": 4}}, "no worker has enough: 4 gpus wanted"),
    ],
)
def test_an_explanation_is_as_good_as_if_it_had_read_all(
    bench: Bench, fields: dict[str, Any], told: str
) -> None:
    body = {"state": "available", "command": "x", **fields}
    task = bench.ask("provider", "POST", "/tasks", body)["_id"]
    assert told in str(bench.ask("provider", "GET", f"/tasks/{task}/explain"))


# --- What one worker holds: nothing bounds how many tasks it claims ---------------------------


@pytest.fixture
def holding(bench: Bench) -> str:
    """A worker that holds five tasks."""
    bench.submit(5, requested_resources={"cores": 2, "memory": 1})
    worker = bench.worker()
    bench.claim(worker, 5)
    return worker


def unlimited_finds(commands: list[Any]) -> list[Any]:
    return [one for one in commands if one.get("find") == "tasks" and not one.get("limit")]


def test_what_workers_hold_is_added_up_by_the_database(bench: Bench, holding: str) -> None:
    told = bench.ask("operator", "GET", "/workers/statistics")
    assert (told["running"], told["reserved"]["cores"]) == (5, 10)
    listed = {one["_id"]: one for one in bench.ask("operator", "GET", "/workers")["_items"]}
    assert listed[holding]["reserved"] == {"cores": 10, "memory_bytes": 5, "gpu_count": 0}
    assert sorted(one["reserved"]["cores"] for one in listed.values()) == [0, 0, 0, 10]
    for path in ("/workers", "/workers/statistics", f"/workers/{holding}/statistics"):
        sent = bench.during(lambda path=path: bench.ask("operator", "GET", path))
        assert unlimited_finds(sent) == []
    duty = bench.during(lambda: duties.sample(bench.context))
    scrape = bench.during(lambda: Exposition(bench.store).text(0))
    assert unlimited_finds([*duty, *scrape]) == []


def test_a_beat_reads_no_more_than_it_may_name(bench: Bench, holding: str) -> None:
    sent = bench.during(lambda: bench.ask("worker", "POST", f"/workers/{holding}/beat", {}))
    assert unlimited_finds(sent) == []


def test_what_a_beat_does_not_read_is_not_called_lost(
    bench: Bench, holding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = [str(task["holder"]["attempt"]) for task in bench.store["tasks"].find()]
    unknown = str(ObjectId())
    for most, lost in ((6, [unknown]), (3, [])):
        monkeypatch.setattr(tasks, "HELD_MAX", most)
        body = {"attempts": [*held, unknown]}
        assert bench.ask("worker", "POST", f"/workers/{holding}/beat", body)["lost"] == lost


def by_operator(bench: Bench) -> dict[str, str]:
    return {"Authorization": f"Bearer {bench.tokens['operator']}"}


@pytest.mark.parametrize("how", ["lost", "half removed", "removed", "unknown"])
def test_what_a_worker_held_is_given_back_in_pieces(
    bench: Bench, holding: str, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """All in one transaction, it would take too long, and others' tasks would wait behind it."""
    monkeypatch.setattr(tasks, "HELD_AT_ONCE", 2)
    if how == "lost":
        past = {"$set": {"lease_until": now() - timedelta(days=1)}}
        bench.store["workers"].update_one({"_id": ObjectId(holding)}, past)
    if how == "half removed":
        workers.turn_off(bench.store, {"_id": ObjectId(holding)})
    path = f"/workers/{holding}"
    work: dict[str, Callable[[], Any]] = {
        "removed": lambda: bench.client.delete(path, headers=by_operator(bench)),
        "unknown": lambda: bench.ask(
            "worker", "POST", f"{path}/beat", {"attempts": [], "takes_over": 1}
        ),
    }
    sent = bench.during(work.get(how, lambda: duties.leases(bench.context)))
    sizes = [len(one["updates"]) for one in sent if one.get("update") == "tasks"]
    assert sizes == [2, 2, 1]
    assert bench.ask("provider", "GET", "/tasks/statistics")["by_state"] == {"available": 5}


def test_a_task_that_was_claimed_without_end_is_timed_in_part(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    (task,) = bench.submit(1)
    worker = bench.worker()
    for _ in range(3):
        (item,) = bench.claim(worker, 1)
        bench.ask("worker", "POST", f"/tasks/{task}/release", {"token": item["token"]})
    assert bench.ask("provider", "GET", f"/tasks/{task}/statistics")["attempts"] == 3
    monkeypatch.setattr(attempts, "_TIMED_MAX", 2)
    assert bench.ask("provider", "GET", f"/tasks/{task}/statistics")["attempts"] == 2


def test_an_answer_names_the_queues_that_most_serve(bench: Bench) -> None:
    few = {"account": "worker", "mode": "active", "lease_until": now() + timedelta(hours=1)}
    resources = {"cores": 1, "memory": 1, "gpus": []}
    many = [
        {"queues": [f"{worker}-{number}" for number in range(63)], "resources": resources, **few}
        for worker in range(20)
    ]
    bench.store["workers"].insert_many(many)
    told = bench.ask("operator", "GET", "/workers/statistics")["by_queue"]
    assert (len(told), told["default"]) == (1000, 3)
