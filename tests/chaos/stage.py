"""Everything that a run is made of: three mongods, two server processes, workers, the wire.

It starts them, finds them by what they are (the victim of a fault is chosen here), and starts
again what has died, as whoever runs them for real would.
"""

import contextlib
import json
import os
import signal
import sys
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from random import Random

from pymongo import MongoClient

from tests.chaos.ground import Loopback
from tests.chaos.injected import clock_environment
from tests.chaos.wire import Wire
from tests.harness import Api, Processes, Started, eventually
from tests.harness.replica_set import Client, Member, ReplicaSet
from tests.harness.server import as_environment
from tests.worker.launched import alive

KNOBS = {"LEASE_SECONDS": 6, "LEASE_MARGIN_SECONDS": 2, "UPKEEP_SECONDS": 0.5}
READY_SECONDS = 90
_WORKER_DISK_BYTES = 16 << 20
_MEMBER_DISK_BYTES = 3 << 30
_MEMBERS = ("m1", "m2", "m3")
SERVER = "server"
_BANYAN = [sys.executable, "-m", "banyan"]


class Post:
    """One worker's place: its state directory, and whoever is at work there now."""

    def __init__(self, name: str, directory: Path) -> None:
        self.name = name
        self.directory = directory
        self.agent: Started | None = None

    @property
    def launcher(self) -> int | None:
        """The process id of the launcher that lives there; None where there is none."""
        try:
            pid = int((self.directory / "launcher.pid").read_text().split()[0])
            command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except (OSError, ValueError):
            return None
        return pid if os.fsencode(self.directory) in command and alive(pid) else None

    @property
    def living(self) -> bool:
        return self.agent is not None and self.agent.process.poll() is None

    @property
    def registered(self) -> bool:
        """Whether the agent there has told who it is."""
        return (self.directory / "worker.json").exists()

    def tasks(self) -> list[int]:
        """The processes that the launcher has started."""
        return children_of(self.launcher)


