"""The server's unix socket: made by the supervisor, served by every server process.

It carries plain HTTP to this user's own processes and root's, whoever else gets at it. A
port can be taken by anybody while the server is away; this socket lies in a directory that
is the server's own.
"""

import asyncio
import contextlib
import os
import random
import socket
from collections.abc import Callable
from pathlib import Path

from banyan.errors import BanyanError
from banyan.peers import ROOT, TOLD, peer_uid
from banyan.server.acceptor import Acceptor
from banyan.server.connections import Connection, Connections
from banyan.socket_paths import short_path

NAME = "server.sock"

_BACKLOG = 2048
_PAUSE_SECONDS = 0.001  # for each connection that a process has, as far as
_CROWD = 8
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


class NearAcceptor(Acceptor):
    """Accepts by the unix socket, from those users who may.

    shared: other processes accept by the same socket. Whichever wakes first would take nearly
    all, so each waits the longer the more it has: the one with the fewest mostly comes first.
    """

    def __init__(
        self,
        listener: socket.socket,
        connections: Connections,
        make: Callable[[Connection], asyncio.Protocol],
        shared: bool,
    ) -> None:
        super().__init__(listener, connections, make, None)
        self._shared = shared

    def _accept(self) -> None:
        if not self._shared:
            super()._accept()
        elif not self._connections.count:
            self._take(1)
        else:
            most = _PAUSE_SECONDS * min(self._connections.count, _CROWD)
            self._pause(_random.uniform(0, most), self._go_on)

    def _go_on(self) -> None:
        if self._is_open:
            self._resume()
            self._take(1)

    def _welcome(self, client: socket.socket, network: str) -> None:
        if peer_uid(client) in (os.geteuid(), ROOT):
            super()._welcome(client, network)
        else:
            client.close()
