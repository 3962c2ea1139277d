"""Tallies as numbers: bins and their error, adding up, and windows of time."""

import math
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from banyan.domain.tallies import (
    WIDTHS,
    Window,
    add,
    bin_of,
    bins,
    end_of,
    in_buckets,
    in_use,
    rebased,
    times,
    words,
)

BEGIN = datetime(2026, 11, 22, 10, tzinfo=UTC)
DURATIONS = st.lists(st.integers(0, 10**10), min_size=1, max_size=60)


def tally_of(durations: list[int]) -> dict[str, float]:
    tally: dict[str, float] = {}
    for one in durations:
        add(tally, {f"run/success/{bin_of(one)}": 1, "run/success/sum": one, "run/max": one})
    return tally


@given(DURATIONS)
def test_a_percentile_is_wrong_by_less_than_five_percent(durations: list[int]):
    told = times(tally_of(durations), "run")
    ranked = sorted(durations)
    assert told is not None
    assert told["count"] == len(ranked)
    assert told["max"] == ranked[-1]
    assert told["mean"] == pytest.approx(sum(ranked) / len(ranked), abs=1e-3)
    for percent in (50, 90, 99):
        exact = ranked[math.ceil(len(ranked) * percent / 100) - 1]
        assert abs(told[f"p{percent}"] - exact) <= max(1, 0.05 * exact)


@given(st.integers(0, 10**12))
def test_a_duration_lies_in_its_bin(milliseconds: int):
    number = bin_of(milliseconds)
    assert max(1, milliseconds) <= end_of(number) * (1 + 1e-9)
    assert number == 0 or milliseconds > end_of(number - 1) * (1 - 1e-9)


def test_powers_of_ten_end_a_bin():
    """So that a metric's bounds can be round."""
    for power in range(1, 10):
        assert bin_of(10**power) == 24 * power
        assert bin_of(10**power + 1) == 24 * power + 1


@given(DURATIONS, DURATIONS)
def test_tallies_that_are_added_are_the_tally_of_both(first: list[int], second: list[int]):
    assert add(tally_of(first), tally_of(second)) == tally_of(first + second)


def test_a_tally_of_nothing_has_no_times():
    assert times({}, "run") is None
    assert times({"ended/lost": 3}, "wait") is None
    assert words({"ended/lost": 3, "ended/success": 0}) == {"lost": 3}


def test_kinds_of_histogram_are_kept_apart():
    tally = {"run/success/24": 2, "run/oom/24": 1, "run/oom/sum": 9, "wait/24": 7, "run/max": 9}
    assert bins(tally, "run") == {24: 3}
    assert bins(tally, "run/oom") == {24: 1}
    assert bins(tally, "wait") == {24: 7}


@given(
    st.datetimes(datetime(1971, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC)),
    st.timedeltas(timedelta(milliseconds=1), timedelta(days=9999)),
    st.integers(1, 1000),
    st.sampled_from(WIDTHS),
)
def test_a_window_is_what_was_asked_for_in_round_buckets(
    begin: datetime, length: timedelta, buckets: int, finest: int
):
    end = begin + length
    window = Window(begin, end, buckets, finest)
    width = timedelta(seconds=window.seconds)
    assert window.seconds % finest == 0
    assert window.seconds % window.width == 0
    assert window.start <= begin < window.start + width
    assert window.end - width < end <= window.end
    assert window.count <= buckets + 1
    assert window.start.timestamp() % window.seconds == 0


def test_what_was_in_use_follows_from_when_it_began_and_ceased():
    """3 cores from 10:05 to 10:25; 1 core from 10:30 on, and it is 10:45 now."""
    window = Window(BEGIN, BEGIN + timedelta(hours=1), 6, 60)
    assert window.seconds == 600
    series = [
        (BEGIN + timedelta(minutes=5), {"cores/delta": 3.0}),
        (BEGIN + timedelta(minutes=20), {"cores/delta": -3.0, "cores/moment": -3 * 300.0}),
        (BEGIN + timedelta(minutes=30), {"cores/delta": 1.0}),
    ]
    buckets = in_buckets(window, series)
    told = in_use(window, buckets, {"cores": 1}, BEGIN + timedelta(minutes=45))
    assert [one["cores"] for one in told] == [1.5, 3.0, 1.5, 1.0, 1.0, 0.0]


def test_what_ends_after_the_window_was_in_use_within_it():
    window = Window(BEGIN, BEGIN + timedelta(hours=1), 1, 60)
    series = [(BEGIN + timedelta(hours=5), {"cores/delta": -2.0})]
    told = in_use(window, in_buckets(window, series), {}, BEGIN + timedelta(hours=6))
    assert told == [{"cores": 2.0, "memory_bytes": 0.0, "gpu_count": 0.0}]


def test_a_tally_may_be_seen_as_one_that_began_earlier():
    tally = {"cores/delta": 2.0, "cores/moment": 10.0, "ended/success": 1}
    assert rebased(tally, 60) == {**tally, "cores/moment": 130.0}
