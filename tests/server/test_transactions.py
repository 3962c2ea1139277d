"""A transaction that others stand in the way of: tried again, and not for ever."""

import time
from collections.abc import Callable, Iterator

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


def overtaken(store: Store, tries: list[None]) -> Callable[[ClientSession], None]:
    """A transaction in whose way somebody else's write comes at each try."""

    def write(session: ClientSession) -> None:
        tries.append(None)
        store["things"].find_one(session=session)
        store["things"].update_one({"_id": 1}, {"$inc": {"others": 1}})
        store["things"].update_one({"_id": 1}, {"$set": {"by": "one"}}, session=session)

    return write


def test_who_is_in_the_way_for_long_is_an_outage_that_passes(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mongo, "TRANSACTION_SECONDS_MAX", 0.5)
    store["things"].insert_one({"_id": 1})
    tries: list[None] = []
    with pytest.raises(PyMongoError) as raised:
        store.transaction(overtaken(store, tries))
    assert outages.is_passing(raised.value)
    assert len(tries) > 1


def test_who_tries_several_times_gives_up_at_one_time(store: Store) -> None:
    """Otherwise a request could hold its thread for this time, and then again and again."""
    store["things"].insert_one({"_id": 1})
    before = time.monotonic()
    with pytest.raises(PyMongoError) as raised:
        store.transaction(overtaken(store, []), before + 0.5)
    assert time.monotonic() < before + mongo.TRANSACTION_SECONDS_MAX / 2
    assert outages.is_passing(raised.value)


def test_it_is_run_again_once_nobody_is_in_the_way(store: Store) -> None:
    store["things"].insert_one({"_id": 1})
    tries: list[None] = []
    overtake = overtaken(store, tries)

    def write(session: ClientSession) -> None:
        if not tries:
            overtake(session)
        store["things"].update_one({"_id": 1}, {"$set": {"by": "one"}}, session=session)

    store.transaction(write, time.monotonic() + 60)
    assert store["things"].find_one() == {"_id": 1, "others": 1, "by": "one"}
