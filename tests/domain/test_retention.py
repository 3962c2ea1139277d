"""How long an ended task is kept."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from banyan.domain.retention import (
    FOREVER,
    Output,
    Rules,
    forget_after,
    is_over,
    kept,
    neighbours,
    parse_queues,
    parse_retain,
    surplus,
)

NOW = datetime(2026, 11, 22, tzinfo=UTC)
DAY = 86_400_000
MARK_OF_A_DAY = DAY - DAY % 2**19
RULES = Rules(30 * DAY, {"scratch": DAY, "archive": FOREVER})


def task(**fields: object) -> dict[str, object]:
    ended = {"state": "terminated", "unsettled": False, "queue": "default", "_updated": NOW}
    return {**ended, "retain": None, **fields}


@pytest.mark.parametrize(
    ("text", "time"),
    [("forever", FOREVER), ("30 days", 30 * DAY), (0, 0), (1500, 1500), ("PT1H", DAY // 24)],
)
def test_a_time_is_read(text: object, time: object):
    assert parse_retain(text) == time


@pytest.mark.parametrize("text", ["", "never", -1, 1.5, True, None, [], "Forever", 2**60])
def test_what_is_no_time_is_refused(text: object):
    with pytest.raises(ValueError, match="forever"):
        parse_retain(text)


def test_times_of_single_queues_are_read():
    text = " scratch = 1 day,archive=forever,"
    assert parse_queues(text) == {"scratch": DAY, "archive": FOREVER}
    assert parse_queues("") == {}


@pytest.mark.parametrize("text", ["scratch", "=1 day", "scratch=soon", "a=1 day b=2 days"])
def test_times_of_queues_that_are_none_are_refused(text: str):
    with pytest.raises(ValueError, match="forever"):
        parse_queues(text)


@pytest.mark.parametrize(
    ("fields", "time", "mark"),
    [
        ({}, 30 * DAY, None),
        ({"queue": "scratch"}, DAY, MARK_OF_A_DAY),
        ({"queue": "archive"}, FOREVER, None),
        ({"queue": "archive", "retain": 5}, 5, 5),
        ({"queue": "scratch", "retain": FOREVER}, FOREVER, None),
        ({"retain": 0}, 0, 0),
    ],
)
def test_a_task_goes_by_its_own_time_then_its_queues(fields: dict, time: object, mark: object):
    assert kept(task(**fields), RULES) == time
    assert forget_after(task(**fields), RULES) == mark


@given(st.integers(0, 2**53))
def test_a_mark_is_a_little_less_than_the_time(time: int):
    mark = forget_after(task(retain=time), RULES)
    assert mark is not None
    assert time - time / 100 <= mark <= time


def test_it_is_over_once_the_time_has_passed_since_the_last_change():
    at = timedelta(days=30)
    assert is_over(task(_updated=NOW - at), RULES, NOW)
    assert not is_over(task(_updated=NOW - at + timedelta(seconds=1)), RULES, NOW)
    assert not is_over(task(_updated=NOW - 1000 * at, retain=FOREVER), RULES, NOW)


@pytest.mark.parametrize("state", ["inactive", "available", "running", "pending_cancellation"])
def test_what_has_not_ended_is_never_over(state: str):
    assert not is_over(task(state=state, retain=0), RULES, NOW)


def test_what_is_not_settled_is_not_over():
    assert is_over(task(state="cancelled", retain=0), RULES, NOW)
    assert not is_over(task(state="cancelled", retain=0, unsettled=True), RULES, NOW)


def test_its_neighbours_are_all_that_its_lists_name():
    lists = {"continuations": [1], "failure_continuations": [2], "final_continuations": [3]}
    parents = {"after": [4], "after_failure": [5], "after_any": [6, 1]}
    assert neighbours({**lists, **parents}) == {1, 2, 3, 4, 5, 6}


def test_who_has_less_than_an_equal_share_loses_nothing():
    owners = {"flood": Output(900, 900), "a": Output(60, 60), "b": Output(40, 40)}
    assert surplus(owners, 500) == {"flood": 500}
    assert surplus(owners, 850) == {"flood": 845, "a": 5}
    assert surplus(owners, 5000) == {"flood": 900, "a": 60, "b": 40}
    assert surplus({}, 5) == {}


def test_what_may_not_go_counts_for_its_owner_and_stays():
    owners = {"running": Output(900, 100), "a": Output(60, 60), "b": Output(40, 40)}
    assert surplus(owners, 100) == {"running": 100}
    assert surplus(owners, 120) == {"running": 100, "a": 20}


@given(
    sizes=st.dictionaries(
        st.text(max_size=2), st.tuples(st.integers(0, 2**40), st.integers(0, 2**40)), max_size=6
    ),
    excess=st.integers(1, 2**42),
)
def test_as_much_goes_as_has_to_and_from_the_fullest(
    sizes: dict[str, tuple[int, int]], excess: int
):
    owners = {name: Output(max(pair), min(pair)) for name, pair in sizes.items()}
    going = surplus(owners, excess)
    gone = sum(going.values())
    assert all(0 < size <= owners[name].removable for name, size in going.items())
    assert gone >= min(excess, sum(one.removable for one in owners.values()))
    assert gone < excess + len(owners) + 1
    for name, size in going.items():  # nobody has less afterwards than who could have given more
        for other, one in owners.items():
            spare = one.removable - going.get(other, 0)
            assert not spare or owners[name].total - size >= one.total - going.get(other, 0) - 1
