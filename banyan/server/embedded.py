"""A private MongoDB: one mongod on this machine, its data kept in the data directory.

Started by the supervisor (and by the tests) where no MongoDB is named. It is a replica
set of one member, because retryable writes, transactions and change streams need a set.
It listens on a unix socket in a directory of this user alone, on no port at all, and asks
for a password: on a machine with several users, whoever may write tasks may run commands
as the user whose worker it is.

It must never be started from two processes at once: the supervisor holds the lock.
"""

import contextlib
import hashlib
import socket
import time
from pathlib import Path

from banyan.errors import BanyanError
from banyan.server.data_watch import refuse_empty, told_if_full
from banyan.server.mongo_home import MongoHome
from banyan.server.mongod import find_mongod
from banyan.server.processes import Child, spawn
from banyan.server.replica_set import HOST, SET, USER, Client, address, make_primary, member
from banyan.socket_paths import shared_path, short_path

_START_SECONDS = 60.0  # an unclean end may leave a long journal to replay
_STOP_SECONDS = 20.0
_POLL_SECONDS = 0.02
# A slow command is written into mongod's log as a whole: environments of tasks, too.
NEVER_SLOW_MILLISECONDS = 2**31 - 1
_TRANSACTION_SECONDS_MAX = 5  # of which ours take a small part
_EXIT_OTHER_VERSION = 62
_ERROR_LINES_MAX = 4  # more is where it broke down, which tells nobody anything


def running_uri(data_directory: Path) -> str:
    """Where the MongoDB of a running `banyan up` is, password included. Errors: `usage`."""
    mongo = PrivateMongo(data_directory)
    if not mongo.find():
        raise BanyanError(
            "usage",
            f"no private MongoDB runs in {data_directory}: start `banyan up` there, "
            "name another --data, or --mongo",
        )
    return mongo.uri


class PrivateMongo:
    """The mongod of one data directory; `start()` it, use `.uri`, `stop()` it.

    home: its directory.
    cache_gigabytes: WiredTiger's cache; 0.25 is the least that mongod takes.
    """

    def __init__(self, data_directory: Path, cache_gigabytes: float = 0.25) -> None:
        self.home = MongoHome(data_directory)
        self._cache_gigabytes = cache_gigabytes
        self._key = ""
        self._had_files = False  # as it was started by us before
        self.child: Child | None = None

    @property
    def uri(self) -> str:
        """Where it is, password included: hand it on in the environment, not in arguments.

        Processes of this user can use it for as long as this process lives.
        """
        return (
            f"mongodb://{USER}:{self._password()}@{address(shared_path(self.home.entrance))}/"
            "?authSource=admin&directConnection=true"
        )

    def start(self) -> Child:
        """Start it and return once it takes writes.

        Errors: `no_mongod`; `data_directory_in_use` where another mongod has the files;
        `usage` where somebody else has had a hand in them; `unavailable` with the log's place
        where it does not come up.
        """
        mongod = find_mongod()
        if self.child:
            self.child.wait_or_kill(_STOP_SECONDS)
        if self._had_files:
            refuse_empty(self.home)
        self._key = self.home.prepare()
        self.home.close_entrance()
        self.home.wait_until_free()
        deadline = time.monotonic() + _START_SECONDS
        name, arguments = f"{mongod.path} ({mongod.origin})", self._arguments(mongod.path)
        child = self.child = spawn(
            name, arguments, apart=self.home.errors, directory=self.home.path
        )
        try:
            self._bring_up(child, deadline)
        except BanyanError:
            self.stop()
            raise
        self._had_files = True
        return child

    def find(self) -> bool:
        """Whether one was started here before; then `uri` is that one's. Errors: `usage`."""
        self._key = self.home.find() or ""
        return bool(self._key)

    def stop(self) -> None:
        """End it in order; killed where that takes longer than 20 seconds."""
        if self.child:
            self.child.stop(_STOP_SECONDS)
            self.home.close_entrance()
            self.child = None

    def member(self) -> Client:
        """A connection with all rights, for who has to do more to it than the server may."""
        return member(shared_path(self.home.socket), self._key)

    def _bring_up(self, child: Child, deadline: float) -> None:
        place = short_path(self.home.socket)
        while not self._listens(place):
            self._check_life(child, deadline)
            time.sleep(_POLL_SECONDS)
        self.home.check_socket()

        def alive() -> bool:
            self._check_life(child, deadline)
            return True

        make_primary(place, self._key, self._password(), alive)
        self.home.open_entrance()

    def _arguments(self, program: str) -> list[str]:
        return [
            *(program, "--dbpath", str(self.home.data), "--replSet", SET),
            # The port is not listened on: it must be none that the socket's name could have.
            *("--bind_ip", HOST, "--port", "1", "--nounixsocket"),
            *("--keyFile", str(self.home.key), "--noscripting"),
            # Until there is a user, whoever reaches it would be let in to make one.
            *("--setParameter", "enableLocalhostAuthBypass=false"),
            # Before 6.0.27 and 7.0.28 a compressed message reads memory (CVE-2025-14847).
            *("--networkMessageCompressors", "disabled"),
            *("--wiredTigerCacheSizeGB", str(self._cache_gigabytes), "--oplogSize", "128"),
            *("--setParameter", "diagnosticDataCollectionEnabled=false", "--quiet"),
            # What a killed server left open stands in the way of others for so long.
            *("--setParameter", f"transactionLifetimeLimitSeconds={_TRANSACTION_SECONDS_MAX}"),
            *("--slowms", str(NEVER_SLOW_MILLISECONDS)),
            *("--logpath", str(self.home.log), "--logappend"),
        ]

    def _listens(self, place: str) -> bool:
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(1.0)
            probe.connect(place)
            return True
        return False

    def _check_life(self, child: Child, deadline: float) -> None:
        """Errors: `unavailable` where it has ended, or takes too long."""
        code = child.ended()
        if code == _EXIT_OTHER_VERSION:
            said = f"can't read {self.home.data}, which another version of MongoDB has written"
        elif code is not None and (full := told_if_full(self.home.path)):
            said = f"cannot start: {full}"
        elif code is not None and (error := self._last_error()):
            said = f"ended at its start with {code}: {error}"
        elif code is not None:
            said = f"ended at its start with {code}; its last words are in {self.home.log}"
        elif time.monotonic() > deadline:
            said = f"is not ready after {_START_SECONDS:.0f} s: see {self.home.log}"
        else:
            return
        raise BanyanError("unavailable", f"{child.name} {said}")

    def _last_error(self) -> str:
        """What it has printed last: that a library is missing, say."""
        with contextlib.suppress(OSError):
            lines = self.home.errors.read_text(errors="replace").strip().splitlines()
            return lines[-1] if 0 < len(lines) < _ERROR_LINES_MAX else ""
        return ""

    def _password(self) -> str:
        return hashlib.sha256(f"{USER}:{self._key}".encode()).hexdigest()
