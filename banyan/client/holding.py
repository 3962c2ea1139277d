"""Requests that the server holds until there is something new.

Called by what waits and what follows. It must never turn into a busy loop, also where a
proxy or a server without an event loop answers at once.
"""

import math
import time
from collections.abc import Mapping
from typing import Any

from banyan.client.transport import Answer, Transport

HOLD_SECONDS = 30.0
RETRY_SECONDS = 60.0  # a server that restarts is waited for
_QUICK_SECONDS = 0.2
# Ours are shorter; a long one would be refused with each further request.
_ETAG_LENGTH_MAX = 200


class Held:
    """GET of one address again and again, each answer other than the last one.

    growing: what is there only grows, and its ETag names all of it, whatever part is asked
             for: another offset is still the same question.
    """

    def __init__(self, transport: Transport, path: str, *, growing: bool = False) -> None:
        self._transport = transport
        self._path = path
        self._growing = growing
        self._params: Mapping[str, Any] | None = None
        self._etag: str | None = None

    def next(
        self,
        params: Mapping[str, Any] | None = None,
        seconds: float = HOLD_SECONDS,
        raw: bool = False,
    ) -> Answer | None:
        """The next answer that differs; None when there is none after so many seconds (<= 30)."""
        hold = max(0.0, min(seconds, HOLD_SECONDS))
        if params != self._params and not self._growing:
            self._params, self._etag = params, None  # another question: its answer is new
        begun = time.monotonic()
        answer = self._transport.request(
            "GET",
            self._path,
            params=params,
            headers={"If-None-Match": self._etag} if self._etag else None,
            prefer=f"wait={math.ceil(hold)}, return=minimal",
            raw=raw,
            retry_seconds=max(RETRY_SECONDS, self._transport.retry_seconds),
        )
        etag = answer.headers.get("ETag")
        if etag and len(etag) > _ETAG_LENGTH_MAX:
            etag = None
        nothing_new = answer.status == 304 or etag is None or etag == self._etag
        if nothing_new and time.monotonic() - begun < _QUICK_SECONDS:
            time.sleep(min(hold, 2 * _QUICK_SECONDS))
        self._etag = etag or self._etag
        return None if answer.status == 304 else answer
