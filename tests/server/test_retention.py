"""What has had its time goes in the background: tasks, output, samples, workers.

The duty is called by hand, on a real database whose tasks are old: their ids say when they
were made, and when they changed last is set back.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from bson import ObjectId

from banyan.config import knobs
from banyan.server import keeping
from banyan.server.app import create_app
from banyan.server.calls import Context, Silent
from banyan.server.store import accounts, forgetting
from banyan.server.store.indexes import prepare_database
from banyan.server.upkeep.retention import Retention

Item = dict[str, Any]
DAY = timedelta(days=1)


class Heard(Silent):
    """Remembers what was signalled."""

    def __init__(self) -> None:
        self.topics: set[str] = set()

    def signal(self, topic: str, *, urgent: bool = True, version: str = "") -> None:
        self.topics.add(topic)


class Past:
    """An application whose tasks were made, ran and ended some time ago."""

    def __init__(self, uri: str) -> None:
        prepare_database(uri)
        app = create_app(uri)
        self.store = app.extensions["banyan"].context.store
        self.heard = Heard()
        self.context = Context(self.store, self.heard)
        self._client = app.test_client()
        self._tokens = {
            role: accounts.issue(self.store, accounts.insert(self.store, role, [role]))
            for role in ("provider", "worker")
        }
        resources = {"cores": 64, "memory": "64 GiB"}
        body = {"host": "h", "resources": resources, "queues": ["default", "scratch", "archive"]}
        self.worker: str = self.ask("worker", "POST", "/workers", body)["_id"]

    def ask(self, role: str, method: str, path: str, body: Any = None) -> Any:
        headers = {"Authorization": f"Bearer {self._tokens[role]}"}
        answer = self._client.open(path, method=method, headers=headers, json=body)
        assert answer.status_code in (200, 201), answer.text
        return answer.json

    def made(self, ago: timedelta, **fields: Any) -> ObjectId:
        """A task that was made, and changed last, so long ago."""
        chosen = ObjectId(
            ObjectId.from_datetime(datetime.now(UTC) - ago).binary[:4] + ObjectId().binary[4:]
        )
        body = {"_id": str(chosen), "command": "true", "state": "available", **fields}
        self.ask("provider", "POST", "/tasks", body)
        self.changed(chosen, ago)
        return chosen

    def changed(self, task: ObjectId, ago: timedelta) -> None:
        time = datetime.now(UTC) - ago
        self.store["tasks"].update_one({"_id": task}, {"$set": {"_updated": time}})

    def claimed(self, task: ObjectId) -> Item:
        body = {"state": "running", "update_execution_data": {"worker": self.worker}}
        item: Item = self.ask("worker", "PATCH", f"/tasks/{task}", body)
        return item

    def report(self, item: Item, **data: Any) -> None:
        body = {"token": item["token"], **data}
        self.ask("worker", "POST", f"/tasks/{item['_id']}/update_execution_data", body)

    def end(self, item: Item, ago: timedelta = timedelta(0)) -> None:
        data = {"token": item["token"], "exit_status": "success",
                "time_terminated": "2026-01-01T00:00:00Z"}  # fmt: skip
        body = {"state": "terminated", "update_execution_data": data}
        self.ask("worker", "PATCH", f"/tasks/{item['_id']}", body)
        self.changed(ObjectId(item["_id"]), ago)

    def ended(self, ago: timedelta, output_bytes: int = 0, **fields: Any) -> ObjectId:
        """A task that ended so long ago, with so much output."""
        task = self.made(ago, **fields)
        item = self.claimed(task)
        if output_bytes:
            data = "eHh4" * (output_bytes // 3)  # "xxx"
            self.report(item, log=[{"offset": 0, "stream": "stdout", "data": data}])
        self.end(item, ago)
        return task

    def pass_by(self) -> None:
        """One round of the duty, to its end."""
        duty = Retention()
        duty.work(self.context)
        while duty._round:
            duty.work(self.context)

    def has_output(self, task: ObjectId) -> bool:
        return self.store["log_chunks"].count_documents({"task": task}) > 0

    def owned_by(self, owner: str, *tasks: ObjectId) -> None:
        """Give tasks, and their attempts, to another."""
        for collection, field in (("tasks", "_id"), ("attempts", "task")):
            query = {field: {"$in": list(tasks)}}
            self.store[collection].update_many(query, {"$set": {"owner": owner}})

    def left(self, *tasks: ObjectId) -> list[bool]:
        """Which of these tasks are there; of those that are not nothing may be left."""
        there = [self.store["tasks"].find_one({"_id": task}) is not None for task in tasks]
        for task, is_there in zip(tasks, there, strict=True):
            if not is_there:
                assert not self.store["attempts"].count_documents({"task": task})
                assert not self.store["log_chunks"].count_documents({"task": task})
        return there


@pytest.fixture
def past(fresh_database: str) -> Iterator[Past]:
    made = Past(fresh_database)
    yield made
    made.store.close()


@pytest.fixture
def knob(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """`knob(RETAIN="1 day")`, for this process."""

    def forget_what_was_read() -> None:
        knobs.cache_clear()
        keeping.rules.cache_clear()

    def turn(**values: object) -> None:
        for name, value in values.items():
            monkeypatch.setenv(f"BANYAN_{name}", str(value))
        forget_what_was_read()

    yield turn
    monkeypatch.undo()
    forget_what_was_read()


def test_ended_tasks_go_when_their_time_is_over(past: Past):
    old = past.ended(31 * DAY, output_bytes=30)
    young = past.ended(29 * DAY, output_bytes=30)
    touched = past.ended(31 * DAY)
    past.ask("provider", "PATCH", f"/tasks/{touched}", {"tags": {"look": "again"}})
    waiting = past.made(99 * DAY)
    running = past.made(99 * DAY)
    past.claimed(running)
    assert past.store["attempts"].count_documents({"task": old}) == 1
    past.pass_by()
    assert past.left(old, young, touched, waiting, running) == [False, True, True, True, True]
    assert f"task:{old}" in past.heard.topics
    assert past.store["log_chunks"].count_documents({"task": young}) == 1


def test_a_task_may_have_a_time_of_its_own(past: Past):
    short = past.ended(2 * DAY, retain="1 day")
    long = past.ended(99 * DAY, retain="100 days")
    forever = past.ended(9999 * DAY, retain="forever")
    at_once = past.ended(timedelta(seconds=3), retain=0)
    later = past.ended(2 * DAY)
    past.pass_by()
    assert past.left(short, long, forever, at_once, later) == [False, True, True, False, True]
    # It may be changed when the task has ended, and counts from that change on.
    past.ask("provider", "PATCH", f"/tasks/{later}", {"retain": "1 day"})
    past.ask("provider", "PATCH", f"/tasks/{forever}", {"retain": None})
    past.changed(later, 2 * DAY)
    past.changed(forever, 31 * DAY)
    past.pass_by()
    assert past.left(later, forever) == [False, False]


def test_a_queue_may_have_a_time_of_its_own(past: Past, knob: Any):
    knob(RETAIN_QUEUES="scratch=1 day, archive=forever")
    scratch = past.ended(2 * DAY, queue="scratch")
    own = past.ended(2 * DAY, queue="scratch", retain="forever")
    archive = past.ended(99 * DAY, queue="archive")
    other = past.ended(2 * DAY)
    past.pass_by()
    assert past.left(scratch, own, archive, other) == [False, True, True, True]


def test_forever_keeps_all_that_has_no_other_time(past: Past, knob: Any):
    knob(RETAIN="forever")
    old, own = past.ended(9999 * DAY), past.ended(2 * DAY, retain="1 day")
    past.pass_by()
    assert past.left(old, own) == [True, False]


def test_an_id_from_the_future_is_found_too(past: Past):
    task = past.ended(-100 * DAY)
    past.changed(task, 31 * DAY)
    past.pass_by()
    assert past.left(task) == [False]


def test_nothing_goes_while_a_neighbour_has_not_ended(past: Past):
    ago = 40 * DAY
    grandparent = past.ended(ago)
    parent = past.made(ago, after=[str(grandparent)])
    child = past.made(ago, after=[str(parent)])
    past.end(past.claimed(parent), ago)
    past.changed(grandparent, ago)  # that it got a child was a change, too
    past.pass_by()
    assert past.left(grandparent, parent, child) == [False, True, True]
    past.end(past.claimed(child), ago)
    past.pass_by()
    assert past.left(parent, child) == [False, False]


def test_neighbours_are_looked_at_in_pieces(past: Past, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("banyan.server.store.forgetting._NAMED_AT_ONCE", 2)
    parent = past.ended(40 * DAY)
    children = [past.made(40 * DAY, after=[str(parent)], command=None) for _ in range(4)]
    held = past.made(40 * DAY, after=[str(parent)], state="inactive")
    for task in (parent, *children):
        past.changed(task, 40 * DAY)
    past.pass_by()
    assert past.left(parent, held, *children) == [True, True, *[False] * 4]


def test_what_is_not_settled_stays(past: Past):
    task = past.ended(40 * DAY)
    past.store["tasks"].update_one({"_id": task}, {"$set": {"unsettled": True}})
    past.pass_by()
    assert past.left(task) == [True]


def test_more_than_a_batch_goes_past_what_stays(past: Past, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("banyan.server.upkeep.retention.BATCH", 3)
    tasks = [past.made(40 * DAY) if number % 2 else past.ended(40 * DAY) for number in range(16)]
    past.pass_by()
    assert past.left(*tasks) == [number % 2 == 1 for number in range(16)]


def test_a_note_of_what_went_is_seen_through(past: Past):
    """As after a kill between the removal of a task and that of its attempts."""
    task = past.ended(40 * DAY, output_bytes=30)
    attempt = past.store["attempts"].find_one({"task": task})
    assert forgetting.remove(past.store, [task], lambda found, unfinished: found).keys() == {task}
    assert past.store["attempts"].find_one({"task": task}) == attempt
    past.pass_by()
    assert past.store["forgotten"].count_documents({}) == 1  # it is too young
    note = past.store["forgotten"].find_one_and_delete({})
    old = {**note, "_id": ObjectId.from_datetime(datetime.now(UTC) - timedelta(seconds=61))}
    past.store["forgotten"].insert_one(old)
    past.pass_by()
    assert past.left(task) == [False]
    assert past.store["forgotten"].count_documents({}) == 0


def test_the_oldest_output_goes_first_when_there_is_too_much(past: Past, knob: Any):
    knob(LOGS_TOTAL_BYTES_MAX=200_000)
    running = past.claimed(past.made(DAY))
    data = "eHh4" * 10_000
    past.report(running, log=[{"offset": 0, "stream": "stdout", "data": data}])
    tasks = [past.ended(DAY, output_bytes=60_000) for _ in range(4)]
    past.pass_by()
    assert [past.has_output(task) for task in tasks] == [False, False, True, True]
    assert past.has_output(ObjectId(running["_id"]))
    path = f"/tasks/{tasks[0]}"
    assert past.ask("provider", "GET", f"{path}/history")["_items"][0]["time_log_removed"]
    headers = {"Authorization": f"Bearer {past._tokens['provider']}"}
    gone = past._client.get(f"{path}/log", headers=headers)
    assert (gone.status_code, gone.json["_error"]["word"]) == (404, "not_found")
    assert "removed" in gone.json["_error"]["message"]
    past.pass_by()
    assert [past.has_output(task) for task in tasks] == [False, False, True, True]


def test_a_flood_of_output_pushes_out_nobody_elses(past: Past, knob: Any):
    """Of two owners the one with most of the output loses it, though the other's is older."""
    knob(LOGS_TOTAL_BYTES_MAX=400_000)
    old = [past.ended(2 * DAY, output_bytes=60_000) for _ in range(2)]
    past.owned_by("bystander", *old)
    flood = [past.ended(DAY, output_bytes=60_000) for _ in range(7)]
    past.pass_by()
    assert [past.has_output(task) for task in old] == [True, True]
    assert [past.has_output(task) for task in flood] == [False] * 3 + [True] * 4


