"""Requests, capacities and grants: the stored forms, and the arithmetic between them."""

import itertools
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from banyan.domain.resources import (
    Capacity,
    Gpu,
    Grant,
    ResourceError,
    capacity_from,
    fits,
    free_from,
    grant_for,
    normalise_capacity,
    normalise_request,
    shape_key,
)

GIB = 2**30
NOTHING_ASKED = {
    "cpu_memory_bytes": 128 * 2**20,
    "cpu_cores": {"count": 1, "percent": 0},
    "gpu_count": 0,
    "gpu_memory_bytes": 0,
    "gpu_compute_capability_major": 0,
    "gpu_compute_capability_minor": 0,
    "disk_bytes": 0,
    "custom": {},
}
T4, H100, UNKNOWN = Gpu(16 * GIB, (7, 5)), Gpu(80 * GIB, (9, 0)), Gpu()

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=4,
)
sizes = st.integers(0, 2**63 - 1) | st.sampled_from(["1 GiB", "1.5 kB", "0 B", "x"])
amounts = st.integers(0, 99) | st.floats(0, 99) | st.sampled_from([0.1, 1e6, -1, math.nan])
wanted_gpu = st.fixed_dictionaries(
    {}, optional={"memory": sizes, "min_compute_capability": st.sampled_from(["7.5", 9.0, "8.10"])}
)
own_gpu = st.fixed_dictionaries(
    {},
    optional={"memory": sizes, "compute_capability": st.just("7.5"), "uuid": st.text(max_size=9)},
)
custom = st.dictionaries(st.from_regex(r"[A-Za-z0-9_-]{1,64}", fullmatch=True), amounts, max_size=3)


def objects_of(plausible: dict[str, st.SearchStrategy[Any]]) -> st.SearchStrategy[dict[str, Any]]:
    """Any of the known fields, mostly with plausible values, seldom with anything at all."""
    return st.fixed_dictionaries({}, optional=plausible) | st.fixed_dictionaries(
        {}, optional={name: values | anything for name, values in plausible.items()}
    )


request_objects = objects_of(
    {
        "memory": sizes,
        "cores": amounts,
        "gpus": st.integers(0, 9) | st.lists(wanted_gpu, max_size=3),
        "disk": sizes,
        "custom": custom,
    }
) | objects_of(
    {
        "cpu_memory_bytes": sizes,
        "cpu_cores": st.fixed_dictionaries({}, optional={"count": amounts, "percent": amounts}),
        "gpu_count": st.integers(0, 1024),
        "gpu_memory_bytes": sizes,
        "gpu_compute_capability_major": st.integers(0, 12),
        "disk_bytes": sizes,
        "custom": custom,
    }
)
capacity_objects = objects_of(
    {
        "cores": amounts,
        "memory": sizes,
        "gpus": st.integers(0, 9) | st.lists(own_gpu, max_size=3),
        "disk": sizes | st.none(),
        "custom": custom,
    }
)

