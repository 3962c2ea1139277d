"""The processes of one data directory: started in the order of their needs, ended backwards.

Used by `banyan.server.supervisor`. mongod comes first, then the server processes on one
port, then the worker.
"""

import contextlib
import functools
import logging
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from pymongo.errors import ConnectionFailure, PyMongoError

from banyan.addresses import is_loopback
from banyan.errors import BanyanError
from banyan.server import bootstrap, exposure, listening, near
from banyan.server.data_watch import DataWatch, told_if_full
from banyan.server.directory import DirectoryLock
from banyan.server.embedded import PrivateMongo
from banyan.server.leaks import ADVICE
from banyan.server.options import Options
from banyan.server.probe import Probe
from banyan.server.processes import Child, spawn
from banyan.server.services import Service, environment, python
from banyan.server.store import release
from banyan.server.store.indexes import prepare_database
from banyan.server.store.mongo import Store

logger = logging.getLogger(__name__)

_READY_SECONDS = 60.0
_SERVER_STOP_SECONDS = 8.0
_WORKER_STOP_SECONDS = 30.0
_WORKER_HINT_SECONDS = 1.0
_POLL_SECONDS = 0.05
_TICK_SECONDS = 1.0


class Stack:
    """Everything that runs for one data directory.

    woken: set when a child ends; then it is looked after at once.
    """

    def __init__(self, options: Options, woken: threading.Event) -> None:
        self._options = options
        self._woken = woken
        self._services: list[Service] = []
        self._mongo: PrivateMongo | None = None  # then it is the first of the services
        self._servers: list[Service] = []
        self._inherited: list[list[socket.socket]] = []  # of each server
        self._full = ""  # what was said of the disk
        self._ends = ExitStack()  # what was started last ends first
        self.url = ""
        self.tls_ca = ""
        self._tls = options.tls
        self.credentials = options.data / "credentials"
        self.socket = ""  # the path of the unix socket; empty: there is none on this system
        self._worker_says = -1  # a pipe from the worker, which says there that it is at work

    def start(self) -> None:
        """Start everything, and return when it is ready."""
        options = self._options
        self._tls = _tls(options)
        exposure.check(options.host, self._tls, options.behind_proxy)
        self.tls_ca = str(self._tls.trusted) if self._tls else ""
        self._worker_options = _as_whom(options) if options.with_worker else []
        names = exposure.names(self._tls) if self._tls else []
        sockets = listening.listen(options.host, options.port, options.processes)
        self._ends.callback(listening.close, sockets)
        self.url = listening.url(options.host, sockets[0], names)
        local = self._listen_nearby()
        context = exposure.pinned(self._tls.trusted) if self._tls else None
        self._probe = Probe(listening.url(options.host, sockets[0]), context, self.socket)
        uri = options.mongo_uri or self._start_mongo()
        self._prepare(uri)
        if options.mongo_uri:
            _warn_of_leaks(uri)
        self._start_servers(sockets, local, uri)
        if options.with_worker:
            self._start_worker()

    def watch(self, lock: DirectoryLock) -> None:
        """Start anew what dies, and make again what is removed, until an exception ends this."""
        home = self._mongo.home if self._mongo else None
        kept = [self.credentials, self.credentials.with_name(bootstrap.WORKER_FILE)]
        watch = DataWatch(lock, home, [*kept, *([home.key] if home else [])])
        while True:
            self._woken.clear()
            self._tend()
            self._replace(watch.look(self._sockets()))
            self._woken.wait(_TICK_SECONDS)

    def stop(self) -> None:
        """End what was started: the worker first, so that it can give its tasks back."""
        self._ends.close()

    def _sockets(self) -> list[Path]:
        """Those that are to be there now."""
        mongo = self._mongo.home.sockets if self._mongo and self._services[0].runs else []
        return [*mongo, *([Path(self.socket)] if self.socket else [])]

    def _replace(self, missing: list[Path]) -> None:
        """Sockets that were removed: who listens at them is started again, with new ones."""
        if self._mongo and self._mongo.child and {*missing} & {*self._mongo.home.sockets}:
            self._mongo.child.signal(signal.SIGTERM)
        if self.socket and Path(self.socket) in missing:
            local = self._listen_nearby()
            for inherited in self._inherited:
                inherited[1:] = [local] if local else []
            for server in self._servers:
                if server.child:
                    server.child.signal(signal.SIGTERM)

    def _listen_nearby(self) -> socket.socket | None:
        """The unix socket, for all server processes."""
        path = self._options.data / near.NAME
        made = near.listen(path)
        self._ends.callback(near.close, path, made)
        self.socket = str(path) if made else ""
        return made

    def _prepare(self, uri: str) -> None:
        """Make ready what servers need; a database that is about to choose a primary is awaited."""
        deadline = time.monotonic() + _READY_SECONDS
        while True:
            try:
                prepare_database(uri)
                bootstrap.ensure_credentials(uri, self.credentials)
                return
            except ConnectionFailure as error:
                if time.monotonic() > deadline:
                    message = f"the database does not answer: {error}"
                    raise BanyanError("unavailable", message) from None
            self._woken.wait(_POLL_SECONDS)

    def _start_mongo(self) -> str:
        mongo = self._mongo = PrivateMongo(self._options.data)
        self._ends.callback(mongo.stop)
        self._begin(Service("database", mongo.start))
        return mongo.uri

    def _start_servers(
        self, sockets: list[socket.socket], local: socket.socket | None, uri: str
    ) -> None:
        for number, own in enumerate(sockets, start=1):
            name = f"server process {number}"
            inherited = [own, local] if local else [own]
            start = functools.partial(self._spawn_server, name, inherited, uri)
            self._inherited.append(inherited)
            self._servers.append(Service(name, start))
        self._ends.callback(_stop_together, self._servers)
        for server in self._servers:
            self._begin(server)
        self._wait_until(self._probe.is_ready, "server")

    def _spawn_server(self, name: str, inherited: list[socket.socket], uri: str) -> Child:
        files = [one.fileno() for one in inherited]
        tls = self._tls
        how = ["--tls-cert", str(tls.certificate), "--tls-key", str(tls.key)] if tls else []
        how += ["--behind-proxy"] if self._options.behind_proxy else []
        how += ["--near-fd", str(files[1])] if len(files) > 1 else []
        how += ["--shared"] if self._options.processes > 1 else []
        how += ["--data", str(self._options.data)] if self._mongo else []
        arguments = python("banyan.server.serve", "--fd", str(files[0]), *how)
        variables = environment(BANYAN_MONGO_URI=uri)
        return spawn(name, arguments, variables, inherited=files)

    def _start_worker(self) -> None:
        worker = Service("worker", self._spawn_worker)
        self._ends.callback(_stop_worker, worker)
        self._begin(worker)
        self._wait_until(self._worker_is_at_work, "worker")

    def _worker_is_at_work(self) -> bool:
        """Whether the server knows it: as a new one, or as the one that it has taken over."""
        with contextlib.suppress(BlockingIOError):
            return bool(os.read(self._worker_says, 1))
        return False

    def _spawn_worker(self) -> Child:
        """A worker gets its own token by file, and nothing of the others' or of the database."""
        if self._worker_says >= 0:
            os.close(self._worker_says)
        self._worker_says, says = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        token = bootstrap.keep_worker_token(self.credentials)
        own = ["--url", self.url, "--token-file", str(token)]
        own += ["--socket", self.socket] if self.socket else []
        state = ["--state-directory", str(self._options.data / "worker")]
        own += ["--tls-ca", self.tls_ca] if self.tls_ca else []
        told = ["--ready-fd", str(says)]
        arguments = python("banyan", "worker", *own, *state, *told, *self._worker_options)
        try:
            return spawn("worker", arguments, environment(BANYAN_MONGO_URI=None), inherited=[says])
        finally:
            os.close(says)

    def _begin(self, service: Service) -> None:
        service.begin()
        self._services.append(service)

    def _tend(self) -> None:
        for service in self._services:
            try:
                if not self._waits_for_room(service):
                    service.tend()
            except BanyanError:
                if not self._waits_for_room(service):
                    raise

    def _waits_for_room(self, service: Service) -> bool:
        """Whether it is the database, which cannot run on a full disk; says so once."""
        if not self._mongo or service is not self._services[0]:
            return False
        full = told_if_full(self._options.data)
        if full and not self._full:
            logger.error("%s; the database goes on when there is room", full)
        self._full = full
        return bool(full) and not service.runs

    def _wait_until(self, ready: Callable[[], bool], name: str) -> None:
        deadline = time.monotonic() + _READY_SECONDS
        while not ready():
            self._tend()
            if time.monotonic() > deadline:
                raise BanyanError(
                    "unavailable", f"the {name} is not ready after {_READY_SECONDS:g} seconds"
                )
            self._woken.wait(_POLL_SECONDS)
            self._woken.clear()


