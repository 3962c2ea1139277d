"""From an ASGI request with a whole body to a WSGI call (PEP 3333), and back.

Called by `banyan.server.asgi` in its thread pool. Bodies are whole in both directions:
that spares the queues between threads that a streaming bridge needs for each request.
"""

import io
import json
import logging
import re
import secrets
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from time import monotonic
from typing import Any
from urllib.parse import unquote_to_bytes

from pymongo.errors import PyMongoError

from banyan import logs
from banyan.errors import BanyanError
from banyan.server import outages

Environ = dict[str, Any]
WSGIApplication = Callable[[Environ, Callable[..., Any]], Iterable[bytes]]
Header = tuple[bytes, bytes]

# As the edge gives them to every answer of the application.
SAFE_HEADERS: list[Header] = [
    (b"x-content-type-options", b"nosniff"),
    (b"cache-control", b"no-store"),
]

# In the environment: only the head of the request has come. Who may go on and send the body is
# answered with this status; whatever else the application says is the answer to the request.
HEAD_ONLY = "banyan.head_only"
GO_ON = 100

logger = logging.getLogger(__name__)

# Headers that are taken apart, some before it is known who asks: that must not cost much.
PARSED_BYTES_MAX = 1024
_LOGGED_PATH_MAX = 200  # characters, whatever a stranger asks for
_PARSED = {
    "CONTENT_LENGTH",
    "CONTENT_TYPE",
    "HTTP_ACCEPT",
    "HTTP_ACCEPT_ENCODING",
    "HTTP_AUTHORIZATION",
    "HTTP_HOST",
    "HTTP_IF_MATCH",
    "HTTP_IF_NONE_MATCH",
    "HTTP_ORIGIN",
    "HTTP_PREFER",
    "HTTP_X_FORWARDED_PREFIX",
}
# The body's framing was undone before. Versions are told by their ETag alone, and answers are
# whole: who takes times and ranges apart may fail at it, before it is known who asks.
_DROPPED = {
    b"expect",
    b"if-modified-since",
    b"if-range",
    b"if-unmodified-since",
    b"range",
    b"transfer-encoding",
}
_REQUEST_ID = "HTTP_X_REQUEST_ID"
_PREFIX = re.compile(r"(/[A-Za-z0-9._~-]+){1,16}")
_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


@dataclass(frozen=True)
class Answer:
    """A whole response; header names are in lower case."""

    status: int
    headers: list[Header]
    body: bytes


def environ_of(scope: Mapping[str, Any]) -> Environ:
    """The WSGI environment of an ASGI request, all but its input, which is made per call.

    Errors: `bad_request` where a header is too long to be taken apart.
    """
    server = scope.get("server") or ("localhost", 80)
    environ: Environ = {
        "REQUEST_METHOD": scope["method"],
        "SCRIPT_NAME": "",
        # Bytes as they came, in the latin-1 that PEP 3333 asks for.
        "PATH_INFO": unquote_to_bytes(scope["raw_path"]).decode("latin-1"),
        "QUERY_STRING": scope["query_string"].decode("latin-1"),
        "SERVER_NAME": str(server[0]),
        "SERVER_PORT": str(server[1] or 80),
        "SERVER_PROTOCOL": f"HTTP/{scope['http_version']}",
        "REMOTE_ADDR": (scope.get("client") or ("", 0))[0],
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": scope.get("scheme", "http"),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
        "wsgi.input_terminated": True,
    }
    for name, value in scope["headers"]:
        _add_header(environ, name, value.decode("latin-1"))
    return environ