def test_single_bytes_count_with_what_they_take(past: Past, knob: Any):
    knob(LOGS_TOTAL_BYTES_MAX=300_000)
    old = [past.ended(2 * DAY, output_bytes=60_000) for _ in range(2)]
    past.owned_by("bystander", *old)
    crumbs = past.claimed(past.made(DAY))
    for start in range(0, 2500, 100):
        log = [{"offset": n, "stream": "stdout", "data": "eA=="} for n in range(start, start + 100)]
        past.report(crumbs, log=log)
    past.end(crumbs, DAY)
    past.pass_by()
    assert [past.has_output(task) for task in old] == [True, True]
    assert not past.has_output(ObjectId(crumbs["_id"]))


def test_others_pay_for_what_may_not_go(past: Past, knob: Any):
    """A running attempt keeps its output; as much as has to go then goes of the others'."""
    knob(LOGS_TOTAL_BYTES_MAX=150_000)
    others = [past.ended(2 * DAY, output_bytes=60_000) for _ in range(2)]
    past.owned_by("bystander", *others)
    running = past.claimed(past.made(DAY))
    data = "eHh4" * 35_000
    past.report(running, log=[{"offset": 0, "stream": "stdout", "data": data}])
    past.pass_by()
    assert past.has_output(ObjectId(running["_id"]))
    assert [past.has_output(task) for task in others] == [False, False]


