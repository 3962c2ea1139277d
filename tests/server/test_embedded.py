"""The private MongoDB: its data stays, it ends with its parent, it comes up whatever happened."""

import signal
import socket
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from pymongo import MongoClient
from pymongo.errors import OperationFailure

from banyan.errors import BanyanError
from banyan.server import embedded
from banyan.server.directory import DirectoryLock
from banyan.server.embedded import PrivateMongo, find_mongod
from tests.harness import Processes, eventually

READY_SECONDS = 5.0

PARENT = """
import signal, sys
from pathlib import Path
from banyan.server.directory import DirectoryLock
from banyan.server.embedded import PrivateMongo
with DirectoryLock(Path(sys.argv[1])):
    mongo = PrivateMongo(Path(sys.argv[1]))
    mongo.start()
    print(mongo.child.pid, mongo.uri, flush=True)
    signal.pause()
"""


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def mongo(data: Path) -> Iterator[PrivateMongo]:
    mongo = PrivateMongo(data)
    mongo.start()
    yield mongo
    mongo.stop()


def keys(uri: str) -> set[str]:
    with MongoClient(uri) as client:
        return {found["key"] for found in client.test.things.find()}


def insert(uri: str, key: str) -> None:
    with MongoClient(uri) as client:
        client.test.things.insert_one({"key": key})


def seconds_to_start(mongo: PrivateMongo) -> float:
    began = time.monotonic()
    mongo.start()
    return time.monotonic() - began


def test_transactions_retryable_writes_and_change_streams_work(mongo: PrivateMongo) -> None:
    with MongoClient(mongo.uri) as client:
        things = client.test.things
        assert client.options.retry_writes
        with things.watch() as changes:
            with client.start_session() as session, session.start_transaction():
                things.insert_one({"key": "in a transaction"}, session=session)
            assert changes.next()["fullDocument"]["key"] == "in a transaction"


def test_data_stays_over_an_orderly_stop(mongo: PrivateMongo, data: Path) -> None:
    insert(mongo.uri, "kept")
    mongo.stop()
    again = PrivateMongo(data)
    try:
        assert seconds_to_start(again) <= READY_SECONDS
        assert keys(again.uri) == {"kept"}
    finally:
        again.stop()


def test_an_unclean_end_is_recovered(mongo: PrivateMongo, data: Path) -> None:
    insert(mongo.uri, "acknowledged")
    assert mongo.child is not None
    mongo.child.signal(signal.SIGKILL)
    again = PrivateMongo(data)  # at once: the killed one may not be gone yet
    try:
        assert seconds_to_start(again) <= READY_SECONDS
        assert keys(again.uri) == {"acknowledged"}
    finally:
        again.stop()


def test_a_taken_port_is_got_round(mongo: PrivateMongo, data: Path) -> None:
    insert(mongo.uri, "kept")
    port = int((data / "mongo" / "port").read_text())
    mongo.stop()
    with socketserver.TCPServer(("127.0.0.1", port), socketserver.BaseRequestHandler, False) as it:
        it.allow_reuse_address = True
        it.server_bind()
        it.server_activate()
        threading.Thread(target=it.serve_forever, daemon=True).start()
        again = PrivateMongo(data)
        try:
            assert seconds_to_start(again) <= READY_SECONDS
            assert f":{port}/" not in again.uri
            assert keys(again.uri) == {"kept"}
        finally:
            again.stop()
            it.shutdown()


def test_it_ends_when_its_parent_is_killed(processes: Processes, data: Path) -> None:
    parent = processes.start([sys.executable, "-c", PARENT, str(data)])
    pid, uri = parent.line().split()
    insert(uri, "acknowledged")
    parent.kill()
    eventually(lambda: not Path(f"/proc/{pid}").exists(), 5)
    again = PrivateMongo(data)
    try:
        again.start()
        assert keys(again.uri) == {"acknowledged"}
    finally:
        again.stop()


def test_a_second_start_on_the_directory_is_refused(processes: Processes, data: Path) -> None:
    parent = processes.start([sys.executable, "-c", PARENT, str(data)])
    parent.line()
    with pytest.raises(BanyanError) as refusal, DirectoryLock(data):
        pytest.fail("the lock was given twice")
    assert refusal.value.word == "data_directory_in_use"
    assert str(parent.pid) in refusal.value.message
    parent.kill()
    with DirectoryLock(data):
        assert (data / "lock").read_text().strip().isdigit()


def test_without_the_lock_the_files_themselves_refuse(mongo: PrivateMongo, data: Path) -> None:
    with pytest.raises(BanyanError) as refusal:
        PrivateMongo(data).start()
    assert refusal.value.word == "data_directory_in_use"


def test_it_listens_on_loopback_only_and_asks_for_the_password(mongo: PrivateMongo) -> None:
    assert mongo.child is not None
    assert listening_addresses(mongo.child.pid) == {"127.0.0.1"}
    stranger = mongo.uri.split("@")[1].split("?")[0]
    with (
        MongoClient(f"mongodb://{stranger}", directConnection=True) as client,
        pytest.raises(OperationFailure, match="requires authentication"),
    ):
        client.test.things.find_one()


def test_scripts_in_the_database_are_off(mongo: PrivateMongo) -> None:
    with MongoClient(mongo.uri) as client, pytest.raises(OperationFailure):
        client.test.things.find_one({"$where": "true"})


def test_no_mongod_is_said_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(embedded.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(BanyanError, match=r"banyan\[embedded\]") as refusal:
        find_mongod()
    assert refusal.value.word == "no_mongod"


def test_what_keeps_mongod_from_starting_is_told(data: Path) -> None:
    (data / "mongo" / "data").mkdir(parents=True)
    (data / "mongo" / "data" / "WiredTiger.wt").write_bytes(b"not a database")
    (data / "mongo" / "data" / "storage.bson").write_bytes(b"nor this")
    with pytest.raises(BanyanError, match="last words are in") as refusal:
        PrivateMongo(data).start()
    assert refusal.value.word == "unavailable"


def listening_addresses(pid: int) -> set[str]:
    """The addresses on which a process listens, from the kernel's own tables."""
    links = [link.resolve().name for link in Path(f"/proc/{pid}/fd").iterdir()]
    inodes = {name[8:-1] for name in links if name.startswith("socket:[")}
    found = set()
    for table, width in (("tcp", 8), ("tcp6", 32)):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in inodes:
                address = fields[1].split(":")[0]
                assert len(address) == width
                found.add(socket.inet_ntoa(bytes.fromhex(address)[::-1]) if width == 8 else address)
    return found


def test_a_child_must_be_started_from_the_main_thread() -> None:
    code = """
import threading
from banyan.server.processes import spawn
def start():
    try:
        spawn("x", ["true"])
    except RuntimeError as error:
        print(error)
thread = threading.Thread(target=start)
thread.start()
thread.join()
"""
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "the thread that started it" in told.stdout
