"""Questions over HTTP that the supervisor asks its own server while it starts."""

import http.client
import json
from typing import Any
from urllib.parse import urlsplit

_TIMEOUT_SECONDS = 2.0


def is_ready(url: str) -> bool:
    """Whether the server at this address serves and reaches its database."""
    return _get(url, "/readyz", None) is not None


def newest_worker(url: str, token: str) -> str | None:
    """The id of the worker that registered last; empty when there is none, None if not told."""
    answer = _get(url, "/workers?sort=-_created&max_results=1&projection={%22mode%22:1}", token)
    if answer is None:
        return None
    return str(answer["_items"][0]["_id"]) if answer["_items"] else ""


def _get(url: str, path: str, token: str | None) -> Any:
    """The JSON of a 200; None for anything else, also for no answer in time."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=_TIMEOUT_SECONDS)
    try:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        return json.loads(answer.read()) if answer.status == 200 else None
    except (OSError, http.client.HTTPException, ValueError):
        return None
    finally:
        connection.close()