# Amounts in tenths: what 0.1 + 0.2 does to floats is what these are for.
tenths = st.integers(0, 100).map(lambda n: n / 10)
gpus = st.lists(st.sampled_from([UNKNOWN, T4, H100]), max_size=6).map(tuple)
capacities = st.builds(
    Capacity,
    tenths,
    st.integers(0, 100),
    gpus,
    st.none() | st.integers(0, 100),
    st.dictionaries(st.sampled_from("ab"), tenths),
)
grants = st.builds(
    Grant,
    tenths,
    st.integers(0, 100),
    st.integers(0, 3),
    st.sampled_from([0, 16 * GIB, 80 * GIB]),
    st.sampled_from([(0, 0), (7, 5), (9, 0)]),
    st.integers(0, 100),
    st.dictionaries(st.sampled_from("ab"), tenths),
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
    assert len(one) == 16
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


@pytest.mark.parametrize(
    ("count", "percent", "has", "granted"),
    [
        (1, 0, 8, 1),
        (0, 50, 8, 4),
        (0, 50, 5, 3),
        (4, 50, 5, 4),
        (0, 16.1, 1000, 161),  # in floats a little more than 161
        (0, 100, 2.5, 2.5),
        (0.5, 0, 8, 0.5),
        (9, 10, 8, 9),
        (0, 0, 8, 0),
    ],
)
def test_percent_is_of_the_whole_worker_rounded_up(
    count: float, percent: float, has: float, granted: float
) -> None:
    request = normalise_request({"cpu_cores": {"count": count, "percent": percent}})
    assert grant_for(request, Capacity(has, 0)).cores == granted


@pytest.mark.parametrize(
    "lacking",
    [
        Capacity(1, 10, (T4,), 10, {"a": 1}),
        Capacity(2, 9, (T4,), 10, {"a": 1}),
        Capacity(2, 10, (UNKNOWN,), 10, {"a": 1}),
        Capacity(2, 10, (Gpu(16 * GIB, (7, 4)),), 10, {"a": 1}),
        Capacity(2, 10, (Gpu(15 * GIB, (9, 0)),), 10, {"a": 1}),
        Capacity(2, 10, (), 10, {"a": 1}),
        Capacity(2, 10, (T4,), 9, {"a": 1}),
        Capacity(2, 10, (T4,), 10, {"a": 0.5}),
        Capacity(2, 10, (T4,), 10, {}),
    ],
)
def test_every_single_thing_can_be_lacking(lacking: Capacity) -> None:
    grant = Grant(2, 10, 1, 16 * GIB, (7, 5), 10, {"a": 1})
    assert fits(grant, Capacity(2, 10, (T4,), 10, {"a": 1}))
    assert fits(grant, Capacity(2, 10, (H100,), None, {"a": 1, "b": 1}))
    assert not fits(grant, lacking)


def test_the_least_gpu_that_will_do_is_taken() -> None:
    worker = Capacity(0, 0, (H100, UNKNOWN, T4))
    assert sorted(worker.minus(Grant(gpu_count=1)).gpus) == [T4, H100]
    assert sorted(worker.minus(Grant(gpu_count=1, gpu_memory_bytes=1)).gpus) == [UNKNOWN, H100]
    assert sorted(worker.minus(Grant(gpu_count=1, gpu_capability=(8, 0))).gpus) == [UNKNOWN, T4]


def test_a_worker_that_shrank_has_nothing_left_rather_than_less() -> None:
    grant = Grant(9, 9, 2, 99 * GIB, (0, 0), 9, {"a": 9})
    assert Capacity(1, 1, (T4, H100), 1, {"a": 1}).minus(grant) == Capacity(0, 0, (), 0, {"a": 0})


def test_a_tenth_taken_ten_times_leaves_nothing() -> None:
    worker, tenth = Capacity(1, 0, custom={"a": 1}), Grant(0.1, custom={"a": 0.1})
    for _ in range(10):
        assert fits(tenth, worker)
        worker = worker.minus(tenth)
    assert worker == Capacity(0, 0, custom={"a": 0})
    assert not fits(tenth, worker)


@given(capacities, grants, grants)
def test_taking_away_one_by_one_is_taking_away_the_sum(
    worker: Capacity, one: Grant, other: Grant
) -> None:
    apart, together = worker.minus(one).minus(other), worker.minus(one.plus(other))
    assert (apart.cores, apart.memory_bytes, apart.disk_bytes, apart.custom) == (
        together.cores,
        together.memory_bytes,
        together.disk_bytes,
        together.custom,
    )
    assert len(apart.gpus) == len(together.gpus)


@given(capacities, grants)
def test_what_fits_and_is_taken_away_is_the_difference(worker: Capacity, grant: Grant) -> None:
    left = worker.minus(grant)
    if fits(grant, worker):
        assert left.cores + grant.cores == pytest.approx(worker.cores)
        assert left.memory_bytes + grant.memory_bytes == worker.memory_bytes
        assert len(left.gpus) + grant.gpu_count == len(worker.gpus)
        assert fits(Grant(left.cores, left.memory_bytes, custom=left.custom), left)
    assert not set(left.gpus) - set(worker.gpus)


@given(st.lists(st.sampled_from([UNKNOWN, T4, H100]), max_size=4), grants, grants)
def test_gpus_are_found_wherever_there_is_a_way(have: list[Gpu], one: Grant, other: Grant) -> None:
    """The least first is as good as trying every way, in the one order and this kind of GPU."""
    worker = Capacity(99, 999, tuple(have), None, {"a": 99, "b": 99})
    wants = [Gpu(g.gpu_memory_bytes, g.gpu_capability) for g in (one, other)]
    counts = [one.gpu_count, other.gpu_count]
    possible = any(
        all(gpu.covers(wants[0]) for gpu in order[: counts[0]])
        and all(gpu.covers(wants[1]) for gpu in order[counts[0] : sum(counts)])
        for order in itertools.permutations(have)
        if len(have) >= sum(counts)
    )
    assert (fits(one, worker) and fits(other, worker.minus(one))) == possible


@given(grants)
def test_a_grant_written_and_read_is_the_same(grant: Grant) -> None:
    document = grant.to_json()
    assert {"cores", "memory_bytes", "gpu_count", "disk_bytes", "custom"} <= document.keys()
    again = Grant.from_json(document)
    assert again == grant or (grant.gpu_count == 0 and again.to_json() == document)


def test_grants_add_up_and_of_gpus_the_larger_demand_counts() -> None:
    one = Grant(0.1, 1, 1, 16, (9, 0), 5, {"a": 0.1})
    other = Grant(0.2, 2, 2, 80, (7, 5), 6, {"a": 0.2, "b": 1})
    expected = Grant(0.3, 3, 3, 80, (9, 0), 11, {"a": 0.3, "b": 1})
    assert one.plus(other) == other.plus(one) == expected


def test_a_grant_without_gpus_says_nothing_of_them() -> None:
    assert Grant(1, 2).to_json() == {
        "cores": 1,
        "memory_bytes": 2,
        "gpu_count": 0,
        "disk_bytes": 0,
        "custom": {},
    }
