"""The server's unix socket: made by the supervisor, served by every server process.

It carries plain HTTP to this user's own processes and root's, whoever else gets at it. A
port can be taken by anybody while the server is away; this socket lies in a directory that
is the server's own.
"""

import asyncio
import contextlib
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from banyan.errors import BanyanError
from banyan.peers import ROOT, TOLD, peer_uid
from banyan.server.protocol import Protocol
from banyan.socket_paths import short_path

NAME = "server.sock"
_BACKLOG = 2048


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
    """One connection by the unix socket, of a user who may."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Others are sent away before they are heard."""
        super().connection_made(transport)
        self.server = None  # a path is no host name
        if not _may(transport):
            transport.abort()


def _may(transport: asyncio.Transport) -> bool:
    with _socket_of(transport) as one:
        return peer_uid(one) in (os.geteuid(), ROOT)


@contextmanager
def _socket_of(transport: asyncio.Transport) -> Iterator[socket.socket]:
    """The connection's socket; uvloop shows one that tells little."""
    one = socket.socket(fileno=transport.get_extra_info("socket").fileno())
    try:
        yield one
    finally:
        one.detach()
