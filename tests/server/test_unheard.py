"""What lists of attempts lack counts only when two of them lack it that are far apart."""

import pytest
from bson import ObjectId

from banyan.server import unheard
from banyan.server.unheard import Unheard

ONE, TWO = ObjectId(), ObjectId()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    moment = [1000.0]
    monkeypatch.setattr(unheard, "monotonic", lambda: moment[0])
    return moment


def test_what_is_lacked_once_may_still_be_on_its_way(clock: list[float]) -> None:
    lists = Unheard()
    assert lists.lacked([ONE], []) == set()
    clock[0] += unheard.UNHEARD_OF_SECONDS - 0.01
    assert lists.lacked([ONE, TWO], []) == set()
    clock[0] += 0.01
    assert lists.lacked([ONE, TWO], []) == {ONE}


def test_a_list_that_has_it_makes_up_for_one_that_was_late(clock: list[float]) -> None:
    lists = Unheard()
    lists.lacked([ONE], [])
    clock[0] += 5
    lists.lacked([], [ONE])
    clock[0] += 30
    assert lists.lacked([ONE], []) == set()


def test_what_was_lacked_is_not_remembered_for_ever(
    clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unheard, "_ENTRIES_MAX", 1)
    lists = Unheard()
    lists.lacked([ONE], [])
    lists.lacked([TWO], [])
    clock[0] += 30
    assert lists.lacked([ONE, TWO], []) == {TWO}
