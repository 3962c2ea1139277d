"""A document that is the same for everybody: its bytes are made once and shared by all answers.

Used by `banyan.server.app` for `GET /openapi.json`, which anybody may ask for.
"""

import gzip
import hashlib

from flask import Request, Response

_LOOKED_AT_BYTES = 256  # of what the caller accepts


class Document:
    """JSON, plain and compressed."""

    def __init__(self, plain: bytes) -> None:
        self._plain = plain
        self._compressed = gzip.compress(plain, mtime=0)
        self._etag = hashlib.sha1(plain, usedforsecurity=False).hexdigest()

    def response(self, request: Request) -> Response:
        """Compressed for those who take it so."""
        accepted = request.headers.get("Accept-Encoding", "")[:_LOOKED_AT_BYTES]
        packed = "gzip" in (one.strip() for one in accepted.split(","))
        body = self._compressed if packed else self._plain
        response = Response(body, mimetype="application/json")
        response.set_etag(f"{self._etag}-gzip" if packed else self._etag)
        response.headers["Vary"] = "Accept-Encoding"
        if packed:
            response.headers["Content-Encoding"] = "gzip"
        return response
