"""The listening sockets of the server processes, all on one port.

Made by `banyan.server.stack`, which keeps them open: while a process is started anew its
connections wait for it and none is refused.

Where the kernel deals connections out (Linux, SO_REUSEPORT), each process has a socket of
its own. On a shared one whichever process wakes first takes a whole crowd of keep-alive
connections, and serves it alone for hours.
"""

import contextlib
import errno
import socket
import sys
from collections.abc import Sequence

from banyan.addresses import is_loopback
from banyan.errors import BanyanError

_BACKLOG = 2048  # a thousand workers may come back at one moment
# The name under which everywhere can be reached from here.
_HERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - looked up, not listened on


def listen(host: str, port: int, processes: int) -> list[socket.socket]:
    """One socket for each process; port 0: any free one. Errors: `usage` where it is taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        first = socket.create_server((host, port), family=family, backlog=_BACKLOG)
        if processes == 1 or sys.platform != "linux":
            return [first] * processes
        # Bound alone first: among sockets that share, a second server would not be noticed.
        address = first.getsockname()
        first.close()
        return [
            socket.create_server(address[:2], family=family, backlog=_BACKLOG, reuse_port=True)
            for _ in range(processes)
        ]
    except OSError as error:
        raise BanyanError("usage", f"can't listen on {host}:{port}: {_why(error)}") from None


def _why(error: OSError) -> str:
    """What is wrong, and what would help."""
    if (error.errno or 0) < 0:  # of the look-up of a name
        return "there is no machine of this name; give an address of this one with --host"
    told = {
        errno.EADDRINUSE: "somebody listens there already; try another --port",
        errno.EADDRNOTAVAIL: "this machine has no such address; give one that it has with --host",
        errno.EACCES: "ports below 1024 take root; try another --port",
    }
    return told.get(error.errno or 0) or f"{error.strerror}; try another --port or --host"


def url(host: str, listening: socket.socket, names: Sequence[str] = ()) -> str:
    """The address for clients on this machine.

    names: those of the certificate, the best first; with it the server is asked by https.
    """
    bound, port = listening.getsockname()[:2]
    # `localhost` has two addresses, and somebody else may listen on the other.
    named = bound if is_loopback(host) and not names else _HERE.get(host, host)
    if names and named not in names:
        named = names[0]
    scheme = "https" if names else "http"
    return f"{scheme}://[{named}]:{port}" if ":" in named else f"{scheme}://{named}:{port}"


def close(sockets: list[socket.socket]) -> None:
    """Refuse connections from now on."""
    for one in sockets:
        with contextlib.suppress(OSError):
            one.close()
