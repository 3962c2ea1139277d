"""What another process writes wakes who waits in this one, over restarts of the database too."""

import signal
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from bson import ObjectId
from pymongo.database import Database

from banyan.server.embedded import PrivateMongo
from banyan.server.store import told
from banyan.server.store.mongo import Document, Store, new_etag
from banyan.server.waiting import Hub
from banyan.server.watcher import Watcher
from tests.harness import eventually


class Heard(Hub):
    """A hub that keeps what it is told, for which somebody always waits."""

    def __init__(self) -> None:
        super().__init__()
        self.topics: list[str] = []
        self.echoes: list[str] = []
        self.settled: list[str] = []
        self.gaps = 0
        self.waiting = 1
        self.wanted.set()

    def signal(
        self, topic: str, *, observed: bool = False, echo: bool = False, urgent: bool = True
    ) -> None:
        assert observed
        self.topics.append(topic)
        if echo:
            self.echoes.append(topic)

    def settle(self, subject: str) -> None:
        self.settled.append(subject)

    def signal_everybody(self) -> None:
        self.gaps += 1


@pytest.fixture
def database(fresh_database: str) -> Iterator[Database[Document]]:
    store = Store(fresh_database)
    for name in ("tasks", "workers", "log_chunks", "attempts"):
        store.database.create_collection(name)
    yield store.database
    store.close()


@pytest.fixture
def hub(fresh_database: str, database: Database[Document]) -> Iterator[Heard]:
    hub = Heard()
    watcher = Watcher(fresh_database, hub)
    watcher.start()
    eventually(lambda: hub.gaps == 1)
    yield hub
    watcher.stop()


def heard(hub: Heard, database: Database[Document]) -> set[str]:
    """All that the writes until now meant; the list is empty after that."""
    mark = database["tasks"].insert_one({"state": "inactive"}).inserted_id
    eventually(lambda: f"task:{mark}" in hub.topics)
    eventually(lambda: str(mark) in hub.settled)
    topics = set(hub.topics) - {f"task:{mark}", "tasks"}
    hub.topics.clear()
    hub.settled.remove(str(mark))
    return topics


def test_a_task_that_was_changed_where_it_waits(hub: Heard, database: Database[Document]) -> None:
    task = database["tasks"].insert_one({"state": "available", "wake_at": None}).inserted_id
    heard(hub, database)
    database["tasks"].update_one({"_id": task}, {"$set": {"state": "available", "edit_count": 1}})
    assert heard(hub, database) == {f"task:{task}", f"available:{task}"}


def test_a_new_task_that_may_be_claimed(hub: Heard, database: Database[Document]) -> None:
    task = database["tasks"].insert_one({"state": "available", "wake_at": None}).inserted_id
    eventually(lambda: "tasks" in hub.topics)
    assert heard(hub, database) == {f"task:{task}", f"available:{task}"}


def test_a_task_goes_through_its_life(hub: Heard, database: Database[Document]) -> None:
    tasks = database["tasks"]
    task = tasks.insert_one({"state": "inactive"}).inserted_id
    assert heard(hub, database) == {f"task:{task}"}
    tasks.update_one({"_id": task}, {"$set": {"state": "available"}})
    assert heard(hub, database) == {f"task:{task}", f"available:{task}"}
    hub.settled.clear()
    tasks.update_one({"_id": task}, {"$set": {"state": "running"}})
    assert heard(hub, database) == {f"task:{task}"}
    assert hub.settled == [str(task)]
    tasks.update_one({"_id": task}, {"$set": {"lease": 1}})
    assert heard(hub, database) == {f"task:{task}"}


@pytest.mark.parametrize("end", [{"$set": {"wake_at": None}}, {"$unset": {"wake_at": 1}}])
def test_a_task_with_a_delay_may_be_claimed_when_it_is_over(
    hub: Heard, database: Database[Document], end: Document
) -> None:
    tasks, later = database["tasks"], datetime(2100, 1, 1, tzinfo=UTC)
    task = tasks.insert_one({"state": "available", "wake_at": later}).inserted_id
    assert heard(hub, database) == {f"task:{task}"}
    tasks.update_one({"_id": task}, end)
    assert heard(hub, database) == {f"task:{task}", f"available:{task}"}
    tasks.update_one({"_id": task}, {"$set": {"state": "available", "wake_at": later}})
    assert heard(hub, database) == {f"task:{task}"}


