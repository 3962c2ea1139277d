"""What `/tasks/statistics` tells, against the same worked out plainly, from attempts one by one."""

import math
import random
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta

import pytest
from bson import ObjectId

from banyan.server.store import statistics, tallies
from tests.server.worlds import BEGIN, END, LATER, NOW, WINDOW, Item, World, id_of, seconds_in_use


@pytest.fixture(scope="module")
def shared(module_database: str) -> Iterator[World]:
    """A world that tests only ask: some of it is tallied."""
    made = World(module_database)
    made.fill(random.Random(1), 700)
    made.tally(NOW - timedelta(hours=1))
    yield made
    made.store.close()


# --- The same, plainly ---------------------------------------------------------------------


def _in_use(attempts: Sequence[Item], begin: datetime, end: datetime, resource: str) -> float:
    """The mean of what attempts had in use between two times."""
    return seconds_in_use(attempts, begin, end, resource) / (end - begin).total_seconds()


def _milliseconds(attempts: Sequence[Item], start: str, end: str) -> list[int]:
    return sorted(
        round((max(one[end], one[start]) - one[start]) / timedelta(milliseconds=1))
        for one in attempts
        if one[start] and one[end]
    )


def _check_times(told: Item, exact: list[int]) -> None:
    assert told["count"] == len(exact)
    assert told["mean"] == pytest.approx(sum(exact) / len(exact), abs=0.001)
    assert told["max"] == exact[-1]
    for percent in (50, 90, 99):
        ranked = exact[math.ceil(len(exact) * percent / 100) - 1]
        assert told[f"p{percent}"] == pytest.approx(ranked, rel=0.05, abs=1)


def _check(told: Item, attempts: Sequence[Item], begin: datetime, end: datetime) -> None:
    """All that is told of a window is what these attempts come to."""
    inside = [
        one for one in attempts if one["time_terminated"] and begin <= one["time_terminated"] < end
    ]
    words = Counter(one["exit_status"].split()[0] for one in inside)
    assert told["ended"] == dict(words)
    assert told["cpu_seconds"] == sum(one["cpu_seconds"] for one in inside)
    seconds = (end - begin).total_seconds()
    assert told["ended_per_second"] == pytest.approx(len(inside) / seconds, rel=1e-3)
    _check_times(
        told["running_milliseconds"], _milliseconds(inside, "time_started", "time_terminated")
    )
    _check_times(
        told["waiting_milliseconds"], _milliseconds(inside, "time_available", "time_started")
    )
    width = timedelta(milliseconds=told["window"]["bucket_milliseconds"])
    starts = [datetime.fromisoformat(bucket["time"]) for bucket in told["buckets"]]
    assert starts[0] == begin
    assert starts[-1] + width == end
    for start, bucket in zip(starts, told["buckets"], strict=True):
        then = [one for one in inside if start <= one["time_terminated"] < start + width]
        assert bucket["ended"] == len(then)
        assert bucket["failed"] == sum(one["exit_status"] != "success" for one in then)
        for resource in ("cores", "memory_bytes", "gpu_count"):
            used = _in_use(attempts, start, start + width, resource)
            assert bucket[resource] == pytest.approx(used, rel=1e-6, abs=1e-4), resource


