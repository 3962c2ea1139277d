"""What statistics cost the database: counts read no task, and what was over time an index range.

It grows with the kinds of task that there are, never with the tasks.
"""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.server.test_queries_use_indexes import Bench, _values, stages

Item = dict[str, Any]


@pytest.fixture(scope="module")
def bench(module_database: str) -> Iterator[Bench]:
    made = Bench(module_database)
    made.submit(1000)
    made.submit(1000, queue="other")
    worker = made.worker()
    made.end(made.claim(worker, 700, queues=["default", "other"]))
    made.claim(worker, 100, queues=["default", "other"])
    yield made
    made.store.close()


def _asked(
    bench: Bench, role: str, path: str = "/tasks/statistics", **arguments: str
) -> list[Item]:
    commands = bench.during(lambda: bench.ask(role, "GET", path, **arguments))
    asked = [one for one in commands if next(iter(one)) in ("find", "aggregate")]
    return [one for one in asked if one.get("find") != "tokens"]  # who asks is remembered a while


def _of(commands: list[Item], collection: str) -> list[Item]:
    return [one for one in commands if one[next(iter(one))] == collection]


@pytest.mark.parametrize("role", ["operator", "provider"])
@pytest.mark.parametrize(
    "arguments", [{}, {"by": "state"}, {"where": '{"queue":"default","outcome":"success"}'}]
)
def test_tasks_are_counted_without_a_look_at_one(
    bench: Bench, role: str, arguments: dict[str, str]
):
    asked = _of(_asked(bench, role, **arguments), "tasks")
    assert {next(iter(one)) for one in asked} == {"find", "aggregate"}
    for command in asked:
        (plan,) = bench.plans(command)
        assert _values(plan, "indexName") == {"kinds"}
        assert "FETCH" not in stages(plan)
        assert "COUNT_SCAN" in stages(plan) or "find" in command


@pytest.mark.parametrize("role", ["operator", "provider"])
def test_what_was_over_time_is_found_by_an_index(bench: Bench, role: str):
    asked = _asked(bench, role, window="24 hours")
    assert {"tallies", "attempts"} <= {one[next(iter(one))] for one in asked}
    for command in asked:
        for plan in bench.plans(command):
            assert not stages(plan) & {"COLLSCAN", "SORT"}, command


@pytest.mark.parametrize("role", ["operator", "provider"])
def test_what_was_used_takes_as_many_commands_whatever_there_is(bench: Bench, role: str):
    asked = _asked(bench, role, "/tasks/usage")
    assert {one[next(iter(one))] for one in asked} <= {"accounts", "tallies", "attempts"}
    assert len(asked) <= 5
    for command in (one for one in asked if one[next(iter(one))] != "accounts"):
        for plan in bench.plans(command):
            assert "COLLSCAN" not in stages(plan), command
    bench.submit(500)
    assert len(_asked(bench, role, "/tasks/usage")) == len(asked)


def test_more_tasks_of_the_same_kinds_cost_no_more_commands(bench: Bench):
    before = _asked(bench, "operator", window="24 hours")
    bench.submit(1000)
    assert len(_asked(bench, "operator", window="24 hours")) == len(before)
