"""A transaction that others stand in the way of: tried again, and not for ever."""

import time
from collections.abc import Iterator

import pytest
from pymongo.client_session import ClientSession
from pymongo.errors import PyMongoError

from banyan.server import outages
from banyan.server.store import mongo
from banyan.server.store.mongo import Store


@pytest.fixture
def store(fresh_database: str) -> Iterator[Store]:
    made = Store(fresh_database)
    yield made
    made.close()


def test_who_is_in_the_way_for_long_is_an_outage_that_passes(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mongo, "TRANSACTION_SECONDS_MAX", 0.5)
    store["things"].insert_one({"_id": 1})
    tries = 0

    def write(session: ClientSession) -> None:
        nonlocal tries
        tries += 1
        store["things"].update_one({"_id": 1}, {"$set": {"by": "one"}}, session=session)

    with store.client.start_session() as other, other.start_transaction():
        store["things"].update_one({"_id": 1}, {"$set": {"by": "other"}}, session=other)
        with pytest.raises(PyMongoError) as raised:
            store.transaction(write)
        assert outages.is_passing(raised.value)
        assert tries > 1
    store.transaction(write)
    assert store["things"].find_one() == {"_id": 1, "by": "one"}


def test_who_tries_several_times_gives_up_at_one_time(store: Store) -> None:
    """Else a request could hold its thread for this time, and then again and again."""
    store["things"].insert_one({"_id": 1})

    def write(session: ClientSession) -> None:
        store["things"].update_one({"_id": 1}, {"$set": {"by": "one"}}, session=session)

    store.transaction(write, time.monotonic() + 60)
    with store.client.start_session() as other, other.start_transaction():
        store["things"].update_one({"_id": 1}, {"$set": {"by": "other"}}, session=other)
        before = time.monotonic()
        with pytest.raises(PyMongoError) as raised:
            store.transaction(write, before - 1)
        assert time.monotonic() < before + mongo.TRANSACTION_SECONDS_MAX / 2
    assert outages.is_passing(raised.value)
