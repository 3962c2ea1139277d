"""The ids that clients make: new, in the order of their seconds, and not to be guessed."""

import time
from collections.abc import Callable

import pytest
from bson import ObjectId

from banyan.client.ids import new_id, since
from banyan.server.store.mongo import unforeseen_id


def test_they_are_ids_of_this_moment() -> None:
    before = int(time.time())
    made = ObjectId(new_id()).generation_time.timestamp()
    assert before <= made <= time.time()


@pytest.mark.parametrize("made", [new_id, lambda: str(unforeseen_id())])
def test_one_tells_nothing_about_the_next(made: Callable[[], str]) -> None:
    """But for the time nothing stays, and nothing counts up: else strangers take them first."""
    rests = [made()[14:] for _ in range(1000)]
    assert len(set(rests)) == len(rests)
    assert rests != sorted(rests)
    for place in range(10):
        assert len({rest[place] for rest in rests}) == 16


@pytest.mark.parametrize("made", [new_id, lambda: str(unforeseen_id())])
def test_they_sort_in_the_order_in_which_they_were_made(made: Callable[[], str]) -> None:
    times = [made()[:14] for _ in range(1000)]
    assert times == sorted(times)


def test_since_is_before_all_that_come() -> None:
    first = new_id()
    assert all(since(first) <= new_id() for _ in range(1000))
    assert since(first) <= first
