"""A way to the server for a worker that is root, when its machine has no free port left.

One task or local user can bind every port that the kernel gives to new connections. Those
below 1024 are root's: a task of another user cannot take them. It must never stand in the way
of a service that listens on such a port, now or later.
"""

import errno
import os
import random
import socket
from collections.abc import Callable

from urllib3.connection import HTTPConnection
from urllib3.exceptions import NameResolutionError, NewConnectionError

from banyan.peers import ROOT

OWN_PORTS = range(600, 1024)  # as the C library has it for root's own connections
_TRIES = 32
_TAKEN = (errno.EADDRINUSE, errno.EADDRNOTAVAIL)
# Without it no service could begin to listen on a port where a connection of ours is, and none of
# ours could be there for a minute after the last.
_SHARED = (socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)


def connect(connection: HTTPConnection, usual: Callable[[], None]) -> None:
    """Connects as usual; where that fails, as root, from a port of root's own.

    Whatever the failure is: of a server with several addresses only the last one's is told.
    Errors: that of the usual way.
    """
    try:
        usual()
    except NewConnectionError as failure:
        unknown = isinstance(failure, NameResolutionError)
        if unknown or os.geteuid() != ROOT or not _from_own_port(connection, usual):
            raise


def _from_own_port(connection: HTTPConnection, usual: Callable[[], None]) -> bool:
    options = connection.socket_options
    connection.socket_options = [*(options or []), _SHARED]
    try:
        for port in random.sample(OWN_PORTS, _TRIES):
            connection.source_address = ("", port)
            try:
                usual()
            except NewConnectionError as failure:
                if getattr(failure.__cause__, "errno", None) not in _TAKEN:
                    return False
            else:
                return True
    finally:
        connection.socket_options, connection.source_address = options, None
    return False
