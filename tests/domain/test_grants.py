"""The arithmetic of what is free, granted and given back."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from banyan.domain.resources import (
    Capacity,
    Gpu,
    Grant,
    fits,
    grant_for,
    normalise_request,
)
from tests.domain.amounts import (
    GIB,
    H100,
    T4,
    UNKNOWN,
    capacities,
    grants,
)


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