def test_of_an_accounts_lost_workers_only_so_many_are_kept(past: Past, knob: Any):
    knob(ACCOUNT_WORKERS_MAX=3)
    ids = [ObjectId() for _ in range(6)]
    for number, worker in enumerate(ids):
        beat = datetime.now(UTC) - timedelta(minutes=number)
        lost = {"_id": worker, "account": "worker", "mode": "lost", "last_beat": beat}
        past.store["workers"].insert_one(lost)
    past.pass_by()
    left = {one["_id"] for one in past.store["workers"].find()}
    assert left == {ObjectId(past.worker), *ids[:3]}


def test_samples_are_thinned_before_the_rest(past: Past, knob: Any):
    knob(SAMPLES_WHOLE_SECONDS=0, SAMPLES_THINNED_MAX=10)
    time = "2026-01-01T00:00:00Z"
    samples = [{"time": time, "resident_memory_bytes": n} for n in range(95)]
    items = [past.claimed(past.made(DAY)) for _ in range(3)]
    for item, given in zip(items, (samples, samples, samples[:10]), strict=True):
        usage = [{"time": time, "utilization_percent": 1}]
        past.report(item, memory_usage=given, cpu_utilization=usage, peak_memory_bytes=94)
    for item in items[1:]:
        past.end(item)
    before = {item["_id"]: _attempt(past, item) for item in items}
    _until_a_second_has_begun()
    past.pass_by()
    running, thinned, few = (_attempt(past, item) for item in items)
    assert len(running["memory_usage"]) == 95
    kept = [one["resident_memory_bytes"] for one in thinned["memory_usage"]]
    assert kept == list(range(0, 95, 10))
    assert thinned["peak_memory_bytes"] == 94
    assert thinned["cpu_utilization"] == before[items[1]["_id"]]["cpu_utilization"]
    assert "gpu_usage" not in thinned
    assert few == before[items[2]["_id"]]
    past.pass_by()
    assert _attempt(past, items[1]) == thinned


