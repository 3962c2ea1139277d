"""What the supervisor asks its own server over HTTP while it starts."""

import http.client
import ssl
from urllib.parse import urlsplit

from banyan.client.local import connect

_TIMEOUT_SECONDS = 2.0


class _Near(http.client.HTTPConnection):
    """A connection by a unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=_TIMEOUT_SECONDS)
        self._path = path

    def connect(self) -> None:
        self.sock = connect(self._path, _TIMEOUT_SECONDS)


class Probe:
    """Asks the server at one address of this machine.

    context: for https; it knows the server by its certificate, not by its name.
    socket: the path of its unix socket, which goes before the URL; empty: there is none.
    """

    def __init__(self, url: str, context: ssl.SSLContext | None = None, socket: str = "") -> None:
        self._address = urlsplit(url).netloc
        self._context = context
        self._socket = socket

    def is_ready(self) -> bool:
        """Whether the server serves and reaches its database."""
        connection = self._connection()
        try:
            connection.request("GET", "/readyz")
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def _connection(self) -> http.client.HTTPConnection:
        if self._socket:
            return _Near(self._socket)
        if self._context is None:
            return http.client.HTTPConnection(self._address, timeout=_TIMEOUT_SECONDS)
        return http.client.HTTPSConnection(
            self._address, timeout=_TIMEOUT_SECONDS, context=self._context
        )
