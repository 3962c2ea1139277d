"""Waiting for ends without getting in their way: asked seldom far from the end, often near it."""

import time
from collections.abc import Callable

_SHORTEST_SECONDS = 0.005
_LONGEST_SECONDS = 1.0
_SILENCE_SECONDS = 120.0


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


def until_true(ready: Callable[[], object], seconds: float = 60.0) -> None:
    """Wait until `ready()` is true; an exception of it means not yet.

    Errors: TimeoutError.
    """
    deadline = time.monotonic() + seconds
    while True:
        try:
            if ready():
                return
        except Exception as error:
            if time.monotonic() > deadline:
                raise TimeoutError("it does not come up") from error
        if time.monotonic() > deadline:
            raise TimeoutError("it does not come up")
        time.sleep(0.02)
