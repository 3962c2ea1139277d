"""How often, and how long from now, a task is tried again.

The lifecycle asks when an attempt failed or was lost. A failure is the task's own and is paid from
`max_attempt_count`; a loss is the worker's and is counted apart.
"""

DELAY_MILLISECONDS_MAX = 7 * 86_400_000


def retry_delay_milliseconds(base: int, backoff: float, failure_count: int) -> int:
    """The wait before the next attempt: `base` after the first failure, then times `backoff`.

    At most seven days, also where the power is too large for a float.
    """
    if base <= 0:
        return 0
    try:
        delay = base * backoff ** (failure_count - 1)
    except OverflowError:
        return DELAY_MILLISECONDS_MAX
    return max(0, round(delay)) if delay < DELAY_MILLISECONDS_MAX else DELAY_MILLISECONDS_MAX


def may_retry(failure_count: int, max_attempt_count: int) -> bool:
    """After `failure_count` failed attempts, the latest included."""
    return failure_count < max_attempt_count


def is_lost_for_good(lost_count: int, max_lost_count: int) -> bool:
    """After `lost_count` attempts lost with their worker, the latest included."""
    return lost_count > max_lost_count
