"""Claims of one process look past what its other claims are about to write, and not for longer."""

from time import monotonic

import pytest
from bson import ObjectId

from banyan.server import picked
from banyan.server.picked import Picked


@pytest.fixture
def tasks() -> list[ObjectId]:
    return [ObjectId() for _ in range(3)]


def pick(made: Picked, tasks: list[ObjectId]) -> None:
    with made.choosing():
        made.pick(tasks)


def test_what_is_picked_is_gone_until_its_claim_is_over(tasks: list[ObjectId]):
    made = Picked()
    pick(made, tasks[:2])
    assert [made.is_gone(one, monotonic()) for one in tasks] == [True, True, False]
    made.put_back(tasks[:2])
    assert not any(made.is_gone(one, monotonic() + 0.001) for one in tasks)


def test_who_has_looked_before_that_was_over_has_seen_it_as_it_was(tasks: list[ObjectId]):
    made = Picked()
    looked = monotonic()
    pick(made, tasks)
    made.put_back(tasks)
    assert all(made.is_gone(one, looked) for one in tasks)


def test_only_what_is_in_work_counts(tasks: list[ObjectId]):
    """So much further must another claim look."""
    made = Picked()
    pick(made, tasks)
    assert len(made) == 3
    made.put_back(tasks[1:])
    assert len(made) == 1
    made.put_back(tasks[:1])
    assert len(made) == 0


def test_what_was_put_back_is_forgotten(tasks: list[ObjectId], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(picked, "_LOOK_SECONDS_MAX", -1.0)
    made = Picked()
    pick(made, tasks)
    made.put_back(tasks)
    assert not any(made.is_gone(one, 0.0) for one in tasks)


def test_a_claim_that_never_ends_hides_nothing_for_ever(
    tasks: list[ObjectId], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(picked, "_CLAIM_SECONDS_MAX", -1.0)
    made = Picked()
    pick(made, tasks[:2])
    assert not any(made.is_gone(one, monotonic()) for one in tasks)
    made.put_back(tasks[2:])
    assert len(made) == 0
