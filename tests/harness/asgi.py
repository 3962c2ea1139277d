"""Any WSGI application behind our ASGI layer, on a real socket, in a thread of the test."""

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from banyan.server.asgi import Application
from banyan.server.bridge import WSGIApplication
from banyan.server.connections import Connections
from banyan.server.exposure import Tls
from banyan.server.lanes import Tokens
from banyan.server.serve import Server, server_config
from banyan.server.waiting import Hub


class Served:
    """A server that accepts; `port`, and the `hub` whose signals it heeds."""

    def __init__(self, listener: socket.socket, hub: Hub, server: Server) -> None:
        self.port: int = listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.hub = hub
        self.server = server

    def raw(self, request: bytes, seconds: float = 10.0) -> bytes:
        """Send bytes as they are; everything that comes back until the server closes."""
        with socket.create_connection(("127.0.0.1", self.port), seconds) as connection:
            connection.sendall(request)
            answer = b""
            while chunk := connection.recv(65536):
                answer += chunk
            return answer


@contextmanager
def served(
    wsgi: WSGIApplication,
    threads: int = 8,
    connections: Connections | None = None,
    tls: Tls | None = None,
    knows: Callable[[str], bool] = lambda header: True,
    account_of: Callable[[str], str | None] | None = None,
    tokens: Tokens | None = None,
) -> Iterator[Served]:
    """Serve for as long as the block lasts."""
    hub = Hub()
    listener = socket.create_server(("127.0.0.1", 0))
    application = Application(wsgi, hub, threads, knows=knows, account_of=account_of, tokens=tokens)
    server = Server(server_config(application, tls), hub, connections)
    thread = threading.Thread(
        target=lambda: asyncio.run(server.serve([listener])), name="test server"
    )
    thread.start()
    try:
        yield Served(listener, hub, server)
    finally:
        server.should_exit = True
        thread.join(15)
    assert not thread.is_alive(), "the server did not end"
