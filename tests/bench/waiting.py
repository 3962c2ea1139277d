"""How many tasks of a stack have ended, and waiting for more of them."""

from functools import partial

from tests.bench.stack import Stack
from tests.bench.until import until


def ended(up: Stack) -> int:
    """How many tasks have succeeded or failed so far."""
    counted = up.provider.get("tasks/statistics", by="state")
    return int(counted["by_state"].get("terminated", 0))


def until_ended(up: Stack, count: int) -> int:
    """Wait until so many tasks have ended in all; how many they are."""
    return until(partial(ended, up), count)
