"""Who has removed the socket of the database: a cleaner, or the database itself."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from pymongo.uri_parser import parse_uri

from banyan.server import data_watch
from banyan.server.data_watch import DataWatch
from banyan.server.directory import DirectoryLock
from banyan.server.mongo_home import MongoHome
from banyan.socket_paths import short_path


@pytest.fixture
def home(tmp_path: Path) -> MongoHome:
    home = MongoHome(tmp_path)
    home.prepare()
    (home.data / "WiredTiger").touch()
    return home


@pytest.fixture
def watch(tmp_path: Path, home: MongoHome) -> Iterator[DataWatch]:
    with DirectoryLock(tmp_path) as lock:
        yield DataWatch(lock, home, [])


def test_a_database_that_ends_in_order_is_no_cleaner(
    home: MongoHome,
    watch: DataWatch,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It removes its socket first, goes on listening for a while, and takes up no connection."""
    monkeypatch.setattr(data_watch, "_ANSWER_SECONDS", 0.1)
    with socket.socket(socket.AF_UNIX) as database:
        database.bind(short_path(home.socket))
        database.listen()
        home.open_entrance()
        assert watch.look(home.sockets) == []
        home.socket.unlink()
        assert watch.look(home.sockets) == []
    assert watch.look(home.sockets) == [], "it is over, and its end is not noticed yet"
    assert caplog.messages == []


def test_a_cleaner_is_told_of_where_the_database_answers(
    home: MongoHome, watch: DataWatch, caplog: pytest.LogCaptureFixture, mongo: str
) -> None:
    entrance, _ = parse_uri(mongo)["nodelist"][0]
    if not entrance.startswith("/"):
        pytest.skip("the database of the tests has no unix socket")
    home.entrance.symlink_to(entrance)
    assert watch.look(home.sockets) == [home.socket]
    assert "somebody has removed mongo/mongod.sock" in caplog.text


def test_what_no_database_removes_a_cleaner_has(
    home: MongoHome, watch: DataWatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert watch.look(home.sockets) == home.sockets
    assert "mongo/mongod.sock, mongo/primary.sock" in caplog.text
