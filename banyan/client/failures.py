"""Trouble on the way to a server, and errors in its answers, as Banyan's words.

Called by the transport only. It must never hide what the server said.
"""

import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import requests
from urllib3.exceptions import ConnectTimeoutError, NewConnectionError, ReadTimeoutError

from banyan.errors import WORDS, BanyanError

_PASSING = {429, 502, 503, 504}
_LONGEST_RETRY_AFTER_SECONDS = 60.0


@dataclass(slots=True)
class Trouble:
    """Why a request got no final answer."""

    error: BanyanError
    not_done: bool = False  # the server has certainly not acted on it
    hopeless: bool = False  # to send it again would meet the same
    pause_seconds: float = 0.0  # the server asks for at least this

    def worth_repeating(self, repeatable: bool) -> bool:
        """Whether the request may and should be sent again."""
        return (repeatable or self.not_done) and not self.hopeless


def trouble_of_exception(exception: Exception, url: str) -> Trouble:
    """What an exception of `requests` means: sent or not, worth another try or not."""
    if isinstance(exception, requests.exceptions.SSLError):
        message = f"no trusted connection to {url}: {_told_by_tls(exception)}"
        return Trouble(BanyanError("unavailable", message), hopeless=True)
    if isinstance(exception, requests.exceptions.InvalidURL | requests.exceptions.InvalidHeader):
        return Trouble(BanyanError("usage", f"{url}: {exception}"), hopeless=True)
    if _is_late(exception):
        return Trouble(BanyanError("unavailable", f"{url} did not answer in time"))
    if _never_sent(exception):
        return Trouble(BanyanError("unavailable", _told_of_nobody(exception, url)), not_done=True)
    return Trouble(BanyanError("unavailable", f"the connection to {url} broke; try again"))


def _is_late(exception: Exception) -> bool:
    inner = exception.args[0] if exception.args else None
    if isinstance(inner, ReadTimeoutError):  # in the middle of an answer
        return True
    return isinstance(exception, requests.Timeout) and not _never_sent(exception)


def trouble_of_answer(status: int, headers: Mapping[str, str]) -> Trouble | None:
    """Whether an answer is one that passes with time."""
    if status not in _PASSING:
        return None
    error = BanyanError("unavailable", "the server is busy or away")
    return Trouble(error, not_done=status == 429, pause_seconds=_retry_after(headers))


def error_of(status: int, body: Any, headers: Mapping[str, str] | None = None) -> BanyanError:
    """The error that an answer carries; where it is not Banyan's shape, one by its status."""
    if not isinstance(body, dict) or not isinstance(body.get("_error"), dict):
        return BanyanError(_word_of(status), _foreign(status, headers or {}))
    told = body["_error"]
    word, message, issues = told.get("word"), told.get("message"), body.get("_issues")
    extra = {name: value for name, value in body.items() if name not in _KNOWN_MEMBERS}
    return BanyanError(
        word if isinstance(word, str) and word in WORDS else _word_of(status),
        message if isinstance(message, str) and message else f"the server answered {status}",
        issues=issues if isinstance(issues, dict) else {},
        extra=extra,
    )


_KNOWN_MEMBERS = {"_status", "_error", "_issues"}


def _foreign(status: int, headers: Mapping[str, str]) -> str:
    location = headers.get("Location")
    if 300 <= status < 400 and location:
        return f"the server has moved to {location}; name that with --url"
    return f"the server answered {status}, and not in the way of a Banyan server"


def _word_of(status: int) -> str:
    for word, entry in WORDS.items():
        if entry.status == status:
            return word
    if status < 400:
        return "unavailable"
    return "unavailable" if status in _PASSING else "bad_request" if status < 500 else "internal"


def _never_sent(exception: Exception) -> bool:
    if isinstance(exception, requests.ConnectTimeout):
        return True
    return isinstance(_reason_of(exception), NewConnectionError | ConnectTimeoutError)


def _told_of_nobody(exception: Exception, url: str) -> str:
    cause = getattr(_reason_of(exception), "__cause__", None)
    told = cause.strerror if isinstance(cause, OSError) else None
    why = f" ({told})" if told else ""
    if isinstance(cause, socket.gaierror):
        return f"the name in {url} leads to no machine{why}; name another with --url"
    return f"no server answers at {url}{why}; start one with 'banyan up', or name it with --url"


def _told_by_tls(exception: Exception) -> str:
    """The innermost of three errors: what is wrong with the certificate, or with what answers."""
    inner = next(iter(getattr(_reason_of(exception), "args", ())), None)
    if isinstance(inner, ssl.SSLCertVerificationError):
        advice = "give what is to be trusted with --tls-ca, or an address that the certificate has"
        return f"{inner.verify_message.rstrip('.')}; {advice}"
    if isinstance(inner, ssl.SSLError) and inner.reason == "WRONG_VERSION_NUMBER":
        return "what answers there speaks no TLS; is it an http:// address?"
    return str(inner or exception)


def _reason_of(exception: Exception) -> Any:
    inner = exception.args[0] if exception.args else None
    return getattr(inner, "reason", inner)


def _retry_after(headers: Mapping[str, str]) -> float:
    try:
        return min(float(headers.get("Retry-After", "0")), _LONGEST_RETRY_AFTER_SECONDS)
    except ValueError:
        return 0.0  # a date: the backoff serves as well
