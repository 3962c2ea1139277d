"""One conversation with a Banyan server: requests, answers, and which requests may be repeated.

Called by the typed client and by the worker; nothing else speaks HTTP. One Transport a
thread. It must never repeat a request that may have been carried out, unless its caller
says that carrying it out twice is the same as once.
"""

import json as jsonlib
import random
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.cookiejar import DefaultCookiePolicy
from typing import Any, TypedDict, Unpack

import requests
from requests.adapters import HTTPAdapter

from banyan import __version__
from banyan.addresses import server_url, socket_in
from banyan.client import forks, local, trust
from banyan.client.bounds import bounded, check_json
from banyan.client.encoding import encoded, no_text
from banyan.client.failures import Trouble, error_of, trouble_of_answer, trouble_of_exception
from banyan.errors import BanyanError
from banyan.preferences import wait_seconds

CONNECT_SECONDS = 5.0
READ_SECONDS = 30.0
RETRY_SECONDS = 30.0
FIRST_PAUSE_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 5.0

_SAFE_METHODS = {"GET", "HEAD", "OPTIONS"}
_random = random.SystemRandom()


@dataclass(frozen=True, slots=True)
class Answer:
    """What the server said; `body` is parsed JSON, None, or bytes where raw was asked for."""

    status: int
    body: Any
    headers: Mapping[str, str] = field(default_factory=dict)  # names in any case
    repeats: int = 0  # how often the request was sent again before this answer came


class Options(TypedDict, total=False):
    """What a request may carry besides its method and path."""

    json: Any  # the body
    params: Mapping[str, Any] | None  # lists and objects are sent as JSON (`where`, …)
    headers: Mapping[str, str] | None
    prefer: str | None  # the `Prefer` header; its `wait=` is added to the read timeout
    timeout_seconds: float | None  # to read the answer; left out: 30 s and the wait
    raw: bool  # the body of a good answer is bytes, not JSON
    # Twice is the same as once; left out: true of GET. A request that was never sent, or was
    # turned away by 429, is sent again in any case.
    repeatable: bool
    retry_seconds: float  # how long trouble is put up with; left out: the transport's


