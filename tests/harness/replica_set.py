"""A replica set of three real mongods, any of which may be killed, frozen and started again.

Used by the chaos run and by tests of failover. Its elections are quick, so that many fit into
a minute; it asks for a password, as a real one does.
"""

import contextlib
import secrets
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pymongo import MongoClient
from pymongo.errors import OperationFailure, PyMongoError

from banyan.server.embedded import NEVER_SLOW_MILLISECONDS
from banyan.server.mongod import find_mongod
from banyan.server.replica_set import ROLES
from tests.harness.eventually import eventually
from tests.harness.processes import Processes, Started

NAME = "trio"
DATABASE = "banyan"
_USER = "banyan"
_PORT_FIRST = 27_100
_ELECTION_MILLISECONDS = 2000
_SECONDS = 60.0

Client = MongoClient[dict[str, Any]]
Wrap = Callable[[list[str]], list[str]]


class Member:
    """One mongod: its place, its files, its process."""

    def __init__(
        self, processes: Processes, directory: Path, host: str, port: int, wrap: Wrap
    ) -> None:
        self.directory = directory
        self.host, self.port = host, port
        self.process: Started | None = None
        self._processes = processes
        self._wrap = wrap

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port}"

    @property
    def pid(self) -> int:
        assert self.process is not None, "it was never started"
        return self.process.pid

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.process.poll() is None

    def start(self, key: Path) -> None:
        """Start it; it may be a while until it answers."""
        data = self.directory / "data"
        data.mkdir(exist_ok=True)
        arguments = [find_mongod().path, "--dbpath", str(data), "--replSet", NAME]
        arguments += ["--bind_ip", self.host, "--port", str(self.port), "--nounixsocket"]
        arguments += ["--keyFile", str(key), "--noscripting", "--quiet"]
        arguments += ["--wiredTigerCacheSizeGB", "0.25", "--oplogSize", "990"]
        arguments += ["--slowms", str(NEVER_SLOW_MILLISECONDS)]
        arguments += ["--networkMessageCompressors", "disabled"]
        arguments += ["--setParameter", "enableLocalhostAuthBypass=false"]
        arguments += ["--setParameter", "diagnosticDataCollectionEnabled=false"]
        arguments += ["--setParameter", "enableTestCommands=1"]
        arguments += ["--setParameter", "transactionLifetimeLimitSeconds=5"]
        arguments += ["--logpath", str(self.directory / "log"), "--logappend"]
        self.process = self._processes.start(self._wrap(arguments))

    def signal(self, number: signal.Signals) -> None:
        if self.process:
            self.process.signal(number)


class ReplicaSet:
    """Three members; `uri` is what a server is given."""

    def __init__(
        self,
        processes: Processes,
        directory: Path,
        hosts: Sequence[str] = ("127.0.0.1",) * 3,
        wraps: Sequence[Wrap] = (list, list, list),
        port: int = _PORT_FIRST,
    ) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.key = directory / "key"
        self.key.touch(mode=0o600)
        self.key.write_text(secrets.token_hex(64))
        self.password = secrets.token_hex(16)
        self.members = []
        for number, (host, wrap) in enumerate(zip(hosts, wraps, strict=True), start=1):
            place = directory / f"m{number}"
            place.mkdir(exist_ok=True)
            self.members.append(Member(processes, place, host, port + number, wrap))

    @property
    def uri(self) -> str:
        """The whole set, for a server."""
        hosts = ",".join(member.address for member in self.members)
        options = f"replicaSet={NAME}&authSource=admin"
        return f"mongodb://{_USER}:{self.password}@{hosts}/{DATABASE}?{options}"

    def start(self) -> None:
        """Start all, make them a set, and return once there is a primary."""
        for member in self.members:
            member.start(self.key)
        first = self.members[0]
        eventually(lambda: self._initiated(first), _SECONDS)
        eventually(self._has_user, _SECONDS)

    def primary(self) -> Member | None:
        """The member that takes writes now, as far as one says so."""
        for member in self.members:
            with contextlib.suppress(PyMongoError), self.direct(member) as client:
                if client.admin.command("hello").get("isWritablePrimary"):
                    return member
        return None

    def direct(self, member: Member, milliseconds: int = 1000) -> Client:
        """A connection to one member, with all rights."""
        return MongoClient(
            member.host,
            member.port,
            directConnection=True,
            username="__system",
            password=self.key.read_text(),
            authSource="local",
            serverSelectionTimeoutMS=milliseconds,
            connectTimeoutMS=milliseconds,
            socketTimeoutMS=2 * milliseconds,
        )

    def revive(self) -> None:
        """Start again what has died."""
        for member in self.members:
            if not member.alive:
                member.start(self.key)

    def _initiated(self, first: Member) -> bool:
        members = [
            {"_id": number, "host": member.address} for number, member in enumerate(self.members)
        ]
        settings = {"electionTimeoutMillis": _ELECTION_MILLISECONDS, "heartbeatIntervalMillis": 500}
        config = {"_id": NAME, "members": members, "settings": settings}
        try:
            with self.direct(first) as client:
                client.admin.command("replSetInitiate", config)
        except OperationFailure as error:
            return error.code == 23  # it was done before, and the answer was lost
        except PyMongoError:
            return False
        return True

    def _has_user(self) -> bool:
        primary = self.primary()
        if primary is None:
            return False
        try:
            with self.direct(primary) as client:
                client.admin.command("createUser", _USER, pwd=self.password, roles=ROLES)
        except OperationFailure as error:
            return error.code == 51003
        except PyMongoError:
            return False
        return True
