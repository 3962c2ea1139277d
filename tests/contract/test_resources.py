"""Contract §2: the stored form of requested resources, the short forms, and what is refused."""

import json
import math
from typing import Any

import pytest

from tests.contract.asking import Item, make, new_id, read, refused
from tests.contract.playing import Play
from tests.harness import Server

DEFAULT = {
    "cpu_memory_bytes": 128 * 2**20,
    "cpu_cores": {"count": 1, "percent": 0},
    "gpu_count": 0,
    "gpu_memory_bytes": 0,
    "gpu_compute_capability_major": 0,
    "gpu_compute_capability_minor": 0,
    "disk_bytes": 0,
    "custom": {},
}
TWO_GPUS = {
    "gpu_count": 2,
    "gpu_memory_bytes": 8 * 2**30,
    "gpu_compute_capability_major": 7,
    "gpu_compute_capability_minor": 5,
}
GPU = {"memory": "8 GiB", "min_compute_capability": "7.5"}


def stored(server: Server, **asked: Any) -> Item:
    """The stored form of what is asked for."""
    task = make(server.provider, requested_resources=asked)
    found: Item = read(server.provider, task)["requested_resources"]
    return found


def test_left_out_it_is_one_core_and_128_mib(server: Server):
    assert read(server.provider, make(server.provider))["requested_resources"] == DEFAULT
    assert stored(server) == DEFAULT


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({"memory": "1 GiB"}, {"cpu_memory_bytes": 2**30}),
        ({"memory": 2**30}, {"cpu_memory_bytes": 2**30}),
        ({"memory": 0}, {"cpu_memory_bytes": 0}),
        ({"cores": 2}, {"cpu_cores": {"count": 2, "percent": 0}}),
        ({"cores": 0.5}, {"cpu_cores": {"count": 0.5, "percent": 0}}),
        ({"gpus": 1}, {"gpu_count": 1}),
        ({"gpus": [GPU, GPU]}, TWO_GPUS),
        ({"disk": "10 GiB"}, {"disk_bytes": 10 * 2**30}),
        ({"custom": {"licence-a": 2}}, {"custom": {"licence-a": 2}}),
        ({"cpu_cores": {"percent": 50}}, {"cpu_cores": {"count": 0, "percent": 50}}),
        ({"cpu_cores": {"count": 3, "percent": 100}}, {"cpu_cores": {"count": 3, "percent": 100}}),
        (TWO_GPUS, TWO_GPUS),
        ({"cpu_memory_bytes": 5, "disk_bytes": 6}, {"cpu_memory_bytes": 5, "disk_bytes": 6}),
    ],
)
def test_short_forms_are_normalised_to_the_stored_form(server: Server, asked: Item, expected: Item):
    assert stored(server, **asked) == {**DEFAULT, **expected}


def test_the_stored_form_may_be_sent_back_as_it_is(server: Server):
    full = stored(server, memory="1 GiB", gpus=[GPU], disk="1 GB", custom={"a": 1})
    assert stored(server, **full) == full