def test_output_and_what_workers_are_to_hear(hub: Heard, database: Database[Document]) -> None:
    task = ObjectId()
    database["log_chunks"].insert_one({"task": task, "data": b"x" * 1000})
    worker = database["workers"].insert_one({"signal": "a"}).inserted_id
    assert heard(hub, database) == {f"log:{task}"}
    database["workers"].update_one({"_id": worker}, {"$set": {"last_beat": 1}})
    assert heard(hub, database) == set()
    database["workers"].update_one({"_id": worker}, {"$set": {"signal": "b"}})
    assert heard(hub, database) == {f"worker:{worker}"}
    database["workers"].delete_one({"_id": worker})
    assert heard(hub, database) == {f"worker:{worker}"}


def test_what_nobody_waits_for_is_not_sent(hub: Heard, database: Database[Document]) -> None:
    attempt = database["attempts"].insert_one({"live": True}).inserted_id
    database["attempts"].update_one({"_id": attempt}, {"$set": {"live": False}})
    assert heard(hub, database) == set()


def test_what_this_process_tells_itself_is_not_heard(
    hub: Heard, database: Database[Document]
) -> None:
    tasks = database["tasks"]
    task = tasks.insert_one({"state": "available", "_etag": told.told_etag()}).inserted_id
    update = {"$set": {"state": "running", "_etag": told.told_etag()}}
    tasks.update_one({"_id": task}, update)
    assert heard(hub, database) == set()


def test_what_may_have_been_written_without_a_word_is_heard_after_all(
    hub: Heard, database: Database[Document]
) -> None:
    late = told.told_etag()
    told.disown()
    eventually(lambda: hub.gaps == 2)
    task = database["tasks"].insert_one({"state": "available", "_etag": late}).inserted_id
    assert heard(hub, database) == {f"task:{task}", f"available:{task}"}


def test_what_this_process_has_written_is_told_from_what_others_have(
    hub: Heard, database: Database[Document]
) -> None:
    tasks = database["tasks"]
    ours = tasks.insert_one({"state": "available", "_etag": new_etag()}).inserted_id
    others = tasks.insert_one({"state": "available", "_etag": "0" * 24}).inserted_id
    assert heard(hub, database) >= {f"available:{ours}", f"available:{others}"}
    assert f"available:{ours}" in hub.echoes
    assert f"available:{others}" not in hub.echoes


def test_the_end_of_a_delay_is_nobodys_echo(hub: Heard, database: Database[Document]) -> None:
    tasks, later = database["tasks"], datetime(2100, 1, 1, tzinfo=UTC)
    delayed = {"state": "available", "wake_at": later, "_etag": new_etag()}
    task = tasks.insert_one(delayed).inserted_id
    tasks.update_one({"_id": task}, {"$set": {"wake_at": None, "_etag": new_etag()}})
    assert f"available:{task}" in heard(hub, database)
    assert f"available:{task}" not in hub.echoes


def test_it_rests_when_nobody_waits_and_wakes_all_when_somebody_does(
    fresh_database: str, database: Database[Document]
) -> None:
    hub = Heard()
    watcher = Watcher(fresh_database, hub, rest_after=0.1)
    watcher.start()
    try:
        eventually(lambda: hub.watched)
        hub.waiting = 0
        eventually(lambda: not hub.watched and not hub.wanted.is_set())
        database["tasks"].insert_one({"state": "available"})  # nobody sees this
        hub.waiting = 1
        hub.wanted.set()
        eventually(lambda: hub.gaps == 2)
        assert heard(hub, database) == set()
    finally:
        watcher.stop()


def test_it_goes_on_after_the_database_was_killed(tmp_path: Path) -> None:
    mongo, hub = PrivateMongo(tmp_path), Heard()
    child = mongo.start()
    store = Store(mongo.uri)
    watcher = Watcher(mongo.uri, hub)
    watcher.start()
    try:
        eventually(lambda: hub.watched)
        child.signal(signal.SIGKILL)
        mongo.start()
        task = store["tasks"].insert_one({"state": "available"}).inserted_id
        eventually(lambda: hub.gaps > 1 or f"available:{task}" in hub.topics, 30)
        assert heard(hub, store.database) <= {f"task:{task}", f"available:{task}"}
    finally:
        watcher.stop()
        store.close()
        mongo.stop()
