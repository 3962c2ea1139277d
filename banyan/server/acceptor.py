"""Accepting connections: whether there is room is asked before anything is read or encrypted.

Made by `banyan.server.serve`, one for each listening socket, in place of asyncio's own: that one
tells nobody of a connection before its TLS handshake has come to an end.
"""

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable
from functools import partial

from banyan.server.connections import (
    HEADER_SECONDS_MAX,
    Connection,
    Connections,
    Standing,
    has_arrived,
)
from banyan.server.refusals import network_of
from banyan.server.unread import UNREAD_SECONDS_MAX

logger = logging.getLogger(__name__)

_AT_ONCE = 16  # then others have their turn
_PAUSE_SECONDS = 0.5


class Acceptor:
    """Accepts on one listening socket, and closes at once what there is no room for."""

    def __init__(
        self,
        listener: socket.socket,
        connections: Connections,
        make: Callable[[Connection], asyncio.Protocol],
        tls: ssl.SSLContext | None,
    ) -> None:
        self._listener = listener
        self._connections = connections
        self._make = make
        # What comes by a socket in the file system does not leave the machine.
        self._tls = None if listener.family == socket.AF_UNIX else tls
        self._loop = asyncio.get_running_loop()
        self._greetings: set[asyncio.Task[None]] = set()
        self._is_open = True

    def open(self) -> None:
        """Accept from now on."""
        self._listener.setblocking(False)
        self._resume()

    def close(self) -> None:
        """Accept nothing more."""
        self._is_open = False
        self._loop.remove_reader(self._listener)
        for task in list(self._greetings):
            task.cancel()

    async def wait_closed(self) -> None:
        """Nothing is left to wait for."""

    def _resume(self) -> None:
        if self._is_open:
            self._loop.add_reader(self._listener, self._accept)

    def _accept(self) -> None:
        """Somebody wants to connect."""
        self._take(_AT_ONCE)

    def _pause(self, seconds: float, then: Callable[[], None]) -> None:
        self._loop.remove_reader(self._listener)
        self._loop.call_later(seconds, then)

    def _take(self, most: int) -> None:
        """Accept so many that wait, or all where there are fewer."""
        for _ in range(most):
            try:
                client, peer = self._listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:  # such as: no file descriptor is left on the whole machine
                logger.error("no connection can be accepted: %s", error)
                self._pause(_PAUSE_SECONDS, self._resume)
                return
            self._welcome(client, network_of(peer[0]) if isinstance(peer, tuple) else "")

    def _welcome(self, client: socket.socket, network: str) -> None:
        client.setblocking(False)
        if client.family != socket.AF_UNIX and hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux
            milliseconds = int(1000 * UNREAD_SECONDS_MAX)
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds)
        greeting = Greeting(client)
        connection = self._connections.enter(network, greeting)
        if not connection:
            client.close()
            return
        greeting.task = self._loop.create_task(self._greet(client, connection))
        greeting.task.add_done_callback(partial(self._greeted, client, connection))
        self._greetings.add(greeting.task)

    async def _greet(self, client: socket.socket, connection: Connection) -> None:
        """Make a transport of it, after the handshake if there is one."""
        await self._loop.connect_accepted_socket(
            lambda: self._make(connection),
            client,
            ssl=self._tls,
            ssl_handshake_timeout=HEADER_SECONDS_MAX if self._tls else None,
        )

    def _greeted(
        self, client: socket.socket, connection: Connection, greeting: "asyncio.Task[None]"
    ) -> None:
        """What did not come so far is gone; it may have been ended before it began."""
        self._greetings.discard(greeting)
        failed = None if greeting.cancelled() else greeting.exception()
        if greeting.cancelled() or failed:
            connection.leave()
            client.close()
        if failed and not isinstance(failed, OSError):  # as a handshake that fails is
            logger.error("a connection could not be made", exc_info=failed)


class Greeting:
    """A connection on which nothing of HTTP was said yet."""

    task: "asyncio.Task[None] | None" = None

    def __init__(self, client: socket.socket) -> None:
        self._client = client

    def is_busy(self) -> bool:
        """Nobody waits for an answer."""
        return False

    def standing(self) -> Standing:
        """It may have said something before anybody listened."""
        return Standing.ARRIVED if has_arrived(self._client.fileno()) else Standing.SILENT

    def end(self) -> None:
        """Give up the handshake."""
        if self.task:
            self.task.cancel()

    def be_late(self) -> None:
        """The handshake has a limit of its own."""
