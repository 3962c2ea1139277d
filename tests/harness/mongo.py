"""The tests' MongoDB: named by BANYAN_TEST_MONGO_URI, else a private one for the session."""

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from pymongo import MongoClient

from banyan.server.embedded import PrivateMongo


@contextmanager
def session_mongo(directory: Path) -> Iterator[str]:
    """The address of a MongoDB that lasts for the whole session of tests."""
    named = os.environ.get("BANYAN_TEST_MONGO_URI")
    if named:
        yield named
        return
    mongo = PrivateMongo(directory)
    mongo.start()
    try:
        yield mongo.uri
    finally:
        mongo.stop()


@contextmanager
def database(uri: str) -> Iterator[str]:
    """The address of a database that nobody else uses; dropped at the end."""
    name = f"banyan_test_{uuid.uuid4().hex[:16]}"
    try:
        yield with_database(uri, name)
    finally:
        with MongoClient[dict[str, object]](uri) as client:
            client.drop_database(name)


def with_database(uri: str, name: str) -> str:
    """The same address, naming another database; credentials stay where they were."""
    parts = urlsplit(uri)
    query = parts.query
    if "@" in parts.netloc and "authsource" not in query.lower():
        query = "&".join(filter(None, [query, f"authSource={parts.path.strip('/') or 'admin'}"]))
    return urlunsplit((parts.scheme, parts.netloc, f"/{name}", query, ""))
