"""Questions over HTTP that the supervisor asks its own server while it starts."""

import http.client
import json
import ssl
from typing import Any
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
        return self._get("/readyz", None) is not None

    def newest_worker(self, token: str) -> str | None:
        """The id of the worker that registered last; empty: there is none, None: not told."""
        answer = self._get("/workers?sort=-_created&max_results=1&projection={%22mode%22:1}", token)
        if answer is None:
            return None
        return str(answer["_items"][0]["_id"]) if answer["_items"] else ""

    def _get(self, path: str, token: str | None) -> Any:
        """The JSON of a 200; None for anything else, also for no answer in time."""
        connection = self._connection()
        try:
            headers = {"Authorization": f"Bearer {token}"} if token else {}
            connection.request("GET", path, headers=headers)
            answer = connection.getresponse()
            return json.loads(answer.read()) if answer.status == 200 else None
        except (OSError, http.client.HTTPException, ValueError):
            return None
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
