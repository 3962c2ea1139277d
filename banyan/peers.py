"""Who is at the other end of a unix socket, as the kernel says.

Asked by the server of each connection by its own socket, and by a client before it sends its
token there. What a process says of itself counts for nothing.
"""

import socket
import struct

ROOT = 0
# Where the kernel does not tell, no socket is served, and no profile names one.
TOLD = hasattr(socket, "SO_PEERCRED")

_CREDENTIALS = struct.Struct("=iII")  # pid, uid, gid


def peer_uid(one: socket.socket) -> int:
    """The user who has called `connect`, or `listen`, at the other end. Errors: OSError."""
    told = one.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return int(_CREDENTIALS.unpack(told)[1])
