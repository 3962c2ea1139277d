"""Requests and capacities: what clients may send, and the stored forms."""

import math
from typing import Any

import pytest
from hypothesis import given

from banyan.domain.resources import (
    Capacity,
    ResourceError,
    capacity_from,
    fits,
    free_from,
    grant_for,
    normalise_capacity,
    normalise_request,
)
from banyan.domain.shape_keys import queue_key, queue_key_in, shape_key
from tests.domain.amounts import (
    GIB,
    H100,
    NOTHING_ASKED,
    T4,
    UNKNOWN,
    anything,
    capacities,
    capacity_objects,
    request_objects,
)


def issues_of(given_request: object) -> dict[str, str]:
    with pytest.raises(ResourceError) as caught:
        normalise_request(given_request)  # type: ignore[arg-type]
    return caught.value.issues


# Requests


@pytest.mark.parametrize(
    ("given_request", "expected"),
    [
        (None, {}),
        ({}, {}),
        ({"memory": "1 GiB"}, {"cpu_memory_bytes": GIB}),
        ({"memory": 0}, {"cpu_memory_bytes": 0}),
        ({"cpu_memory_bytes": 5}, {"cpu_memory_bytes": 5}),
        ({"cores": 2}, {"cpu_cores": {"count": 2, "percent": 0}}),
        ({"cores": 2.0}, {"cpu_cores": {"count": 2, "percent": 0}}),
        ({"cores": 0.5}, {"cpu_cores": {"count": 0.5, "percent": 0}}),
        ({"cpu_cores": {"percent": 50}}, {"cpu_cores": {"count": 0, "percent": 50}}),
        ({"cpu_cores": {"count": 3}}, {"cpu_cores": {"count": 3, "percent": 0}}),
        ({"cpu_cores": {}}, {"cpu_cores": {"count": 1, "percent": 0}}),
        ({"gpus": 2}, {"gpu_count": 2}),
        ({"gpus": []}, {"gpu_count": 0}),
        (
            {"gpus": [{"memory": "8 GiB", "min_compute_capability": "7.5"}]},
            {
                "gpu_count": 1,
                "gpu_memory_bytes": 8 * GIB,
                "gpu_compute_capability_major": 7,
                "gpu_compute_capability_minor": 5,
            },
        ),
        (
            {"gpus": [{"memory": 9}, {"memory": 7, "min_compute_capability": 8.0}]},
            {"gpu_count": 2, "gpu_memory_bytes": 9, "gpu_compute_capability_major": 8},
        ),
        ({"gpu_memory_bytes": 8}, {"gpu_count": 1, "gpu_memory_bytes": 8}),
        ({"gpu_count": 0, "gpu_memory_bytes": 8}, {"gpu_memory_bytes": 8}),
        ({"disk": "10 GiB"}, {"disk_bytes": 10 * GIB}),
        ({"custom": {"licence": 2.0, "half": 0.5}}, {"custom": {"licence": 2, "half": 0.5}}),
    ],
)
def test_the_stored_form(
    given_request: dict[str, object] | None, expected: dict[str, object]
) -> None:
    stored = normalise_request(given_request)
    assert stored == {**NOTHING_ASKED, **expected}
    assert type(stored["cpu_cores"]["count"]) in (int, float)  # type: ignore[index]


def test_whole_numbers_are_stored_as_integers() -> None:
    stored: Any = normalise_request({"cores": 2.0, "custom": {"a": 3.0}})
    assert type(stored["cpu_cores"]["count"]) is int
    assert type(stored["custom"]["a"]) is int


