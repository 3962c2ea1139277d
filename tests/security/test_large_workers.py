"""Workers that say much of themselves: each is bounded, and of many only what is needed is read."""

from datetime import timedelta
from typing import Any

import bson
import pytest
from bson import ObjectId

from banyan.domain.resources import OWN_GPUS_MAX
from banyan.server.schemas.workers import SAID_BYTES_MAX
from banyan.server.store import workers
from banyan.server.store.mongo import Store, now
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
        [{}] * (OWN_GPUS_MAX + 1),
        OWN_GPUS_MAX + 1,
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
def bench(fresh_database: str) -> Any:
    bench = Bench(fresh_database)
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
    yield bench
    bench.store.close()


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
    found = workers.live(bench.store, {}, workers.FIGURES)
    assert [one["gpu_count"] for one in found] == [3, 3, 3]
    assert sum(len(bson.encode(one)) for one in found) < 1500
    told = bench.ask("operator", "GET", "/workers/statistics")
    assert told["capacity"] == {"cores": 3, "memory_bytes": 3 * 2**30, "gpu_count": 9}
    assert told["by_queue"]["default"] == 3


def test_metrics_and_explanations_read_little(bench: Bench) -> None:
    task = bench.ask("provider", "POST", "/tasks", {"state": "available", "command": "x"})["_id"]
    explain = bench.during(lambda: bench.ask("provider", "GET", f"/tasks/{task}/explain"))
    assert read_of(bench.store, explain) < 3000
    told = bench.ask("provider", "GET", f"/tasks/{task}/explain")
    assert "3 workers could run it" in str(told)


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