def _attempt(past: Past, item: Item) -> Item:
    found: Item = past.store["attempts"].find_one({"task": ObjectId(item["_id"])})
    return found


def _until_a_second_has_begun() -> None:
    second = int(datetime.now(UTC).timestamp())
    while int(datetime.now(UTC).timestamp()) == second:
        pass


def test_workers_that_are_gone_go_too(past: Past):
    long_ago = datetime.now(UTC) - 31 * DAY
    body = {"host": "h", "resources": {"cores": 1, "memory": 1}}
    lost, silent = (past.ask("worker", "POST", "/workers", body)["_id"] for _ in range(2))
    for worker, mode in ((lost, "lost"), (silent, "active")):
        fields = {"mode": mode, "last_beat": long_ago}
        past.store["workers"].update_one({"_id": ObjectId(worker)}, {"$set": fields})
    past.pass_by()
    left = {str(one["_id"]) for one in past.store["workers"].find()}
    assert left == {past.worker, silent}


def test_it_stops_when_its_share_of_the_time_is_over_and_goes_on_from_there(
    past: Past, knob: Any, monkeypatch: pytest.MonkeyPatch
):
    knob(UPKEEP_SECONDS=0.000_001)
    monkeypatch.setattr("banyan.server.upkeep.retention.BATCH", 1)
    tasks = [past.ended(40 * DAY) for _ in range(3)]
    duty = Retention()
    for left in (2, 1, 0):
        duty.work(past.context)
        assert past.store["tasks"].count_documents({}) == left
    assert past.left(*tasks) == [False] * 3
