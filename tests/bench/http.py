"""A plain HTTP client on one kept connection: what a benchmark asks must itself cost little."""

import http.client
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlsplit

import orjson

MINIMAL = "return=minimal"
_TIMEOUT_SECONDS = 600.0  # a statistic of a million tasks may take its time


@dataclass(frozen=True, slots=True)
class Reply:
    """Status, the JSON body (None where there is none) and the entity tag."""

    status: int
    body: Any
    etag: str


class RefusedError(RuntimeError):
    """An answer of 4xx or 5xx; `word` of the closed list, where it has one."""

    def __init__(self, told: str, body: Any) -> None:
        super().__init__(told)
        self.word = str(body.get("_error", {}).get("word", "")) if isinstance(body, dict) else ""


class Client:
    """Requests of one account, one after the other."""

    def __init__(self, url: str, token: str) -> None:
        parts = urlsplit(url)
        self._connection = http.client.HTTPConnection(
            parts.hostname or "", parts.port, timeout=_TIMEOUT_SECONDS
        )
        self._headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}

    def ask(
        self, method: str, path: str, body: Any = None, prefer: str = MINIMAL, **headers: str
    ) -> Reply:
        """Any request. Errors: RefusedError where the status is 4xx or 5xx."""
        sent = None if body is None else orjson.dumps(body)
        more = {name.replace("_", "-"): value for name, value in headers.items()}
        self._connection.request(
            method, f"/{path}", sent, self._headers | {"Prefer": prefer} | more
        )
        answer = self._connection.getresponse()
        data = answer.read()
        if answer.status >= 400:
            told = f"{method} /{path}: {answer.status} {data[:2000]!r}"
            raise RefusedError(told, orjson.loads(data or b"null"))
        return Reply(
            answer.status, orjson.loads(data) if data else None, answer.headers["ETag"] or ""
        )

    def get(self, path: str, **parameters: str) -> Any:
        """A GET without echoes; its JSON."""
        query = "&".join(f"{name}={quote(value)}" for name, value in parameters.items())
        return self.ask("GET", f"{path}?{query}" if query else path).body

    def post(self, path: str, body: Any) -> Any:
        """A POST without echoes; its JSON."""
        return self.ask("POST", path, body).body

    def patch(self, path: str, body: Any) -> Any:
        """A PATCH without echoes; its JSON."""
        return self.ask("PATCH", path, body).body