class Stage:
    """One run's processes. The directory holds all that they write."""

    def __init__(
        self,
        ground: Loopback,
        processes: Processes,
        directory: Path,
        workers: int,
    ) -> None:
        self.ground = ground
        self.processes = processes
        self.directory = directory
        self.posts = [Post(f"w{n}", directory / f"w{n}") for n in range(1, workers + 1)]
        self.clock = {"server": self._clock("server"), "worker": self._clock("worker")}
        self.server: Started | None = None
        self.held_down: set[str] = set()  # what a fault keeps from being started again
        self.launchers: set[int] = set()  # all that there ever were
        self.admitted: list[tuple[str, float, float]] = []
        for place in (SERVER, *_MEMBERS, *(post.name for post in self.posts)):
            ground.add(place)
        for name in _MEMBERS:
            ground.disk(directory / "mongo" / name, _MEMBER_DISK_BYTES)
        for post in self.posts:
            ground.disk(post.directory, _WORKER_DISK_BYTES)
        self.members = ReplicaSet(
            processes,
            directory / "mongo",
            [ground.address(name) for name in _MEMBERS],
            [lambda given, name=name: ground.command(name, given) for name in _MEMBERS],
            port=27_100 + os.getpid() % 800 * 4,
        )

    # --- starting ---------------------------------------------------------------------

    def start(self) -> None:
        """Start everything; returns when a worker is at work."""
        self.members.start()
        self._start_server()
        assert self.server is not None, "it was started just now"
        ready = json.loads(self.server.line(READY_SECONDS))
        port = int(ready["url"].rpartition(":")[2])
        self.port = port
        self.tokens: dict[str, str] = json.loads(Path(ready["credentials"]).read_text())
        with self.ground.inside(SERVER):
            self.wire = Wire(self.ground.address(SERVER), port)
        self.provider = Api(self.wire.url, self.tokens["provider"])
        for post in self.posts:
            self._start_worker(post)
        for post in self.posts:
            eventually(lambda one=post: one.registered or not one.living, READY_SECONDS)
            assert post.agent is not None, "it was started just now"
            assert post.registered, post.agent.stderr

    def _start_server(self) -> None:
        data = ["--data", str(self.directory / "server"), "--port", str(getattr(self, "port", 0))]
        program = [*_BANYAN, "server", "--json", "--processes", "2", *data]
        environment = {
            "BANYAN_MONGO_URI": self.members.uri,
            **as_environment(KNOBS),
            **self.clock["server"],
        }
        self.server = self.processes.start(self.ground.command(SERVER, program), environment)

    def _start_worker(self, post: Post) -> None:
        token = self.directory / "server" / "credentials"
        own = ["--token-file", str(token), "--state-directory", str(post.directory)]
        own += ["--cores", "4", "--memory", "2 GiB", "--host", post.name]
        own += ["--run-as", "root"] if os.geteuid() == 0 else []
        program = [*_BANYAN, "worker", "--url", self.wire.url, *own]
        # All networks of a stage are on this machine.
        environment = {**self.clock["worker"], "BANYAN_ALLOW_PLAIN_HTTP": "1"}
        post.agent = self.processes.start(self.ground.command(post.name, program), environment)

    def revive(self) -> None:
        """Start again what has died, but for what a fault keeps down."""
        if "members" not in self.held_down:
            self.members.revive()
        if self.server and self.server.process.poll() is not None:
            self._start_server()
        self.launchers.update(post.launcher for post in self.posts if post.launcher)
        for post in self.posts:
            if not post.living and post.name not in self.held_down:
                self._start_worker(post)

    def _clock(self, name: str) -> dict[str, str]:
        """What makes a process heed an injected clock."""
        place = self.directory / "clocks" / name
        place.mkdir(parents=True)
        return clock_environment(place)

    # --- finding ----------------------------------------------------------------------

    def post(self, chance: Random) -> Post:
        """A worker that is at work."""
        living = [post for post in self.posts if post.living]
        return chance.choice(living or self.posts)

    @property
    def members_by_place(self) -> dict[str, Member]:
        """The mongods by the places at which they stand."""
        return dict(zip(_MEMBERS, self.members.members, strict=True))

    def primary_place(self) -> str | None:
        """Where the primary stands."""
        primary = self.members.primary()
        found = [place for place, one in self.members_by_place.items() if one is primary]
        return found[0] if found else None

    @cached_property
    def operator(self) -> Api:
        """An account that may remove workers."""
        admin = Api(self.wire.url, self.tokens["admin"])
        made = admin.post("accounts", {"name": "chaos", "roles": ["operator"]})
        return Api(self.wire.url, made.json()["token"])

    def server_processes(self) -> list[int]:
        """The processes that answer, without their supervisor."""
        return [
            pid
            for pid in children_of(self.server.pid if self.server else None)
            if b"banyan.server.serve" in _command(pid)
        ]

    def members_client(self) -> Client:
        """A connection to the whole set."""
        return MongoClient(self.members.uri, serverSelectionTimeoutMS=10_000, tz_aware=True)

    # --- ending -----------------------------------------------------------------------

    def stop(self) -> None:
        """End all in order: the workers first. Fails where something does not end."""
        agents = [post.agent for post in self.posts if post.agent and post.living]
        for agent in agents:
            agent.signal(signal.SIGTERM)
        for agent in agents:  # the first signal drains it, the second ends what it runs
            eventually(lambda one=agent: _has_heard(one), READY_SECONDS)
            agent.signal(signal.SIGTERM)
        for post in self.posts:
            if post.agent:
                post.agent.wait(READY_SECONDS)
        if self.server:
            self.server.terminate(READY_SECONDS)

    def stop_database(self) -> None:
        """After the judge has looked at it."""
        with contextlib.suppress(AttributeError):
            self.wire.close()
        for member in self.members.members:
            member.signal(signal.SIGKILL)


def _has_heard(agent: Started) -> bool:
    return agent.process.poll() is not None or "draining" in agent.stderr


def signal_all(pids: Iterable[int], number: signal.Signals) -> list[int]:
    """Signal these processes, as far as they live; those that were."""
    reached = []
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
            reached.append(pid)
    return reached


def children_of(pid: int | None) -> list[int]:
    """The children of a process."""
    if pid is None:
        return []
    found: list[int] = []
    with contextlib.suppress(OSError):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            found += map(int, (thread / "children").read_text().split())
    return found


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""
