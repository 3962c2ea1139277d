"""JSON lines over a Unix socket: how the agent and its launcher talk.

Used by both sides. It must import nothing but the standard library (the launcher stays
small), and must never block: what cannot be sent now is kept and sent later.
"""

import json
import os
import socket
from pathlib import Path
from typing import Any

Message = dict[str, Any]

_READ_BYTES = 1 << 18
_encode = json.JSONEncoder(separators=(",", ":")).encode  # `dumps` would make one each time
_decode = json.JSONDecoder().decode


class Gone(Exception):
    """The other side has closed the connection, or died."""


class Line:
    """One end of the conversation."""

    def __init__(self, end: socket.socket) -> None:
        end.setblocking(False)
        self._end = end
        self._arrived = bytearray()
        self._to_send = bytearray()

    def fileno(self) -> int:
        """For a selector."""
        return self._end.fileno()

    def close(self) -> None:
        """Ends the conversation; what was not sent yet is dropped."""
        self._end.close()

    @property
    def unsent(self) -> bool:
        """True where `flush` is to be called again once the socket takes more."""
        return bool(self._to_send)

    def say(self, message: Message) -> None:
        """Keeps one message for the next `flush`."""
        self._to_send += _encode(message).encode() + b"\n"

    def flush(self) -> None:
        """Sends what the socket takes. Errors: Gone."""
        while self._to_send:
            try:
                sent = self._end.send(self._to_send)
            except BlockingIOError:
                return
            except OSError as error:
                raise Gone from error
            del self._to_send[:sent]

    def hear(self) -> list[Message]:
        """The messages that have arrived; call it when the socket is readable. Errors: Gone."""
        try:
            data = self._end.recv(_READ_BYTES)
        except BlockingIOError:
            return []
        except OSError as error:
            raise Gone from error
        if not data:
            raise Gone
        self._arrived += data
        complete, newline, rest = self._arrived.rpartition(b"\n")
        if not newline:
            return []
        self._arrived = rest
        return [_decode(line) for line in complete.decode().split("\n")]


def listen(path: Path) -> socket.socket:
    """A listening socket at `path`, in place of one that a dead process left there."""
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    _by_short_name(path, listener.bind)
    listener.listen(8)
    return listener


def connect(path: Path) -> Line:
    """A conversation with who listens at `path`. Errors: Gone when nobody does."""
    end = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _by_short_name(path, end.connect)
    except OSError as error:
        end.close()
        raise Gone from error
    return Line(end)


def _by_short_name(path: Path, use: Any) -> None:
    """A socket's name holds 107 bytes, a path may be longer: go through the directory's fd."""
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        use(f"/proc/self/fd/{directory}/{path.name}")
    finally:
        os.close(directory)
