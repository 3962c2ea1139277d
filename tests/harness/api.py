"""HTTP as one account: what a test sends to a running server."""

import threading
from typing import Any

import requests

_TIMEOUT_SECONDS = 70.0  # longer than the longest wait


class Api:
    """Requests of one account; may be used from several threads at a time.

    `json=` is the body; other keyword arguments become query parameters, apart from
    `headers=`. `wait=2` becomes `Prefer: wait=2`.
    """

    def __init__(self, url: str, token: str | None = None) -> None:
        self.url = url.rstrip("/")
        self.token = token
        self._local = threading.local()

    def request(
        self,
        method: str,
        path: str,
        json: Any = None,
        headers: dict[str, str] | None = None,
        wait: float | None = None,
        data: Any = None,
        **parameters: Any,
    ) -> requests.Response:
        """Any request; the answer whatever its status."""
        sent = dict(headers or {})
        if wait is not None:
            sent["Prefer"] = f"wait={wait}"
        return self._session().request(
            method,
            f"{self.url}/{path.lstrip('/')}",
            json=json,
            data=data,
            headers=sent,
            params=parameters,
            timeout=_TIMEOUT_SECONDS,
        )

    def get(self, path: str, **more: Any) -> requests.Response:
        return self.request("GET", path, **more)

    def post(self, path: str, json: Any = None, **more: Any) -> requests.Response:
        return self.request("POST", path, json, **more)

    def patch(self, path: str, json: Any = None, **more: Any) -> requests.Response:
        return self.request("PATCH", path, json, **more)

    def delete(self, path: str, **more: Any) -> requests.Response:
        return self.request("DELETE", path, **more)

    def hang_up(self) -> None:
        """Forget the connections: the server that they led to was killed."""
        self._local = threading.local()

    def _session(self) -> requests.Session:
        """One session a thread: they may not be shared."""
        if not hasattr(self._local, "session"):
            session = requests.Session()
            session.trust_env = False  # a proxy of the environment has no business here
            if self.token:
                session.headers["Authorization"] = f"Bearer {self.token}"
            self._local.session = session
        found: requests.Session = self._local.session
        return found
