"""One server process: `python -m banyan.server.serve --fd N`, started by the supervisor.

It accepts on listening sockets that it inherits: several processes share one port and one
unix socket, and no connection is refused while one of them is started anew. The database
is named by BANYAN_MONGO_URI: it may hold a password, and arguments are everybody's to
read. Ends by SIGTERM within some 5 seconds: who waits is answered at once.
"""

import argparse
import gc
import logging
import os
import socket
import sys
from pathlib import Path
from types import FrameType
from typing import Any

import uvicorn

from banyan import logs
from banyan.config import knobs
from banyan.server import exposure, outages
from banyan.server.acceptor import Acceptor
from banyan.server.app import create_app
from banyan.server.asgi import Application
from banyan.server.connections import Connection, Connections, most_connections
from banyan.server.exposure import Tls
from banyan.server.near import NearAcceptor
from banyan.server.protocol import Protocol
from banyan.server.upkeep.loop import Upkeep
from banyan.server.waiting import Hub
from banyan.server.watcher import Watcher

logger = logging.getLogger(__name__)

_GRACE_SECONDS = 4
_KEEP_ALIVE_SECONDS = 75  # longer than clients keep an idle connection, so that they end it
_SWITCH_SECONDS = 0.001


class Server(uvicorn.Server):
    """Uvicorn, which answers those who wait before it waits for their connections.

    connections: bounds on them; None: those that the machine sets.
    near:   a unix socket that it serves too, without TLS.
    shared: other processes serve that as well.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        hub: Hub,
        connections: Connections | None = None,
        near: socket.socket | None = None,
        shared: bool = False,
    ) -> None:
        super().__init__(config)
        self._hub = hub
        self._connections = connections or Connections(most_connections(), 0)
        self._near = near
        self._shared = shared

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept on these sockets, as many connections as there is room for."""
        self._connections.begin()
        found = [
            Acceptor(one, self._connections, self._protocol, self.config.ssl)
            for one in sockets or []
        ]
        if self._near:
            found.append(NearAcceptor(self._near, self._connections, self._protocol, self._shared))
        for acceptor in found:
            acceptor.open()
        self.servers = found  # type: ignore[assignment]  # as much as is used of them
        self.started = True

    def _protocol(self, connection: Connection) -> Protocol:
        state = self.server_state
        return Protocol(self.config, state, self.lifespan.state, connection=connection)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The first signal ends it in order, and a second one changes nothing."""
        self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Let go of who waits, then finish what is in work."""
        self._hub.end()
        await super().shutdown(sockets)


def serve(
    listener: socket.socket,
    mongo_uri: str,
    tls: Tls | None = None,
    behind_proxy: bool = False,
    near: socket.socket | None = None,
    shared: bool = False,
) -> None:
    """Serve on these sockets until SIGTERM."""
    hub = Hub()
    application = create_app(mongo_uri, hub)
    _warm_up(application)
    upkeep = Upkeep(mongo_uri, hub)
    watcher = Watcher(mongo_uri, hub)
    upkeep.start()
    watcher.start()
    # Threads that calculate give way to the event loop five times sooner than usual.
    sys.setswitchinterval(_SWITCH_SECONDS)
    gc.freeze()  # what is loaded by now stays: no use in looking through it again
    seen = application.extensions["banyan"].authenticator
    threads = knobs().SERVER_THREADS
    asgi = Application(application, hub, threads, behind_proxy, seen.knows, seen.account_of, seen)
    # Whoever comes by a proxy comes from one address.
    of_address = 0 if behind_proxy else knobs().CONNECTIONS_PER_ADDRESS_MAX
    connections = Connections(most_connections(), of_address)
    Server(server_config(asgi, tls), hub, connections, near, shared).run([listener])
    upkeep.stop()
    watcher.stop()


def server_config(application: Application, tls: Tls | None = None) -> uvicorn.Config:
    """How uvicorn serves us: silent, without its extras, with our own protocol."""
    return uvicorn.Config(
        application,
        http=Protocol,
        loop="uvloop",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=_GRACE_SECONDS,
        ssl_context_factory=(lambda *_: exposure.context(tls)) if tls else None,
    )


def _warm_up(application: Any) -> None:
    """Make the Mongo client and the first routes now: threads that race for it make several.

    Tokens are read, too: those who were here before a restart are no strangers.
    """
    client = application.test_client()
    for path in ("/readyz", "/"):
        client.get(path)
    application.extensions["banyan"].authenticator.load()


def main(arguments: list[str] | None = None) -> None:
    """Read the arguments and serve."""
    parser = argparse.ArgumentParser(prog="python -m banyan.server.serve", description=__doc__)
    parser.add_argument("--fd", type=int, required=True, help="an inherited listening socket")
    parser.add_argument("--near-fd", type=int, help="a unix socket that listens, inherited too")
    parser.add_argument("--shared", action="store_true", help="by other processes, the latter")
    parser.add_argument("--tls-cert", type=Path, help="answer https with this certificate")
    parser.add_argument("--tls-key", type=Path, help="and this key")
    parser.add_argument("--data", type=Path, help="where the database has its files, if here")
    parser.add_argument("--behind-proxy", action="store_true", help="believe X-Forwarded-For")
    options = parser.parse_args(arguments)
    tls = exposure.pair(options.tls_cert, options.tls_key)
    logs.begin("server", logging.WARNING, "%(asctime)s %(levelname)s %(name)s: ")
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)  # not a line for each bad request
    listener = socket.socket(fileno=options.fd)
    near = socket.socket(fileno=options.near_fd) if options.near_fd else None
    uri = os.environ["BANYAN_MONGO_URI"]
    if options.data:
        outages.watch_disk(options.data)
    serve(listener, uri, tls, options.behind_proxy, near, options.shared)
    # A thread that still waits for the database would hold up the end for half a minute.
    logging.shutdown()
    os._exit(0)


if __name__ == "__main__":
    main()
