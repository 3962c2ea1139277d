"""Who is chosen: order, what fits together, and the large task that must not wait for ever."""

from hypothesis import given
from hypothesis import strategies as st

from banyan.domain.resources import Capacity, Gpu, fits, grant_for, normalise_request
from banyan.domain.scheduling import Candidate, choose, order_key

NEVER = 10**9
SMALL_GPU, LARGE_GPU = Gpu(8, (7, 5)), Gpu(80, (9, 0))

requests = st.builds(
    lambda cores, percent, memory, gpus, gpu_memory, disk, licences: normalise_request(
        {
            "cpu_cores": {"count": cores, "percent": percent},
            "memory": memory,
            "gpus": [{"memory": gpu_memory}] * gpus,
            "disk": disk,
            "custom": {"licence": licences},
        }
    ),
    st.sampled_from([0, 0.1, 0.5, 1, 2, 8, 64]),
    st.sampled_from([0, 0, 0, 25, 100]),
    st.integers(0, 10),
    st.integers(0, 3),
    st.sampled_from([0, 8, 80]),
    st.integers(0, 10),
    st.integers(0, 2),
)
candidates = st.lists(
    st.builds(
        Candidate,
        st.uuids().map(str),
        requests,
        st.integers(-2, 2),
        st.integers(0, 1000),
        st.integers(0, 100),
    ),
    max_size=12,
)
capacities = st.builds(
    Capacity,
    st.sampled_from([0, 1, 2.5, 4, 8]),
    st.integers(0, 20),
    st.lists(st.sampled_from([SMALL_GPU, LARGE_GPU]), max_size=4).map(tuple),
    st.none() | st.integers(0, 20),
    st.just({}) | st.fixed_dictionaries({"licence": st.integers(0, 3)}),
)


def task(name: str, cores: float, seq: int, *, priority: int = 0, waiting: int = 0) -> Candidate:
    return Candidate(name, normalise_request({"cores": cores, "memory": 0}), priority, seq, waiting)


def names(
    waiting: list[Candidate], free: Capacity, total: Capacity, count: int = 100, limit: int = NEVER
) -> list[str]:
    return [chosen.task_id for chosen, _ in choose(waiting, free, total, count, limit)]


def test_priority_then_age() -> None:
    waiting = [task("new", 1, 3), task("old", 1, 1), task("urgent", 1, 9, priority=10)]
    machine = Capacity(2, 0)
    assert names(waiting, machine, machine) == ["urgent", "old"]


def test_what_does_not_fit_is_passed_over() -> None:
    waiting = [task("large", 3, 1), task("small", 1, 2), task("also small", 1, 3)]
    assert names(waiting, Capacity(2, 0), Capacity(4, 0)) == ["small", "also small"]


def test_a_large_task_that_has_waited_long_holds_back_what_comes_after_it() -> None:
    waiting = [task("first", 1, 0), task("large", 3, 1, waiting=30), task("small", 1, 2)]
    assert names(waiting, Capacity(2, 0), Capacity(4, 0), limit=31) == ["first", "small"]
    assert names(waiting, Capacity(2, 0), Capacity(4, 0), limit=30) == ["first"]


def test_a_task_too_large_for_the_empty_machine_holds_nobody_back() -> None:
    waiting = [task("too large", 5, 1, waiting=NEVER), task("small", 1, 2)]
    assert names(waiting, Capacity(2, 0), Capacity(4, 0), limit=0) == ["small"]


def test_no_more_than_asked_for() -> None:
    waiting = [task(str(seq), 1, seq) for seq in range(9)]
    machine = Capacity(9, 0)
    assert names(waiting, machine, machine, count=3) == ["0", "1", "2"]
    assert names(waiting, machine, machine, count=0) == []


