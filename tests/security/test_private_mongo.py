"""The private MongoDB: nobody else reaches it, is let in, reads its memory, or plants its files."""

import contextlib
import os
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import bson
import pytest
from pymongo import MongoClient
from pymongo.errors import ConnectionFailure, OperationFailure

from banyan.errors import BanyanError
from banyan.server.embedded import PrivateMongo, running_uri
from banyan.server.mongo_home import MongoHome
from banyan.server.replica_set import ROLES, USER, address
from tests.security.others import NOBODY, give
from tests.worker.test_run_as import needs_root

OP_COMPRESSED, OP_MSG, ZLIB = 2012, 2013, 2

# As another user: connects as often as it can until it is told to end; how often it got through.
STRANGER = """
import os, select, socket, sys
os.setgroups([]), os.setgid(int(sys.argv[2])), os.setuid(int(sys.argv[2]))
through = tries = 0
while not select.select([sys.stdin], [], [], 0.001)[0]:
    tries += 1
    with socket.socket(socket.AF_UNIX) as one:
        try:
            one.connect(sys.argv[1])
            through += 1
        except OSError:
            pass
print(tries, through)
"""


@pytest.fixture
def data() -> Iterator[Path]:
    """A data directory that everybody may look into: `mongo/` has to do without its walls."""
    directory = Path(tempfile.mkdtemp(prefix="banyan-test-"))
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory)


@pytest.fixture
def mongo(data: Path) -> Iterator[PrivateMongo]:
    mongo = PrivateMongo(data)
    yield mongo
    mongo.stop()


def users(mongo: PrivateMongo) -> list[str]:
    with mongo.member() as client:
        found = client.admin.command("usersInfo", {"forAllDBs": True})["users"]
    return [one["_id"] for one in found]


class Intruder(threading.Thread):
    """Without credentials, but at the socket itself: asks to become a user, again and again."""

    def __init__(self, place: Path) -> None:
        super().__init__()
        self.refused = self.made = 0
        self.over = threading.Event()
        self._place = place

    def run(self) -> None:
        while not self._is_there():  # a driver would look again only after half a second
            if self.over.wait(0.001):
                return
        with MongoClient[dict[str, object]](
            f"mongodb://{address(str(self._place))}", directConnection=True
        ) as client:
            while not self.over.is_set():
                self._ask(client)

    def _is_there(self) -> bool:
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as probe:
            probe.connect(str(self._place))
            return True
        return False

    def _ask(self, client: MongoClient[dict[str, object]]) -> None:
        try:
            client.admin.command("createUser", "evil", pwd="evil", roles=["root"])
            self.made += 1
        except ConnectionFailure:
            pass  # it drops connections on its way up
        except OperationFailure as error:
            # 10107: not yet the primary. The localhost exception would have let it pass this far.
            self.refused += error.code == 13


def test_nobody_is_made_a_user_while_it_starts(mongo: PrivateMongo, data: Path) -> None:
    intruder = Intruder(data / "mongo" / "mongod.sock")
    intruder.start()
    try:
        mongo.start()
    finally:
        intruder.over.set()
        intruder.join()
    assert (intruder.made, users(mongo)) == (0, ["admin.banyan"])
    assert intruder.refused > 0, "it never came as far as being refused"