def heed_proxy(environ: Environ) -> None:
    """The proxy in front says whom it speaks for. Only for a server that has one.

    A proxy adds the address that it sees at the end of X-Forwarded-For: what stands before
    that was said by the caller, who could say anything.
    """
    address = str(environ.get("HTTP_X_FORWARDED_FOR", "")).rpartition(",")[2].strip()
    if address:
        environ["REMOTE_ADDR"] = address
    if environ.get("HTTP_X_FORWARDED_PROTO") in ("http", "https"):
        environ["wsgi.url_scheme"] = environ["HTTP_X_FORWARDED_PROTO"]
    prefix = str(environ.get("HTTP_X_FORWARDED_PREFIX", "")).rstrip("/")
    if _PREFIX.fullmatch(prefix):  # it was taken off the path already; links have it again
        environ["SCRIPT_NAME"] = prefix


def _add_header(environ: Environ, name: bytes, value: str) -> None:
    # `X_Y` and `X-Y` would be one name in the environment: whoever has checked the one
    # would take the other for it.
    if b"_" in name or name in _DROPPED:
        return
    key = name.decode("latin-1").upper().replace("-", "_")
    if key not in ("CONTENT_TYPE", "CONTENT_LENGTH"):
        key = f"HTTP_{key}"
        if key in environ:
            separator = "; " if key == "HTTP_COOKIE" else ","
            value = f"{environ[key]}{separator}{value}"
    if len(value) > PARSED_BYTES_MAX and key in _PARSED:
        told = name.decode("latin-1").title()
        message = f"the header {told} has {len(value)} bytes; at most {PARSED_BYTES_MAX} are read"
        raise BanyanError("bad_request", message)
    environ[key] = value


def call(application: WSGIApplication, environ: Environ, body: bytes) -> Answer:
    """Ask the application; whatever it raises becomes an answer. Runs in a thread.

    The environment is copied: applications write into it, and may be asked again.
    """
    request = request_id(environ)
    began = monotonic()
    path = environ["PATH_INFO"][:_LOGGED_PATH_MAX]
    about = {"method": environ["REQUEST_METHOD"], "path": path}
    with logs.about(request_id=request, **about):
        answer = _answer(application, environ, body)
        if answer.status != GO_ON and logger.isEnabledFor(logging.INFO):
            facts = {"status": answer.status, "milliseconds": round(1000 * (monotonic() - began))}
            logger.info("answered", extra=facts)
    if answer.status >= 500 or _REQUEST_ID in environ:
        answer.headers.append((b"x-request-id", request.encode()))
    return answer


def request_id(environ: Environ) -> str:
    """By what a request is found in the log: as its caller says, else a new one."""
    given = str(environ.get(_REQUEST_ID, ""))
    return given if _ID.fullmatch(given) else secrets.token_hex(8)


def _answer(application: WSGIApplication, environ: Environ, body: bytes) -> Answer:
    try:
        return _call(application, {**environ, "wsgi.input": io.BytesIO(body)})
    except BanyanError as error:
        return error_answer(error)
    except PyMongoError:
        logger.warning("the database is away", exc_info=True)
        return error_answer(outages.away())
    except Exception:
        logger.exception("a request failed")
        return error_answer(BanyanError("internal", "a bug in Banyan; its log has the details"))


def _call(application: WSGIApplication, environ: Environ) -> Answer:
    started: list[tuple[str, list[tuple[str, str]]]] = []
    written: list[bytes] = []

    def start_response(
        status: str, headers: list[tuple[str, str]], exc_info: Any = None
    ) -> Callable[[bytes], None]:
        started.append((status, headers))  # after an error once more: the last one counts
        return written.append

    chunks = application(environ, start_response)
    try:
        body = b"".join([*written, *chunks])
    finally:
        close = getattr(chunks, "close", None)
        if close:
            close()
    status, headers = started[-1]
    encoded = [(k.lower().encode("latin-1"), v.encode("latin-1")) for k, v in headers]
    return Answer(int(status[:3]), encoded, body)


def error_answer(error: BanyanError) -> Answer:
    """An error in the one shape that all have."""
    headers = [(b"content-type", b"application/json"), *SAFE_HEADERS]
    if error.status == 503:
        headers.append((b"retry-after", b"1"))
    return Answer(error.status, headers, json.dumps(error.body()).encode())
