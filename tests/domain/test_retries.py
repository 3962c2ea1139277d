"""Retries: how long the wait is, and when there is no more."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from banyan.domain.retries import (
    DELAY_MILLISECONDS_MAX,
    is_lost_for_good,
    may_retry,
    retry_delay_milliseconds,
)


@pytest.mark.parametrize(
    ("base", "backoff", "failure_count", "delay"),
    [
        (1000, 2.0, 1, 1000),
        (1000, 2.0, 3, 4000),
        (1000, 1.0, 9, 1000),
        (1000, 1.5, 2, 1500),
        (1000, 0.5, 2, 500),
        (0, 2.0, 5, 0),
        (0, 2.0, 10_000, 0),
        (1, 2.0, 30, 536_870_912),
        (1, 2.0, 31, 604_800_000),
        (1000, 2.0, 10_000, DELAY_MILLISECONDS_MAX),
        (10**400, 2.0, 2, DELAY_MILLISECONDS_MAX),
        (1000, float("inf"), 2, DELAY_MILLISECONDS_MAX),
        (1000, float("nan"), 2, DELAY_MILLISECONDS_MAX),
        (1000, -2.0, 2, 0),
    ],
)
def test_the_delay(base: int, backoff: float, failure_count: int, delay: int) -> None:
    assert retry_delay_milliseconds(base, backoff, failure_count) == delay


@given(st.integers(0, 2**63 - 1), st.floats(1, 1e300), st.integers(1, 2**31))
def test_the_delay_never_shrinks_and_never_passes_a_week(
    base: int, backoff: float, failure_count: int
) -> None:
    now = retry_delay_milliseconds(base, backoff, failure_count)
    then = retry_delay_milliseconds(base, backoff, failure_count + 1)
    assert 0 <= now <= then <= DELAY_MILLISECONDS_MAX


def test_the_last_attempt_is_not_tried_again() -> None:
    assert [may_retry(failures, 3) for failures in (1, 2, 3, 4)] == [True, True, False, False]
    assert not may_retry(1, 1)


def test_losses_end_a_task_only_past_their_limit() -> None:
    assert [is_lost_for_good(lost, 3) for lost in (1, 2, 3, 4)] == [False, False, False, True]
    assert is_lost_for_good(1, 0)
