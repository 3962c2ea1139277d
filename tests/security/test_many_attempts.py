"""Attempts without end: they stop nobody's retention, and take nobody's room."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from bson import ObjectId
from pymongo.errors import OperationFailure

from banyan.config import knobs
from banyan.domain import lifecycle
from banyan.domain.continuations import CHILD_LISTS
from banyan.server.store import forgetting
from tests.contract.playing import play as play
from tests.server.test_retention import DAY, Past
from tests.server.test_retention import past as past

LONG = ["x" * 1000] * 100


def noted(past: Past, *tasks: ObjectId) -> ObjectId:
    """A note of these tasks that was written long enough ago."""
    time = datetime.now(UTC) - timedelta(seconds=120)
    note = ObjectId(ObjectId.from_datetime(time).binary[:4] + ObjectId().binary[4:])
    past.store["forgotten"].insert_one(
        {"_id": note, "tasks": list(tasks), "seqs": [1] * len(tasks)}
    )
    return note


def test_they_go_a_piece_at_a_time(past: Past, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of them in one statement would be too large for MongoDB, each time."""
    monkeypatch.setattr(forgetting, "_ATTEMPTS_AT_ONCE", 10)
    task = ObjectId()
    past.store["attempts"].insert_many([{"task": task, "task_seq": 1} for _ in range(35)])
    sizes: list[int] = []
    delete_many = type(past.store["attempts"]).delete_many

    def counted(self: Any, query: Any, *more: Any, **named: Any) -> Any:
        if self.name == "attempts":
            sizes.append(len(query["_id"]["$in"]))
        return delete_many(self, query, *more, **named)

    monkeypatch.setattr(type(past.store["attempts"]), "delete_many", counted)
    forgetting.clear(past.store, {task: 1})
    assert sizes == [10, 10, 10, 5]
    assert past.store["attempts"].count_documents({"task": task}) == 0


def test_a_note_at_which_it_fails_stops_nobodys_retention(
    past: Past, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad, good, over = noted(past, ObjectId()), noted(past, ObjectId()), past.ended(DAY, retain=0)
    clear = forgetting.clear
    poison = past.store["forgotten"].find_one({"_id": bad})["tasks"][0]

    def failing(store: Any, gone: Any) -> None:
        if poison in gone:
            raise OperationFailure("too large")
        clear(store, gone)

    monkeypatch.setattr(forgetting, "clear", failing)
    past.pass_by()
    assert past.left(over) == [False]
    assert [one["_id"] for one in past.store["forgotten"].find({"_id": {"$in": [bad, good]}})] == [
        bad
    ]


@pytest.fixture
def little_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(knobs(), "LOGS_TOTAL_BYTES_MAX", 200_000)


def test_messages_count_as_output(past: Past, little_room: None) -> None:
    tasks = [past.made(DAY) for _ in range(4)]
    for task in tasks:
        item = past.claimed(task)
        past.report(item, messages=[{"time": "2026-01-01T00:00:00Z", "text": t} for t in LONG])
        past.end(item)
    quiet = past.ended(DAY)
    past.pass_by()
    kept = [
        bool((past.store["attempts"].find_one({"task": task}) or {}).get("messages"))
        for task in tasks
    ]
    assert kept == sorted(kept), "the oldest go first"
    assert 0 < sum(kept) < len(tasks)
    record = past.store["attempts"].find_one({"task": quiet}) or {}
    assert record.get("time_log_removed") is None


def test_a_task_has_so_many_attempts_and_no_more() -> None:
    for decide in (
        lambda task: lifecycle.given_back(task, "released", datetime.now(UTC)),
        lambda task: lifecycle.lost({**task, "lost_count": 0}, "gone", datetime.now(UTC)),
    ):
        for count, state in ((9_999, "available"), (10_000, "terminated")):
            change: Any = decide(held(count))
            assert change.set["state"] == state


def held(attempt_count: int) -> dict[str, Any]:
    """A running task that has had so many attempts."""
    holder = {"attempt": ObjectId(), "worker": 1, "account": "w", "granted": {}, "claimed": None}
    return {
        **{name: [] for name in CHILD_LISTS},
        "_id": ObjectId(), "state": "running", "holder": holder, "owner": "o", "queue": "q",
        "attempt_count": attempt_count, "max_lost_count": 1_000_000, "failure_count": 0,
        "max_attempt_count": 1_000_000, "retry_delay_milliseconds": 0, "retry_backoff": 1,
    }  # fmt: skip
