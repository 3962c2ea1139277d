"""Waiting for an event with a deadline: the only place in the tests that sleeps."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def eventually(probe: Callable[[], T], seconds: float = 30.0, every_seconds: float = 0.02) -> T:
    """The first truthy answer of `probe`; fails when none came within `seconds`.

    An AssertionError of the probe counts as "not yet", and is what the failure shows.
    """
    deadline = time.monotonic() + seconds
    last: AssertionError | None = None
    answer: T | None = None
    while True:
        try:
            answer, last = probe(), None
            if answer:
                return answer
        except AssertionError as error:
            last = error
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s; last answer: {answer!r}") from last
        time.sleep(every_seconds)
