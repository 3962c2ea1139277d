"""Waiting for ends without getting in their way: asked seldom far from the end, often near it."""

import time
from collections.abc import Callable
from functools import partial

from tests.bench.stack import Stack

_SHORTEST_SECONDS = 0.005
_LONGEST_SECONDS = 1.0
_SILENCE_SECONDS = 120.0


def ended(up: Stack) -> int:
    """How many tasks have succeeded or failed so far."""
    counted = up.provider.get("tasks/statistics", by="state")
    return int(counted["by_state"].get("terminated", 0))


def until_ended(up: Stack, count: int) -> int:
    """Wait until so many tasks have ended in all; how many they are."""
    return until(partial(ended, up), count)


def until(done: Callable[[], int], count: int) -> int:
    """Wait until `done()` says so many, at a third of the time that is left by the rate so far.

    Errors: TimeoutError where it says the same for two minutes.
    """
    begin = progress = time.monotonic()
    first = now = done()
    while now < count:
        time.sleep(_pause(time.monotonic() - begin, now - first, count - now))
        before, now = now, done()
        progress = time.monotonic() if now > before else progress
        if time.monotonic() - progress > _SILENCE_SECONDS:
            raise TimeoutError(f"{now} of {count} have ended, and no more")
    return now


def _pause(seconds: float, moved: int, left: int) -> float:
    if not moved:
        return _SHORTEST_SECONDS
    return min(max(seconds / moved * left / 3, _SHORTEST_SECONDS), _LONGEST_SECONDS)