class Transport:
    """Requests to one server with one token."""

    def __init__(
        self,
        url: str,
        token: str = "",
        retry_seconds: float = RETRY_SECONDS,
        tls_ca: str = "",
        socket: str = "",
    ) -> None:
        """Takes the server's root URL; `retry_seconds` is how long trouble is put up with.

        tls_ca: a PEM file with whom to trust; empty: the machine's certificate authorities.
        socket: the path of the server's unix socket: requests go by that and by nothing else.
            `unix:///PATH` as the URL is the same.
        Errors: `usage`, also where the token would go over an open line.
        """
        self.socket = socket_in(url) or socket
        self.base = local.BASE if self.socket else url.rstrip("/")
        server = server_url(self.base)
        if not token.isascii() or not token.isprintable():
            raise BanyanError("usage", "the token holds characters that no token has")
        if token:
            trust.refuse_to_tell(server)
        self.url = url.rstrip("/")
        self.retry_seconds = retry_seconds
        self._trusted = trust.lasting(tls_ca)
        self.tls_ca = trust.readable(tls_ca)
        self._token = token
        self._session = self._opened()
        self._is_of_parent = False
        forks.tell(self)
        self._headers = {
            **self._session.headers,
            "Accept-Encoding": "identity",
            "User-Agent": f"banyan/{__version__}",
            "Accept": "application/json, text/plain;q=0.9",
        }

    def _opened(self) -> requests.Session:
        session = requests.Session()
        server = server_url(self.base)
        # Proxies and .netrc are for the outside; to look them up costs more than the request.
        session.trust_env = not server.is_loopback
        # No Banyan server sets any; kept, those of somebody else would fill up each request.
        session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=()))
        plain = local.Adapter(self.socket) if self.socket else HTTPAdapter()
        session.mount("http://", bounded(plain))
        session.mount("https://", bounded(trust.Adapter(self.tls_ca)))
        return session

    @property
    def uses_proxies(self) -> bool:
        """Whether the environment may name one; not for this machine."""
        return bool(self._session.trust_env)

    def clone(self) -> "Transport":
        """One more of the same, for another thread."""
        return Transport(self.url, self._token, self.retry_seconds, self._trusted, self.socket)

    def close(self) -> None:
        """Closes the connections that are not in use."""
        self._session.close()

    def __reduce__(self) -> Any:
        """As an argument of a process that `multiprocessing` starts; nowhere else a token may go.

        Errors: TypeError.
        """
        from multiprocessing.context import get_spawning_popen

        if get_spawning_popen() is None:
            raise TypeError(
                "a Client holds a token, and is not sent along: make one where it is needed"
            )
        made_of = (self.url, self._token, self.retry_seconds, self._trusted, self.socket)
        return Transport, made_of

    def after_fork(self) -> None:
        """In the child: connections of the parent's are the parent's."""
        self._is_of_parent = True

    def request(self, method: str, path: str, **options: Unpack[Options]) -> Answer:
        """Like `ask`, but an answer that is an error is raised.

        Errors: BanyanError with the server's word, message, issues and extra members;
        `unavailable` when the server could not be reached before `retry_seconds` were over.
        """
        answer = self.ask(method, path, **options)
        if answer.status >= 300 and answer.status != 304:
            raise error_of(answer.status, answer.body, answer.headers)
        return answer

    def ask(self, method: str, path: str, **options: Unpack[Options]) -> Answer:
        """Sends one request, again after trouble where that is safe; returns any answer.

        Errors: BanyanError `unavailable` when no answer came before `retry_seconds` were over.
        """
        may_repeat = options.get("repeatable", method in _SAFE_METHODS)
        sending = self._prepare(method, path, options)
        read_seconds = options.get("timeout_seconds") or (
            READ_SECONDS + wait_seconds(options.get("prefer") or "")
        )
        deadline = time.monotonic() + options.get("retry_seconds", self.retry_seconds)
        for repeats, pause in enumerate(_pauses()):
            outcome = self._send(sending, read_seconds, options.get("raw", False), repeats)
            trouble = _trouble_of(outcome)
            if trouble and trouble.worth_repeating(may_repeat):
                pause = max(pause, trouble.pause_seconds)
                if time.monotonic() + pause <= deadline:
                    time.sleep(pause)
                    continue
            if isinstance(outcome, Trouble):
                raise outcome.error
            return outcome
        raise AssertionError("pauses never end")

    def _prepare(self, method: str, path: str, options: Options) -> requests.PreparedRequest:
        headers = {**self._headers, **(options.get("headers") or {})}
        if options.get("prefer"):
            headers["Prefer"] = str(options["prefer"])
        data = None
        if options.get("json") is not None:
            data = encoded(options["json"])
            headers["Content-Type"] = "application/json"
        params = {name: _parameter(value) for name, value in (options.get("params") or {}).items()}
        url = f"{self.base}/{path.lstrip('/')}"
        # By hand: the session would look for what it might add for longer than all else takes.
        request = requests.PreparedRequest()
        try:
            request.prepare(
                method, url, headers, data=data, params=params, auth=_Bearer(self._token)
            )
        except UnicodeEncodeError as problem:
            raise no_text(problem.object) from None
        return request

    def _send(
        self, sending: requests.PreparedRequest, read_seconds: float, raw: bool, repeats: int
    ) -> Answer | Trouble:
        if self._is_of_parent:
            self.tls_ca = trust.readable(self._trusted)
            self._session, self._is_of_parent = self._opened(), False
        environment = self._session.merge_environment_settings(
            sending.url or "", {}, None, self.tls_ca or None, None
        )
        try:
            response = self._session.send(
                sending,
                timeout=(CONNECT_SECONDS, read_seconds),
                allow_redirects=False,
                **environment,
            )
        except (requests.RequestException, OSError, ValueError) as exception:
            # A ValueError: `requests` reads the address that a redirect names, which may be none.
            return trouble_of_exception(exception, self.socket or self.url)
        return _answer(response, raw, repeats, self.socket or self.url)


def _trouble_of(outcome: Answer | Trouble) -> Trouble | None:
    if isinstance(outcome, Trouble):
        return outcome
    return trouble_of_answer(outcome.status, outcome.headers)


class _Bearer(requests.auth.AuthBase):
    """Sets the header by hand, so that a .netrc entry for the host cannot replace it."""

    def __init__(self, token: str) -> None:
        self._token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self._token:
            request.headers["Authorization"] = f"Bearer {self._token}"
        return request


def _answer(response: requests.Response, raw: bool, repeats: int, url: str) -> Answer:
    good = response.status_code < 300
    if raw and good:
        return Answer(response.status_code, response.content, response.headers, repeats)
    if not response.content:
        return Answer(response.status_code, None, response.headers, repeats)
    check_json(response.content)
    try:
        body = jsonlib.loads(response.content.decode(errors="surrogatepass"))
    except (ValueError, RecursionError, MemoryError):
        if good:
            message = f"{url} does not answer like a Banyan server"
            raise BanyanError("unavailable", message) from None
        body = None
    return Answer(response.status_code, body, response.headers, repeats)


def _parameter(value: Any) -> str:
    if isinstance(value, str):
        return value
    return jsonlib.dumps(value, separators=(",", ":"), ensure_ascii=False)


def _pauses() -> Iterator[float]:
    pause = FIRST_PAUSE_SECONDS
    while True:
        yield pause * _random.uniform(0.5, 1.0)
        pause = min(pause * 2, LONGEST_PAUSE_SECONDS)