@pytest.mark.parametrize(
    ("given_request", "fields"),
    [
        ({"memory": "4 GiB\n"}, ["memory"]),
        ({"memory": -1}, ["memory"]),
        ({"memory": math.nan}, ["memory"]),
        ({"memory": None}, ["memory"]),
        ({"memory": {"$gt": 0}}, ["memory"]),
        ({"disk": "much"}, ["disk"]),
        ({"cores": -1}, ["cores"]),
        ({"cores": math.nan}, ["cores"]),
        ({"cores": math.inf}, ["cores"]),
        ({"cores": True}, ["cores"]),
        ({"cores": "2"}, ["cores"]),
        ({"cores": 1_000_001}, ["cores"]),
        ({"cores": 10**400}, ["cores"]),
        ({"cpu_cores": 2}, ["cpu_cores"]),
        ({"cpu_cores": {"percent": 101}}, ["cpu_cores.percent"]),
        ({"cpu_cores": {"percent": -1, "count": -1}}, ["cpu_cores.count", "cpu_cores.percent"]),
        ({"cpu_cores": {"cores": 1}}, ["cpu_cores.cores"]),
        ({"gpus": -1}, ["gpus"]),
        ({"gpus": 1.5}, ["gpus"]),
        ({"gpus": 1025}, ["gpus"]),
        ({"gpus": [{}] * 1025}, ["gpus"]),
        ({"gpus": True}, ["gpus"]),
        ({"gpus": "1"}, ["gpus"]),
        ({"gpus": [1]}, ["gpus.0"]),
        ({"gpus": [{}, {"memory": "x", "kind": "T4"}]}, ["gpus.1.kind", "gpus.1.memory"]),
        ({"gpus": [{"min_compute_capability": "7.5\n"}]}, ["gpus.0.min_compute_capability"]),
        ({"gpus": [{"min_compute_capability": True}]}, ["gpus.0.min_compute_capability"]),
        ({"gpus": [{"min_compute_capability": [7]}]}, ["gpus.0.min_compute_capability"]),
        ({"gpu_count": 2000}, ["gpu_count"]),
        ({"gpu_compute_capability_major": 7.5}, ["gpu_compute_capability_major"]),
        ({"custom": {"a": -1}}, ["custom.a"]),
        ({"custom": {"a": math.inf, "b": 1}}, ["custom.a"]),
        ({"custom": {"a": True}}, ["custom.a"]),
        ({"custom": {"a.b": 1}}, ["custom"]),
        ({"custom": {"$a": 1}}, ["custom"]),
        ({"custom": {"a\n": 1}}, ["custom"]),
        ({"custom": {"": 1}}, ["custom"]),
        ({"custom": {"a" * 65: 1}}, ["custom"]),
        ({"custom": {str(n): 1 for n in range(65)}}, ["custom"]),
        ({"custom": []}, ["custom"]),
        ({"ram": 1}, ["ram"]),
        ({"memory": 1, "cpu_memory_bytes": 1}, ["memory"]),
        ({"cores": 1, "cpu_cores": {"count": 1}}, ["cores"]),
        ({"gpus": 1, "gpu_count": 1}, ["gpus"]),
        ({"gpus": 1, "gpu_memory_bytes": 1}, ["gpus"]),
        ({"disk": 1, "disk_bytes": 1}, ["disk"]),
        ({"memory": "x", "cores": "x", "y": 1}, ["cores", "memory", "y"]),
        ([], [""]),
        ("1 GiB", [""]),
    ],
)
def test_what_is_wrong_is_named_as_the_client_wrote_it(
    given_request: object, fields: list[str]
) -> None:
    assert sorted(issues_of(given_request)) == fields


@given(request_objects | anything)
def test_a_request_normalised_twice_is_the_same_and_nothing_else_is_raised(value: Any) -> None:
    try:
        stored = normalise_request(value)
    except ResourceError:
        return
    assert stored.keys() == NOTHING_ASKED.keys()
    assert normalise_request(stored) == stored


def test_the_shape_is_that_of_the_request_the_queue_and_the_labels() -> None:
    one = shape_key(normalise_request({"cores": 1, "custom": {"a": 1, "b": 2}}), "q", {"x": "y"})
    same = shape_key(
        normalise_request({"custom": {"b": 2, "a": 1.0}, "cpu_cores": {"count": 1.0}}),
        "q",
        {"x": "y"},
    )
    others = {
        shape_key(normalise_request({"cores": 2, "custom": {"a": 1, "b": 2}}), "q", {"x": "y"}),
        shape_key(normalise_request({"custom": {"a": 1, "b": 2}}), "other", {"x": "y"}),
        shape_key(normalise_request({"custom": {"a": 1, "b": 2}}), "q", {"x": "z"}),
    }
    assert one == same
    assert len(others) == 3
    assert one not in others
    assert len(one) == 32
    assert queue_key_in(one) == queue_key("q") != queue_key("other")
    assert int(one, 16) >= 0


def test_depth_is_no_way_to_more_than_a_refusal() -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    request = {"memory": deep, "cores": deep, "gpus": [{"min_compute_capability": deep}]}
    assert sorted(issues_of(request)) == ["cores", "gpus.0.min_compute_capability", "memory"]


# Capacities


def test_the_stored_form_of_a_capacity() -> None:
    assert normalise_capacity({"cores": 4.0, "memory": "8 GiB"}) == {
        "cores": 4,
        "memory": 8 * GIB,
        "gpus": [],
        "disk": None,
        "custom": {},
    }
    gpu = {"memory": "16 GiB", "compute_capability": "7.5", "uuid": "GPU-1", "name": "T4"}
    stored: Any = normalise_capacity({"cores": 4, "memory": 1, "gpus": [gpu], "disk": "1 kB"})
    assert stored["gpus"] == [{**gpu, "memory": 16 * GIB}]
    assert stored["disk"] == 1000
    assert capacity_from(stored) == Capacity(4, 1, (T4,), 1000, {})


