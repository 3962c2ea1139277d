"""The tests' MongoDB: named by BANYAN_TEST_MONGO_URI, else a private one for the session."""

import hashlib
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from pymongo import MongoClient

from banyan.server.embedded import PrivateMongo
from banyan.server.mongod import find_mongod
from banyan.server.replica_set import ROLES, SET, USER
from tests.harness.eventually import eventually
from tests.harness.processes import Processes, Started


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


def mongo_on_a_port(processes: Processes, home: Path, port: int) -> tuple[str, Started]:
    """A MongoDB as an operator starts one without much thought: its address, and its process.

    Its files are those of the private MongoDBs of earlier versions of Banyan.
    """
    (home / "data").mkdir(parents=True, mode=0o700)
    home.chmod(0o700)
    key = home / "key"
    key.touch(0o600)
    key.write_text("0123456789abcdef" * 8)
    arguments = [find_mongod().path, "--dbpath", str(home / "data"), "--replSet", SET, "--quiet"]
    arguments += ["--bind_ip", "127.0.0.1", "--port", str(port), "--nounixsocket"]
    arguments += ["--keyFile", str(key), "--logpath", str(home / "log"), "--oplogSize", "128"]
    started = processes.start(arguments)
    place = f"127.0.0.1:{port}"
    system = f"mongodb://__system:{key.read_text()}@{place}/?authSource=local"
    password = hashlib.sha256(f"{USER}:{key.read_text()}".encode()).hexdigest()
    with MongoClient[Any](system, directConnection=True) as client:
        members = [{"_id": 0, "host": place}]
        client.admin.command("replSetInitiate", {"_id": SET, "members": members})
        eventually(lambda: client.admin.command("hello")["isWritablePrimary"], 30)
        client.admin.command("createUser", USER, pwd=password, roles=ROLES)
    return f"mongodb://{USER}:{password}@{place}/?replicaSet={SET}&authSource=admin", started
