"""The database that is to be looked at: opened for a while, its troubles in our own words."""

from collections.abc import Iterator
from contextlib import contextmanager

from pymongo.errors import PyMongoError

from banyan.errors import BanyanError
from banyan.server.store.mongo import Store


@contextmanager
def database(mongo_uri: str) -> Iterator[Store]:
    """A store for as long as the block lasts. Errors: `unavailable`, `usage`."""
    try:
        store = Store(mongo_uri)
    except PyMongoError as error:
        raise BanyanError("usage", f"this names no MongoDB: {error}") from None
    try:
        yield store
    except PyMongoError as error:
        message = f"the database does not let itself be looked at: {error}"
        raise BanyanError("unavailable", message) from None
    finally:
        store.close()