def _warn_of_leaks(uri: str) -> None:
    """The private MongoDB is not asked: nobody else reaches it."""
    store = Store(uri)
    try:
        with contextlib.suppress(PyMongoError):  # who looks at it later says what is wrong
            leaks = release.open_leaks(store)
            if leaks:
                version, names = release.version(store), ", ".join(leaks)
                said = "whoever can connect to MongoDB %s can read its memory (%s): %s"
                logger.warning(said, version, names, ADVICE)
    finally:
        store.close()


def _tls(options: Options) -> exposure.Tls | None:
    """The certificate to serve with; the library that makes one is loaded where it is wanted."""
    if not options.tls_auto:
        return options.tls
    from banyan.server import own_certificate

    return own_certificate.ensure(options.data, options.host)


def _as_whom(options: Options) -> list[str]:
    """The worker's options, with the word that root's worker wants: this stack is root's own.

    Errors: `usage` where others can send it tasks.
    """
    given = options.worker_options
    if os.geteuid() != 0 or "--run-as" in given:
        return given
    if options.behind_proxy or not is_loopback(options.host):
        message = "everybody's tasks would run as root here: name a user with --run-as, or root"
        raise BanyanError("usage", message)
    return [*given, "--run-as", "root"]


def _stop_together(services: list[Service]) -> None:
    """All get the signal before any is waited for."""
    children = [service.child for service in services if service.child]
    for child in children:
        child.signal(signal.SIGTERM)
    for child in children:
        child.wait_or_kill(_SERVER_STOP_SECONDS)


def _stop_worker(service: Service) -> None:
    """The first SIGTERM drains a worker, the second makes it end its tasks and give them back."""
    if service.child is None:
        return
    service.child.signal(signal.SIGTERM)
    # Two signals at one moment would count as one.
    with contextlib.suppress(subprocess.TimeoutExpired):
        service.child.process.wait(_WORKER_HINT_SECONDS)
    service.child.stop(_WORKER_STOP_SECONDS)