@pytest.mark.parametrize("tallied", ["nothing", "a part", "all", "bit by bit"])
def test_what_was_over_time_is_what_the_attempts_come_to(
    world: World, tallied: str, monkeypatch: pytest.MonkeyPatch
):
    world.fill(random.Random(tallied), 700)
    if tallied == "bit by bit":
        monkeypatch.setattr(tallies, "ATTEMPTS_AT_ONCE", 50)
    if tallied != "nothing":
        world.tally(NOW - timedelta(hours=2) if tallied == "a part" else LATER)
    minutes = math.ceil((END - BEGIN).total_seconds() / 60)
    for buckets in (minutes, minutes // 10):
        told = world.ask("operator", buckets=buckets, **WINDOW)
        width = timedelta(milliseconds=told["window"]["bucket_milliseconds"])
        begin = datetime.fromisoformat(told["window"]["from"])
        assert begin <= BEGIN
        end = datetime.fromisoformat(told["window"]["to"])
        assert END <= end < END + width
        _check(told, world.attempts, begin, end)


def test_one_owner_and_one_queue_are_told_for_themselves(shared: World):
    of_alice = [one for one in shared.attempts if one["owner"] == "alice"]
    of_queue = [one for one in of_alice if one["queue"] == "gpu"]
    asked = {"buckets": 8, **WINDOW}
    for told, attempts in (
        (shared.ask("alice", **asked), of_alice),
        (shared.ask("operator", where={"owner": "alice"}, **asked), of_alice),
        (shared.ask("alice", where={"queue": "gpu"}, **asked), of_queue),
        (shared.ask("operator", where={"queue": {"$in": ["gpu", "no"]}, "owner": "alice"}, **asked),
         of_queue),
    ):  # fmt: skip
        begin, end = (datetime.fromisoformat(told["window"][name]) for name in ("from", "to"))
        _check(told, attempts, begin, end)


def test_where_asks_for_anything_and_attempts_of_other_tasks_do_not_count(shared: World):
    own = {
        task["_id"]
        for task in shared.tasks
        if task["tags"].get("sweep") == "1" and task["owner"] == "alice"
    }
    told = shared.ask("alice", where={"tags.sweep": "1"}, buckets=8, **WINDOW)
    begin, end = (datetime.fromisoformat(told["window"][name]) for name in ("from", "to"))
    assert told["count"] == len(own)
    _check(told, [one for one in shared.attempts if one["task"] in own], begin, end)


def test_nobody_is_told_of_the_attempts_of_others(shared: World):
    for where in ({"owner": "bob"}, {"owner": "bob", "state": "terminated"}):
        told = shared.ask("alice", where=where, window="1 day")
        assert told["count"] == 0
        assert told["ended"] == {}
        assert all(bucket["cores"] == 0 for bucket in told["buckets"])
    assert shared.refused("worker", "/tasks/statistics", window="1 day") == (403, "forbidden")
    assert shared.refused("worker", "/workers/statistics", window="1 day") == (403, "forbidden")


def test_more_tasks_than_are_looked_at_is_told(shared: World, monkeypatch: pytest.MonkeyPatch):
    where = {"state": "terminated"}
    assert "truncated" not in shared.ask("operator", where=where, window="1 day")
    monkeypatch.setattr("banyan.server.verbs.statistics.TASKS_MAX", 10)
    told = shared.ask("operator", where=where, window="1 day")
    assert told["truncated"]
    assert sum(told["ended"].values()) == 10


def test_what_runs_is_in_use_until_now_and_what_ends_is_told_at_once(world: World):
    started = datetime.now(UTC) - timedelta(minutes=30)
    attempt = {
        "_id": id_of(started), "task": ObjectId(), "owner": "alice", "queue": "default",
        "granted_resources": {"cores": 4, "memory_bytes": 0, "gpu_count": 0},
        "time_available": started, "time_started": started, "time_terminated": None,
        "_updated": datetime.now(UTC),
    }  # fmt: skip
    world.store["attempts"].insert_one(attempt)
    world.tally()
    told = world.ask("alice", window="10 minutes", buckets=10)
    assert [bucket["cores"] for bucket in told["buckets"]] == [4.0] * len(told["buckets"])
    assert told["running_milliseconds"] is None
    end = {"time_terminated": datetime.now(UTC), "exit_status": "success"}
    world.store["attempts"].update_one({"_id": attempt["_id"]}, {"$set": end})
    told = world.ask("alice", window="10 minutes", buckets=10)
    assert told["ended"] == {"success": 1}
    assert told["running_milliseconds"]["max"] == pytest.approx(1_800_000, rel=0.1)


# --- Counts --------------------------------------------------------------------------------


def _counts(tasks: Sequence[Item], name: str) -> dict[str, int]:
    return dict(Counter(task[name] for task in tasks if task[name] is not None))


def test_counts_are_those_of_the_tasks(shared: World):
    for who, where, tasks in (
        ("operator", {}, shared.tasks),
        ("alice", {}, [one for one in shared.tasks if one["owner"] == "alice"]),
        ("operator", {"queue": "gpu", "state": {"$in": ["terminated", "running"]}},
         [one for one in shared.tasks
          if one["queue"] == "gpu" and one["state"] in ("terminated", "running")]),
        ("operator", {"outcome": "failure"},
         [one for one in shared.tasks if one["outcome"] == "failure"]),
        ("operator", {"outcome": None}, [one for one in shared.tasks if one["outcome"] is None]),
        ("operator", {"$or": [{"state": "inactive"}, {"name": "x"}]},
         [one for one in shared.tasks if one["state"] == "inactive" or one["name"] == "x"]),
    ):  # fmt: skip
        told = shared.ask(who, where=where, by="state,outcome,queue,owner")
        assert told == {
            "count": len(tasks),
            **{
                f"by_{name}": _counts(tasks, name)
                for name in ("state", "outcome", "queue", "owner")
            },
        }
    told = shared.ask("operator", by="name,tags.sweep,tags.none")
    sweeps = Counter(one["tags"]["sweep"] for one in shared.tasks if one["tags"])
    assert told["by_tag"] == {"sweep": dict(sweeps), "none": {}}
    assert told["by_name"] == {"x": sum(one["name"] == "x" for one in shared.tasks)}


def test_counts_do_not_depend_on_how_many_kinds_there_are(
    shared: World, monkeypatch: pytest.MonkeyPatch
):
    by = {"by": "state,outcome,queue,owner"}
    asked: list[Item] = [{}, {"where": {"queue": "gpu"}}, {"where": {"owner": "bob"}}]
    told = [shared.ask("operator", **by, **one) for one in asked]
    monkeypatch.setattr(statistics, "KINDS_MAX", 3)
    assert [shared.ask("operator", **by, **one) for one in asked] == told


def test_a_task_that_moves_is_counted_once(world: World):
    """However it moves between two kinds while it is counted: all is read as of one moment."""
    world.fill(random.Random(13), 300)
    over = threading.Event()

    def move() -> None:
        while not over.is_set():
            for here, there in (("available", "cancelled"), ("cancelled", "available")):
                world.store["tasks"].update_many({"state": here}, {"$set": {"state": there}})

    mover = threading.Thread(target=move)
    mover.start()
    try:
        counts = {world.ask("operator", by="state,queue")["count"] for _ in range(10)}
    finally:
        over.set()
        mover.join()
    assert counts == {300}


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("by", ["", "state,state", "tags.", "tags.a.b", "command",
                ",".join(f"tags.{n}" for n in range(9))]),
        ("window", ["soon", "0 s", "-1 hour", ""]),
        ("buckets", ["0", "1001", "x", "-3"]),
        ("from", ["yesterday", "2999-01-01"]),
        ("to", ["1969-01-01"]),
        ("where", ["{"]),
        ("bucket", ["1"]),
    ],
)  # fmt: skip
def test_what_is_no_question_is_refused(shared: World, name: str, values: list[str]):
    for value in values:
        refused = shared.refused("alice", "/tasks/statistics", **{name: value})
        assert refused == (400, "bad_request"), value


def test_a_time_has_one_begin_and_it_is_before_its_end(shared: World):
    for other in ({"to": "2026-01-01"}, {"window": "1 day"}):
        asked = {"from": "2026-01-02", **other}
        refused = shared.refused("alice", "/tasks/statistics", **asked)
        assert refused == (400, "bad_request")


@pytest.mark.parametrize("window", ["9999999 days", "10 s", "86400000", "P1D"])
def test_any_length_of_time_may_be_asked_for(shared: World, window: str):
    told = shared.ask("operator", window=window, buckets=1000)
    assert 1 <= len(told["buckets"]) <= 1001
    assert told["window"]["bucket_milliseconds"] % 60_000 == 0
