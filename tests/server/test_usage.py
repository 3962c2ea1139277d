"""What `/tasks/usage` tells of each account, against the same worked out plainly, from attempts."""

import random
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest

from tests.server.worlds import END, LATER, NOW, WINDOW, Item, World, seconds_in_use

HOUR = timedelta(hours=1)


def _check(told: Item, attempts: Sequence[Item], begin: datetime, end: datetime) -> None:
    inside = [
        one for one in attempts if one["time_terminated"] and begin <= one["time_terminated"] < end
    ]
    assert told["ended"] == dict(Counter(one["exit_status"].split()[0] for one in inside))
    assert told["attempts"] == len(inside)
    assert told["failed"] == sum(
        one["exit_status"] not in ("success", "cancelled") for one in inside
    )
    assert told["cpu_seconds"] == pytest.approx(sum(one["cpu_seconds"] for one in inside))
    for name, resource in (
        ("core_seconds", "cores"),
        ("memory_byte_seconds", "memory_bytes"),
        ("gpu_seconds", "gpu_count"),
    ):
        assert told[name] == pytest.approx(seconds_in_use(attempts, begin, end, resource), rel=1e-4)


@pytest.mark.parametrize("tallied", ["nothing", "a part", "all"])
def test_it_is_what_the_attempts_of_each_come_to(world: World, tallied: str):
    world.fill(random.Random(tallied), 600)
    if tallied != "nothing":
        world.tally(NOW - 2 * HOUR if tallied == "a part" else LATER)
    told = world.ask("operator", "/tasks/usage", **WINDOW)
    begin, end = (datetime.fromisoformat(told["window"][name]) for name in ("from", "to"))
    assert end - END < timedelta(minutes=2)
    assert {one["owner"] for one in told["_items"]} == {"alice", "bob"}
    for one in told["_items"]:
        own = [each for each in world.attempts if each["owner"] == one["owner"]]
        _check(one, own, begin, end)
    most = [one["core_seconds"] for one in told["_items"]]
    assert most == sorted(most, reverse=True)


def test_over_a_long_time_it_is_as_exact(world: World):
    world.fill(random.Random(7), 20)
    for one in world.attempts:
        one["time_started"] = one["time_terminated"] = one["time_available"]
        one["time_terminated"] += timedelta(seconds=2)
        world.store["attempts"].replace_one({"_id": one["_id"]}, one)
    world.store["tasks"].update_many({}, {"$unset": {"holder": 1}})
    world.tally()
    for one in world.ask("operator", "/tasks/usage", window="300 days")["_items"]:
        own = [each for each in world.attempts if each["owner"] == one["owner"]]
        cores = sum(each["granted_resources"]["cores"] for each in own)
        assert one["core_seconds"] == pytest.approx(2 * cores, abs=0.01)


def test_what_runs_counts_for_as_long_as_it_has_run(world: World):
    world.fill(random.Random(5), 200)
    world.tally()
    before = datetime.now(UTC)
    told = world.ask("alice", "/tasks/usage", window="6 hours")
    after = datetime.now(UTC)
    (one,) = told["_items"]
    begin = datetime.fromisoformat(told["window"]["from"])
    own = [each for each in world.attempts if each["owner"] == "alice"]
    assert [each for each in own if each["time_terminated"] is None]
    least, most = (seconds_in_use(own, begin, end, "cores") for end in (before, after))
    assert least - 1 <= one["core_seconds"] <= most + 1


def test_only_an_operator_sees_others(world: World):
    world.fill(random.Random(6), 100)
    assert [one["owner"] for one in world.ask("bob", "/tasks/usage")["_items"]] == ["bob"]
    assert len(world.ask("operator", "/tasks/usage")["_items"]) == 2
    assert world.refused("worker", "/tasks/usage") == (403, "forbidden")


@pytest.mark.parametrize(
    "arguments", [{"window": "soon"}, {"window": "1 h", "from": "2026-01-01"}, {"by": "owner"}]
)
def test_what_it_does_not_understand_it_refuses(world: World, arguments: dict[str, str]):
    assert world.refused("operator", "/tasks/usage", **arguments) == (400, "bad_request")
