"""The edge: what comes in is JSON of a known kind, what goes out has one error shape.

Called around every request by `app.py`. It never decides anything about a task.
"""

import hashlib
import logging
import math
import traceback
from collections.abc import Collection, Sequence
from typing import Any

from bson.errors import InvalidDocument
from flask import Request, Response
from pymongo import errors as mongo_errors
from werkzeug.exceptions import HTTPException

from banyan.errors import WORDS, BanyanError
from banyan.preferences import preferences
from banyan.server import outages, render
from banyan.server.store import sizes

logger = logging.getLogger(__name__)

WAIT_HEADER = "Banyan-Wait"
ARGUMENTS_MAX = 100  # of a query
WAIT_AS_HEADER = "Banyan-Wait-As"
_WORD_OF_STATUS = {
    400: "bad_request",
    401: "unauthenticated",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    406: "not_acceptable",
    412: "precondition_failed",
    413: "too_large",
    415: "unsupported_media_type",
    422: "invalid",
    429: "too_many_requests",
}
_HINTS = {
    "not_found": "there is nothing at this address, or not for you; start from GET /",
    "method_not_allowed": "this address does not have that method; see the header Allow",
}
# Codes with which MongoDB refuses a query that it can't run: the caller's, not ours.
_BAD_QUERY_CODES = {2, 9, 14, 16, 31249, 31254, 40352}


def check_request(request: Request) -> None:
    """Refuse what is not JSON, who accepts no JSON, and other sites. Errors: 403, 406, 415."""
    accepted = request.accept_mimetypes
    if accepted and not accepted.best_match(["application/json", "text/plain"]):
        raise BanyanError("not_acceptable", "answers are application/json (logs: text/plain)")
    if request.method not in ("GET", "HEAD", "OPTIONS"):
        _refuse_other_sites(request)
    if request.method in ("POST", "PATCH", "PUT") and (request.content_length or 0) > 0:
        if not request.is_json:
            raise BanyanError("unsupported_media_type", "send `Content-Type: application/json`")
        encoding = request.headers.get("Content-Encoding", "identity")
        if encoding != "identity":
            raise BanyanError("unsupported_media_type", f"no {encoding} bodies, please")


def _refuse_other_sites(request: Request) -> None:
    """A page of another site may use what a browser remembers of its user, but not to write.

    Browsers say where a request comes from; who says nothing of it is none. Errors: `forbidden`.
    """
    site, origin = request.headers.get("Sec-Fetch-Site"), request.headers.get("Origin")
    if site:
        foreign = site not in ("same-origin", "none")
    else:
        foreign = bool(origin) and (origin or "").partition("://")[2] != request.host
    if foreign:
        raise BanyanError("forbidden", "a page of another site may not change anything here")


def check_arguments(request: Request, known: Collection[str]) -> None:
    """Refuse query arguments that nothing reads, and one that stands twice. Errors: 400."""
    if request.query_string.count(b"&") >= ARGUMENTS_MAX:
        raise BanyanError("bad_request", f"a query has at most {ARGUMENTS_MAX} arguments")
    for name, values in request.args.lists():
        if name not in known:
            told = f"known: {', '.join(sorted(known))}" if known else "there are none here"
            raise BanyanError("bad_request", f"unknown argument {name!r}; {told}")
        if len(values) > 1:
            raise BanyanError("bad_request", f"the argument {name!r} is given twice")


def body_of(request: Request) -> Any:
    """The request's JSON; None where there is none. Errors: `bad_request`."""
    data = request.get_data(cache=True)
    return render.loads(data) if data else None


def error_response(error: BanyanError) -> Response:
    """The one shape of all errors."""
    response = Response(render.dumps(error.body()), error.status, mimetype="application/json")
    if error.allowed_methods:
        response.headers["Allow"] = ", ".join(sorted(error.allowed_methods))
    if error.status == 401:
        response.headers["WWW-Authenticate"] = 'Bearer realm="banyan"'
    if error.status in (429, 503):
        response.headers["Retry-After"] = str(math.ceil(error.retry_after_seconds))
    return response


def translate(error: Exception) -> BanyanError:
    """Any exception as an error of the closed list; what is unexpected is logged."""
    if isinstance(error, BanyanError):
        return error
    if isinstance(error, HTTPException):
        word = _WORD_OF_STATUS.get(error.code or 500, "internal")
        hint = _HINTS.get(word, error.description or WORDS[word].meaning)
        methods = getattr(error, "valid_methods", None) or ()
        return BanyanError(word, hint, allowed_methods=tuple(methods))
    if isinstance(error, mongo_errors.PyMongoError | InvalidDocument):
        return _of_mongo(error)
    logger.exception("unexpected", exc_info=error)
    return BanyanError("internal", "a bug in Banyan; the server's log has the details")


def _of_mongo(error: mongo_errors.PyMongoError | InvalidDocument) -> BanyanError:
    if sizes.is_too_large(error):
        return sizes.too_large()
    if isinstance(error, InvalidDocument):
        return BanyanError("invalid", "the database cannot hold this")
    if outages.is_passing(error):
        logger.warning("database away: %s", outages.told(error))
        return outages.away()
    if isinstance(error, mongo_errors.DuplicateKeyError):
        return BanyanError("already_exists", "there is one with the same identifier already")
    if isinstance(error, mongo_errors.OperationFailure) and error.code in _BAD_QUERY_CODES:
        return BanyanError("bad_request", "the database could not run this query")
    places = "".join(traceback.format_tb(error.__traceback__))
    logger.error("unexpected: %s\n%s", outages.told(error), places)
    return BanyanError("internal", "a bug in Banyan; the server's log has the details")


def finish(
    request: Request, response: Response, wait_for: Sequence[str], of_answer: bool
) -> Response:
    """ETags for every GET, 304 where the caller has it already, and safe headers.

    wait_for:  the topics that would change a 304; the layer in front holds it if asked to.
    of_answer: the ETag is of what is answered, whatever it was given before.
    """
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Cache-Control"] = "no-cache" if request.method == "GET" else "no-store"
    if request.method in ("GET", "HEAD") and response.status_code == 200:
        if of_answer or not response.get_etag()[0]:
            digest = hashlib.sha1(response.get_data(), usedforsecurity=False)
            response.set_etag(digest.hexdigest())
        response.make_conditional(request)
    if response.status_code == 304:
        hold(request, response, wait_for)
    return response


def hold(request: Request, response: Response, wait_for: Sequence[str], wait_as: str = "") -> None:
    """Nothing new yet: name the topics that the layer in front may wait for, and as whom."""
    if wait_for and "wait" in preferences(request.headers.get("Prefer", "")):
        response.headers[WAIT_HEADER] = ",".join(wait_for)
        if wait_as:
            response.headers[WAIT_AS_HEADER] = wait_as