def test_of_counted_gpus_nothing_is_known_so_they_serve_who_asks_nothing() -> None:
    worker = capacity_from(normalise_capacity({"cores": 1, "memory": GIB, "gpus": 2}))
    assert worker.gpus == (UNKNOWN, UNKNOWN)
    assert fits(grant_for(normalise_request({"gpus": 2}), worker), worker)
    assert not fits(grant_for(normalise_request({"gpus": [{"memory": 1}]}), worker), worker)
    asks_capability = normalise_request({"gpus": [{"min_compute_capability": "0.1"}]})
    assert not fits(grant_for(asks_capability, worker), worker)


@pytest.mark.parametrize(
    ("resources", "fields"),
    [
        ({}, ["cores", "memory"]),
        ({"cores": 1}, ["memory"]),
        ({"cores": 1, "memory": 1, "cpu_cores": {}}, ["cpu_cores"]),
        ({"cores": math.inf, "memory": "x"}, ["cores", "memory"]),
        ({"cores": 1, "memory": 1, "gpus": [{"uuid": 5}]}, ["gpus.0.uuid"]),
        ({"cores": 1, "memory": 1, "gpus": [{"min_compute_capability": "7.5"}]},
         ["gpus.0.min_compute_capability"]),
        ({"cores": 1, "memory": 1, "disk": -1}, ["disk"]),
        (None, [""]),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_capacity_is_named(resources: Any, fields: list[str]) -> None:
    with pytest.raises(ResourceError) as caught:
        normalise_capacity(resources)
    assert sorted(caught.value.issues) == fields


@given(capacity_objects | anything)
def test_a_capacity_normalised_twice_is_the_same_and_nothing_else_is_raised(value: Any) -> None:
    try:
        stored = normalise_capacity(value)
    except ResourceError:
        return
    assert normalise_capacity(stored) == stored
    assert capacity_from(stored).memory_bytes == stored["memory"]


# What is free


TOTAL = Capacity(8, 100, (T4, H100, T4), None, {"licence": 3})


def test_what_is_left_out_of_fits_is_all_free() -> None:
    assert free_from({}, TOTAL) == TOTAL
    assert free_from({"cores": 2}, TOTAL) == Capacity(2, 100, TOTAL.gpus, None, TOTAL.custom)
    assert free_from({"disk": 5}, TOTAL).disk_bytes == 5
    assert free_from({"custom": {"licence": 1, "other": 9}}, TOTAL).custom == {"licence": 1}
    assert free_from({"custom": {"licence": 9}}, TOTAL).custom == {"licence": 3}


def test_a_count_of_free_gpus_is_the_largest_and_a_list_is_itself() -> None:
    assert free_from({"gpus": 2}, TOTAL).gpus == (H100, T4)
    assert free_from({"gpus": 0}, TOTAL).gpus == ()
    t4 = {"memory": "16 GiB", "compute_capability": "7.5"}
    h100 = {"memory": "80 GiB", "compute_capability": "9.0"}
    assert free_from({"gpus": [t4]}, TOTAL).gpus == (T4,)
    assert free_from({"gpus": [h100, h100, t4]}, TOTAL).gpus == (H100, T4)


def test_free_is_refused_where_a_capacity_would_be() -> None:
    with pytest.raises(ResourceError) as caught:
        free_from({"cores": -1, "gpus": [{"memory": "x"}], "ram": 1}, TOTAL)
    assert sorted(caught.value.issues) == ["cores", "gpus.0.memory", "ram"]


@given(capacity_objects | anything, capacities)
def test_free_is_never_more_than_all(value: Any, total: Capacity) -> None:
    try:
        free = free_from(value, total)
    except ResourceError:
        return
    assert free.cores <= total.cores
    assert free.memory_bytes <= total.memory_bytes
    assert total.disk_bytes is None or (free.disk_bytes or 0) <= total.disk_bytes
    assert total.disk_bytes is None or free.disk_bytes is not None
    assert free.custom.keys() == total.custom.keys()
    assert all(free.custom[name] <= total.custom[name] for name in total.custom)
    pairs = zip(sorted(free.gpus, reverse=True), sorted(total.gpus, reverse=True), strict=False)
    assert len(free.gpus) <= len(total.gpus)
    assert all(own.covers(gpu) for gpu, own in pairs)


# Grants