@pytest.mark.parametrize(
    "asked",
    [
        {"memory": -1}, {"memory": "-1 GiB"}, {"memory": "4 GiB\n"}, {"memory": "4 gallons"},
        {"memory": "NaN"}, {"memory": "1e3"}, {"memory": 1e308}, {"memory": 1.5}, {"memory": True},
        {"memory": None}, {"memory": ""}, {"memory": [1]}, {"memory": "\u0661 GiB"},
        {"cores": -1}, {"cores": "two"}, {"cores": 1e308}, {"cores": True}, {"cores": None},
        {"gpus": -1}, {"gpus": 1.5}, {"gpus": "one"}, {"gpus": [5]}, {"gpus": [{"memory": -1}]},
        {"gpus": [{"min_compute_capability": "new"}]}, {"gpus": [{"colour": "red"}]},
        {"disk": "-1 B"}, {"disk": "1 GiB "},
        {"custom": {"a": -1}}, {"custom": {"a": "1"}}, {"custom": {"a b": 1}},
        {"custom": {"a.b": 1}}, {"custom": {"$a": 1}}, {"custom": {"a\n": 1}}, {"custom": [1]},
        {"cpu_cores": {"count": -1}}, {"cpu_cores": {"percent": 101}}, {"cpu_cores": 1},
        {"cpu_cores": {"percent": -1}}, {"cpu_cores": {"threads": 1}},
        {"cpu_memory_bytes": -1}, {"gpu_count": -1}, {"gpu_memory_bytes": "x"},
        {"gpu_compute_capability_major": 7.5},
        {"quantum_bits": 1}, {"": 1}, {"$where": 1},
        {"memory": 1, "cpu_memory_bytes": 2},
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_422(server: Server, asked: Item):
    answer = server.provider.post("tasks", {"requested_resources": asked})
    assert refused(answer, 422, "invalid").keys() == {"requested_resources"}


@pytest.mark.parametrize("asked", [None, "1 core", 1, [], [{"cores": 1}]])
def test_something_else_than_an_object_is_422(server: Server, asked: Any):
    answer = server.provider.post("tasks", {"requested_resources": asked})
    assert refused(answer, 422, "invalid").keys() == {"requested_resources"}


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("field", ["memory", "cores", "gpus", "disk"])
def test_nan_and_infinity_are_422(server: Server, field: str, number: float):
    body = json.dumps({"requested_resources": {field: number}})
    answer = server.provider.post("tasks", data=body, headers={"Content-Type": "application/json"})
    refused(answer, 422, "invalid")


def test_more_than_any_worker_has_is_accepted(server: Server):
    asked = stored(server, memory="1000 TiB", cores=100_000, gpus=512, custom={"licence": 10**9})
    assert asked["cpu_cores"]["count"] == 100_000


def test_filters_work_on_the_stored_form(server: Server):
    name = new_id()
    make(server.provider, name=name, requested_resources={"memory": "3 GiB", "custom": {"sim": 4}})
    make(server.provider, name=name, requested_resources={"memory": "1 GiB", "cores": 4})
    for condition, count in (
        ({"cpu_memory_bytes": {"$gt": 2**31}}, 1),
        ({"cpu_cores.count": {"$lt": 2}}, 1),
        ({"custom.sim": 4}, 1),
        ({"gpu_count": 0}, 2),
        ({"disk_bytes": {"$gt": 0}}, 0),
    ):
        where = {f"requested_resources.{field}": value for field, value in condition.items()}
        answer = server.provider.get("tasks", where=json.dumps({"name": name, **where}))
        assert len(answer.json()["_items"]) == count, condition


def test_a_change_of_one_resource_leaves_the_others(server: Server):
    task = make(server.provider, requested_resources={"memory": "1 GiB", "gpus": [GPU]})
    path = f"tasks/{task['_id']}"
    answer = server.provider.patch(path, {"requested_resources": {"cores": 2}})
    assert answer.status_code == 200, answer.text
    changed = read(server.provider, task)["requested_resources"]
    assert changed == {
        **task["requested_resources"],
        "cpu_cores": {"count": 2, "percent": 0},
    }
    server.provider.patch(path, {"requested_resources": {"gpus": 0}})
    without = read(server.provider, task)["requested_resources"]
    assert without == {**DEFAULT, "cpu_memory_bytes": 2**30, "cpu_cores": changed["cpu_cores"]}


def test_the_same_resources_in_other_words_are_no_change(server: Server):
    task = make(server.provider, state="available", requested_resources={"memory": "1 GiB"})
    for same in ({"memory": 2**30}, {"memory": "1024 MiB", "cores": 1}, {}, {"gpus": 0}):
        answer = server.provider.patch(f"tasks/{task['_id']}", {"requested_resources": same})
        assert answer.status_code == 200, answer.text
    assert read(server.provider, task)["_etag"] == task["_etag"]
    answer = server.provider.patch(f"tasks/{task['_id']}", {"requested_resources": {"cores": 2}})
    assert "requested_resources" in refused(answer, 422)


def test_changed_resources_are_what_a_worker_is_given(server: Server):
    play = Play(server)
    [task_id] = play.submit(state="inactive", requested_resources={"cores": 64})
    changes = {"requested_resources": {"cores": 2}, "state": "available"}
    assert server.provider.patch(f"tasks/{task_id}", changes).status_code == 200
    [item] = play.player().claim()
    assert item["granted_resources"]["cores"] == 2


def test_percent_reserves_the_share_of_the_workers_cores_rounded_up(server: Server):
    for asked, cores in (
        ({"percent": 50}, 2),
        ({"percent": 51}, 3),
        ({"count": 3, "percent": 25}, 3),
        ({"count": 1, "percent": 100}, 4),
    ):
        play = Play(server)
        play.submit(requested_resources={"cpu_cores": asked})
        [item] = play.player().claim()
        assert item["granted_resources"]["cores"] == cores, asked


def test_custom_things_are_counted_as_the_worker_declares_them(server: Server):
    play = Play(server)
    resources = {"cores": 8, "memory": "8 GiB", "custom": {"licence": 3}}
    play.submit(3, requested_resources={"cores": 1, "custom": {"licence": 2}})
    play.submit(1, requested_resources={"cores": 1, "custom": {"licence": 1}}, name="one")
    claimed = play.player(resources=resources).claim(10)
    assert [item["name"] for item in claimed] == [None, "one"]