def test_the_grant_is_for_the_whole_machine_and_not_for_what_is_free() -> None:
    half = Candidate("half", normalise_request({"cpu_cores": {"percent": 50}}), 0, 0, 0)
    machine = Capacity(8, 2**40)
    assert choose([half], Capacity(3, 2**40), machine, 1, NEVER) == []
    [(_, grant)] = choose([half], Capacity(4, 2**40), machine, 1, NEVER)
    assert grant.cores == 4


@given(candidates, capacities, st.integers(0, 12), st.integers(0, 100))
def test_what_is_chosen_is_there(
    waiting: list[Candidate], free: Capacity, count: int, limit: int
) -> None:
    chosen = choose(waiting, free, free, count, limit)
    grants = [grant for _, grant in chosen]
    assert len(chosen) <= count
    assert sum(grant.cores for grant in grants) <= free.cores + 1e-6
    assert sum(grant.memory_bytes for grant in grants) <= free.memory_bytes
    assert sum(grant.disk_bytes for grant in grants) <= (
        NEVER if free.disk_bytes is None else free.disk_bytes
    )
    assert sum(g.custom["licence"] for g in grants) <= free.custom.get("licence", 0)
    assert sum(grant.gpu_count for grant in grants) <= len(free.gpus)
    large = sum(grant.gpu_count for grant in grants if grant.gpu_memory_bytes > 8)
    assert large <= free.gpus.count(LARGE_GPU)
    assert [c for c, _ in chosen] == sorted((c for c, _ in chosen), key=order_key)
    assert all(grant == grant_for(c.request, free) for c, grant in chosen)


@given(candidates, capacities)
def test_only_what_does_not_fit_is_passed_over(waiting: list[Candidate], free: Capacity) -> None:
    chosen = choose(waiting, free, free, len(waiting), NEVER)
    left = free
    for _, grant in chosen:
        left = left.minus(grant)
    ids = {c.task_id for c, _ in chosen}
    for candidate in waiting:
        if candidate.task_id not in ids:
            assert not fits(grant_for(candidate.request, free), left)


@given(candidates, requests, capacities)
def test_among_equals_the_first_are_chosen(
    waiting: list[Candidate], request: dict[str, object], free: Capacity
) -> None:
    equal = [Candidate(c.task_id, request, c.priority, c.seq, 0) for c in waiting]
    chosen = [c for c, _ in choose(equal, free, free, 100, NEVER)]
    assert chosen == sorted(equal, key=order_key)[: len(chosen)]


@given(candidates, capacities, capacities, st.integers(0, 100))
def test_starvation_only_ever_shortens_the_choice(
    waiting: list[Candidate], free: Capacity, total: Capacity, limit: int
) -> None:
    without = choose(waiting, free, total, 100, NEVER)
    held_back = choose(waiting, free, total, 100, limit)
    assert held_back == without[: len(held_back)]
    if len(held_back) < len(without):
        first_denied, _ = without[len(held_back)]
        ids = {c.task_id for c, _ in without}
        starving = [
            c
            for c in waiting
            if order_key(c) < order_key(first_denied)
            and c.task_id not in ids
            and c.waiting_milliseconds >= limit
            and fits(grant_for(c.request, total), total)
        ]
        assert starving


def test_ahead_comes_after_what_fits_and_only_what_the_empty_worker_could_take() -> None:
    small, large = normalise_request({"cores": 1}), normalise_request({"cores": 9})
    waiting = [Candidate(str(n), large if n == 2 else small, 0, n, 0) for n in range(6)]
    total = Capacity(2, 2**40)
    chosen = choose(waiting, total, total, 8, 10**9, ahead_count=2)
    assert [candidate.task_id for candidate, _ in chosen] == ["0", "1", "3", "4"]


def test_nothing_is_taken_ahead_of_a_task_that_starves() -> None:
    small, large = normalise_request({"cores": 1}), normalise_request({"cores": 2})
    waiting = [Candidate("large", large, 0, 0, 60_000), Candidate("small", small, 0, 1, 0)]
    busy, total = Capacity(1, 2**40), Capacity(2, 2**40)
    assert choose(waiting, busy, total, 8, 30_000, ahead_count=8) == []