@needs_root
def test_another_user_never_gets_as_far_as_the_socket(mongo: PrivateMongo, data: Path) -> None:
    stranger = subprocess.Popen(
        [sys.executable, "-c", STRANGER, str(data / "mongo" / "mongod.sock"), str(NOBODY)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        mongo.start()
    finally:
        told, _ = stranger.communicate("\n")
    tries, through = map(int, told.split())
    assert tries > 0
    assert through == 0
    assert (data / "mongo").stat().st_mode & 0o777 == 0o700  # one wall,
    assert (data / "mongo" / "mongod.sock").stat().st_mode & 0o777 == 0o700  # and another


def test_users_that_are_not_ours_are_told_and_nothing_is_served(mongo: PrivateMongo) -> None:
    mongo.start()
    with mongo.member() as client:
        client.admin.command("createUser", "evil", pwd="evil", roles=["root"])
        client.test.command("createUser", "other", pwd="evil", roles=[])
    mongo.stop()
    with pytest.raises(BanyanError, match=r"admin\.evil, test\.other") as refusal:
        mongo.start()
    assert refusal.value.word == "usage"
    assert mongo.child is None


def test_what_our_user_may_do_is_put_right_at_the_start(mongo: PrivateMongo) -> None:
    mongo.start()
    with mongo.member() as client:
        client.admin.command("updateUser", USER, roles=[*ROLES, "root"])
    mongo.stop()
    mongo.start()
    with mongo.member() as client:
        (found,) = client.admin.command("usersInfo", USER)["users"]
    assert {one["role"] for one in found["roles"]} == set(ROLES)


def test_a_key_that_was_removed_is_made_again_and_the_old_password_is_void(
    mongo: PrivateMongo, data: Path
) -> None:
    mongo.start()
    before = mongo.uri
    mongo.stop()
    (data / "mongo" / "key").unlink()
    mongo.start()
    with MongoClient[dict[str, object]](mongo.uri) as client:
        assert client.test.things.insert_one({}).acknowledged
    with (
        MongoClient[dict[str, object]](before) as client,
        pytest.raises(OperationFailure, match="Authentication failed"),
    ):
        client.test.things.find_one()


# --- compressed messages -----------------------------------------------------------------


def hello(compressed: bool, claimed: int = 0) -> bytes:
    """The command `hello` on the wire. claimed: its size when unpacked; 0: the true one."""
    body = struct.pack("<i", 0) + b"\0" + bson.encode({"hello": 1, "$db": "admin"})
    code = OP_MSG
    if compressed:
        code, size = OP_COMPRESSED, claimed or len(body)
        body = struct.pack("<iiB", OP_MSG, size, ZLIB) + zlib.compress(body)
    return struct.pack("<iiii", 16 + len(body), 1, 0, code) + body


def answer(place: Path, message: bytes) -> bytes:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(30)
        connection.connect(str(place))
        connection.sendall(message)
        try:
            return connection.recv(65536)
        except ConnectionResetError:
            return b""


def test_compressed_messages_are_not_taken(mongo: PrivateMongo, data: Path) -> None:
    mongo.start()
    place = data / "mongo" / "mongod.sock"
    assert b"maxWireVersion" in answer(place, hello(compressed=False))
    assert answer(place, hello(compressed=True)) == b""
    assert answer(place, hello(compressed=True, claimed=4096)) == b""  # CVE-2025-14847


# --- planted files -----------------------------------------------------------------------


def open_to_all(home: Path) -> None:
    home.chmod(0o777)


def open_data(home: Path) -> None:
    (home / "data").mkdir()
    (home / "data").chmod(0o777)


def key_by_link(home: Path) -> None:
    (home / "real").write_text("planted")
    (home / "real").chmod(0o600)
    (home / "key").symlink_to("real")


def key_to_nowhere(home: Path) -> None:
    (home / "key").symlink_to(home / "nowhere")


def key_for_all(home: Path) -> None:
    (home / "key").write_text("planted")
    (home / "key").chmod(0o644)


def key_of_a_pipe(home: Path) -> None:
    os.mkfifo(home / "key", 0o600)


def no_directory(home: Path) -> None:
    home.rmdir()
    home.write_text("")


def of_another(home: Path) -> None:
    give(home)


def data_of_another(home: Path) -> None:
    (home / "data").mkdir()
    give(home / "data")


def key_of_another(home: Path) -> None:
    (home / "key").write_text("planted")
    (home / "key").chmod(0o600)
    give(home / "key")


def link_of_another(home: Path) -> None:
    home.rename(home.with_name("elsewhere"))
    home.symlink_to("elsewhere")
    give(home)


@pytest.mark.parametrize(
    ("plant", "said"),
    [
        (open_to_all, r"mongo can be written by others \(mode 0777\)"),
        (open_data, r"data can be written by others \(mode 0777\)"),
        (key_by_link, r"key can't be opened as a file"),
        (key_to_nowhere, r"key can't be opened as a file"),
        (key_for_all, r"key can be read by others \(mode 0644\)"),
        (key_of_a_pipe, r"key is no file"),
        (no_directory, r"mongo is no directory"),
        pytest.param(of_another, f"mongo belongs to user {NOBODY}", marks=needs_root),
        pytest.param(data_of_another, f"data belongs to user {NOBODY}", marks=needs_root),
        pytest.param(key_of_another, f"key belongs to user {NOBODY}", marks=needs_root),
        pytest.param(link_of_another, f"mongo belongs to user {NOBODY}", marks=needs_root),
    ],
)
def test_what_others_could_have_planted_is_not_used(
    mongo: PrivateMongo, data: Path, plant: Callable[[Path], None], said: str
) -> None:
    home = data / "mongo"
    home.mkdir(mode=0o700)
    plant(home)
    with pytest.raises(BanyanError, match=said) as refusal:
        mongo.start()
    assert refusal.value.word == "usage"
    assert "chmod" in refusal.value.message
    assert mongo.child is None
    assert not (data / "nowhere").exists()


def test_a_directory_behind_a_link_of_our_own_will_do(data: Path) -> None:
    (data / "elsewhere").mkdir(mode=0o755)
    (data / "mongo").symlink_to("elsewhere")
    assert MongoHome(data).prepare()
    assert (data / "elsewhere").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("planted", ["file", "link", "of another"])
def test_a_socket_that_is_none_of_ours_gets_no_password(
    mongo: PrivateMongo, data: Path, planted: str
) -> None:
    home = MongoHome(data)
    home.prepare()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(data / "planted"))
        listener.listen()
        if planted == "file":
            home.socket.touch()
        elif planted == "link":
            home.socket.symlink_to(data / "planted")
        elif os.geteuid() == 0:
            (data / "planted").rename(home.socket)
            give(home.socket)
        else:
            pytest.skip("only root can act as another user")
        with pytest.raises(BanyanError, match=r"mongod\.sock (is no socket|belongs to)"):
            running_uri(data)


@needs_root
def test_root_may_look_at_what_another_user_runs_and_no_third_one(data: Path) -> None:
    home = MongoHome(data)
    key = home.prepare()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(home.socket))
    for path in (home.path, home.key, home.socket):
        give(path)
    assert home.find() == key
    os.seteuid(1)
    try:
        assert home.find() is None  # it can't even see it
        os.seteuid(0)
        home.path.chmod(0o755)
        os.seteuid(1)
        with pytest.raises(BanyanError, match=f"mongo belongs to user {NOBODY}"):
            home.find()
    finally:
        os.seteuid(0)
    os.chown(home.key, 1, 1)
    with pytest.raises(BanyanError, match="key belongs to user 1"):
        home.find()


def test_where_none_runs_it_is_said(data: Path) -> None:
    with pytest.raises(BanyanError, match="no private MongoDB runs") as refusal:
        running_uri(data)
    assert refusal.value.word == "usage"
