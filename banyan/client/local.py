"""The way to a server on this machine by its unix socket, which nobody else can answer on.

Used by the transport, by the worker's connections, and by a server that asks itself whether
it is ready. A port is whoever's who takes it first; here the kernel says who serves. Nothing
must be sent before that is known, and nothing by another way where this one is closed.
"""

import os
import socket
from pathlib import Path
from typing import Any

from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection
from urllib3.connectionpool import HTTPConnectionPool
from urllib3.exceptions import NewConnectionError

from banyan import ownership
from banyan.errors import BanyanError
from banyan.peers import ROOT, peer_uid
from banyan.socket_paths import short_path

BASE = "http://localhost"  # what requests by a socket are addressed to


def connect(path: str, seconds: float | None) -> socket.socket:
    """A connection to the server of this socket, who is somebody to be trusted.

    Errors: OSError where nobody answers; `unavailable` where it is somebody else.
    """
    made = socket.socket(socket.AF_UNIX)
    try:
        made.settimeout(seconds)
        made.connect(short_path(Path(path)))
        _check(path, peer_uid(made))
    except PermissionError:
        made.close()
        message = f"{path} is open to another user only: a server serves its own user by it"
        raise BanyanError("unavailable", message) from None
    except BaseException:
        made.close()
        raise
    return made


def dial(connection: HTTPConnection, path: str) -> None:
    """`connect` for a connection of urllib3, in its words."""
    seconds = connection.timeout
    try:
        connection.sock = connect(path, seconds if isinstance(seconds, int | float) else None)
    except OSError as problem:
        raise NewConnectionError(connection, f"{path}: {problem}") from problem


class Adapter(HTTPAdapter):
    """HTTP by a socket, whatever host a request names."""

    def __init__(self, path: str) -> None:
        self._path = path
        super().__init__()

    def init_poolmanager(self, *arguments: Any, **more: Any) -> None:
        """The pool of connections."""
        super().init_poolmanager(*arguments, **more)
        path = self._path

        class Local(HTTPConnection):
            def connect(self) -> None:
                dial(self, path)

        class LocalPool(HTTPConnectionPool):
            ConnectionCls = Local

        self.poolmanager.pool_classes_by_scheme = {"http": LocalPool}


def _check(path: str, uid: int) -> None:
    """Who may serve us: our own user and root.

    To root also the user of a service, in a place that is that user's alone: whoever owns the
    directory could have made it a moment ago, in /tmp as anybody.
    """
    if uid in (os.geteuid(), ROOT) or ownership.is_way_of(Path(path), uid):
        return
    message = f"{path} is served by user {uid}, who is not you: nothing was sent there"
    raise BanyanError("unavailable", message)
