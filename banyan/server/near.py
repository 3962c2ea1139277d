"""The server's unix socket: made by the supervisor, served by every server process.

It carries plain HTTP to this user's own processes and root's, whoever else gets at it. A
port can be taken by anybody while the server is away; this socket lies in a directory that
is the server's own.
"""

import asyncio
import contextlib
import functools
import logging
import os
import random
import socket
from pathlib import Path

import uvicorn
from uvicorn.server import ServerState

from banyan.errors import BanyanError
from banyan.peers import ROOT, TOLD, peer_uid
from banyan.server.protocol import Protocol
from banyan.socket_paths import short_path

NAME = "server.sock"
logger = logging.getLogger(__name__)

_BACKLOG = 2048
_PAUSE_SECONDS = 0.001  # for each connection that a process has, as far as
_CROWD = 8
_SHORT_SECONDS = 1.0  # where the machine is out of files
_random = random.SystemRandom()


def listen(path: Path) -> socket.socket | None:
    """The listening socket; in place of one that was left behind. None: not on this system.

    Its caller holds the lock of the directory. Errors: `usage` where there can be no socket.
    """
    if not TOLD:
        return None
    made = socket.socket(socket.AF_UNIX)
    try:
        path.unlink(missing_ok=True)
        # Before it has a name: there is no moment at which others could connect.
        os.fchmod(made.fileno(), 0o600)
        made.bind(short_path(path))
        made.listen(_BACKLOG)
    except OSError as problem:
        made.close()
        message = f"{path} can't be made ({problem.strerror}): name another directory with --data"
        raise BanyanError("usage", message) from None
    return made


def close(path: Path, made: socket.socket | None) -> None:
    """Refuse connections from now on."""
    if made is not None:
        made.close()
        with contextlib.suppress(OSError):
            path.unlink()


class NearProtocol(Protocol):
    """One connection by the unix socket."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A path is no host name that requests could be for."""
        super().connection_made(transport)
        self.server = None


class Gate:
    """Lets connections by the unix socket in, of those users who may.

    shared: other processes let in by the same socket. Whichever wakes first would take nearly
    all, so each waits the longer the more it has: the one with the fewest mostly comes first.
    """

    def __init__(
        self, listening: socket.socket, config: uvicorn.Config, state: ServerState, shared: bool
    ) -> None:
        self._listening = listening
        self._make = functools.partial(NearProtocol, config, state, {})
        self._connections = state.connections
        self._shared = shared
        self._loop = asyncio.get_running_loop()
        self._closed = False
        self._arriving: set[asyncio.Task[None]] = set()
        listening.setblocking(False)
        self._watch()

    def close(self) -> None:
        """Let nobody in from now on."""
        self._closed = True
        self._loop.remove_reader(self._listening)

    def _watch(self) -> None:
        if not self._closed:
            self._loop.add_reader(self._listening, self._come)

    def _come(self) -> None:
        if not self._shared or not self._connections:
            self._accept()
            return
        self._pause(_random.uniform(0, _PAUSE_SECONDS * min(len(self._connections), _CROWD)))

    def _pause(self, seconds: float) -> None:
        self._loop.remove_reader(self._listening)
        self._loop.call_later(seconds, self._go_on)

    def _go_on(self) -> None:
        self._watch()
        if not self._closed:
            self._accept()

    def _accept(self) -> None:
        try:
            one, _ = self._listening.accept()
        except (BlockingIOError, InterruptedError, ConnectionError):
            return  # another process has it, or it has gone
        except OSError as problem:
            logger.error("no connection can be accepted: %s", problem)
            self._pause(_SHORT_SECONDS)
            return
        if peer_uid(one) not in (os.geteuid(), ROOT):
            one.close()
            return
        arriving = self._loop.create_task(self._serve(one))
        self._arriving.add(arriving)
        arriving.add_done_callback(self._arriving.discard)

    async def _serve(self, one: socket.socket) -> None:
        one.setblocking(False)
        await self._loop.connect_accepted_socket(self._make, one)
