"""The agent's side of HTTP: requests that are held, and broken off when they are out of date.

Each of the agent's threads has a connection of its own. It must never decide anything: what
an answer means is the caller's business.
"""

import contextlib
import logging
import socket
import threading
from collections.abc import Callable
from typing import Any

from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from banyan.client.bounds import bounded
from banyan.client.failures import error_of
from banyan.client.local import dial
from banyan.client.transport import Answer, Transport
from banyan.client.trust import Adapter
from banyan.errors import EXIT_UNAVAILABLE, LOCAL_WORDS, WORDS, BanyanError
from banyan.worker import ports

_ANSWER_SECONDS = 30.0  # beyond the time that was asked to be held
_TOLD_AT = 2  # troubles in a row: a connection that breaks once is no outage

_log = logging.getLogger(__name__)


class Connection(Transport):
    """One thread's requests. `break_off` may be called from another thread."""

    def __init__(self, url: str, token: str, tls_ca: str = "", path: str = "") -> None:
        """Repeats nothing by itself: its caller knows what may be repeated, and until when.

        path: of the server's unix socket; empty: it is spoken to by its URL.
        """
        super().__init__(url, token, retry_seconds=0, tls_ca=tls_ca, socket=path)
        self._socket: socket.socket | None = None
        self._broken = False
        self._warned = ""
        self._troubles = 0  # in a row
        adapter = bounded(_Adapter(self._note, self.tls_ca, path))
        self._session.mount("http://", adapter)
        self._session.mount("https://", adapter)

    def held(
        self,
        method: str,
        path: str,
        body: Any,
        wait_seconds: float,
        answer_seconds: float = _ANSWER_SECONDS,
    ) -> Answer:
        """A request that the server may keep for so long.

        Errors: BanyanError with the server's word. What is not said in the way of a Banyan server
        (by a proxy before it, or by who has its port meanwhile) is `unavailable`: it is no refusal.
        Nor is what may be otherwise later, as `too_many_requests`.
        The log tells when that begins to be so, and when it is over.
        """
        try:
            answer = self._held(method, path, body, wait_seconds, answer_seconds)
        except BanyanError as error:
            self._heard(error.message if error.word == "unavailable" else "")
            raise
        self._heard("")
        return answer

    def _held(
        self, method: str, path: str, body: Any, wait_seconds: float, answer_seconds: float
    ) -> Answer:
        wait = f", wait={wait_seconds:.3f}" if wait_seconds > 0 else ""
        try:
            answer = self.ask(
                method,
                path,
                json=body,
                prefer=f"return=minimal{wait}",
                timeout_seconds=wait_seconds + answer_seconds,
            )
            refusal = _refusal(answer)
        except BanyanError as error:
            if error.word not in LOCAL_WORDS:
                raise
            raise BanyanError("unavailable", error.message) from error
        except Exception as error:  # there is no end to what an answer may look like
            message = f"the answer of {self.url} could not be read: {error!r}"
            self._warn_once(message)
            raise BanyanError("unavailable", message) from error
        if refusal:
            raise refusal
        return answer

    def _heard(self, trouble: str) -> None:
        """Each of the threads tells for itself, as only some may be cut off; empty: an answer."""
        thread = threading.current_thread().name
        if not trouble:
            if self._troubles >= _TOLD_AT:
                _log.warning("%s: the server can be reached again", thread)
            self._troubles = 0
        elif not self._broken and trouble != self._warned:
            self._troubles += 1
            if self._troubles == _TOLD_AT:
                _log.warning("%s: the server can't be reached: %s", thread, trouble)

    def _warn_once(self, message: str) -> None:
        """It may be a bug of ours, which no try again would mend: it must be seen."""
        if message != self._warned:
            self._warned = message
            _log.warning("%s", message)

    def allow(self) -> None:
        """Requests are wanted again; to be called before one, in the lock that says so."""
        self._broken = False

    def break_off(self) -> None:
        """Ends the request under way, or about to be: it raises `unavailable` in its thread.

        Nobody knows then whether the server has acted on it. In force until `allow`.
        """
        self._broken = True
        self._shut(self._socket)

    def _note(self, made: socket.socket | None) -> None:
        self._socket = made
        if self._broken:
            self._shut(made)

    @staticmethod
    def _shut(one: socket.socket | None) -> None:
        if one is not None:
            with contextlib.suppress(OSError):  # it has ended by itself
                socket.socket.shutdown(one, socket.SHUT_RDWR)  # of a TLS socket, the plain one


def _refusal(answer: Answer) -> BanyanError | None:
    if answer.status < 300:
        return None
    told = answer.body.get("_error") if isinstance(answer.body, dict) else None
    word = told.get("word") if isinstance(told, dict) else None
    error = error_of(answer.status, answer.body, answer.headers)
    if isinstance(word, str) and word in WORDS and error.exit_code != EXIT_UNAVAILABLE:
        return error
    return BanyanError("unavailable", error.message)


class _Adapter(Adapter):
    """Tells of each new connection, of which a thread has one at a time; not of one to a proxy."""

    def __init__(
        self, note: Callable[[socket.socket | None], None], tls_ca: str, path: str
    ) -> None:
        self._note = note
        self._path = path
        super().__init__(tls_ca, pool_connections=1, pool_maxsize=1)

    def init_poolmanager(self, *arguments: Any, **more: Any) -> None:
        super().init_poolmanager(*arguments, **more)
        self.poolmanager.pool_classes_by_scheme = _pools(self._note, self._path)

    def proxy_manager_for(self, proxy: str, **more: Any) -> Any:
        manager = super().proxy_manager_for(proxy, **more)
        if not proxy.lower().startswith("socks"):  # which has pools of its own
            manager.pool_classes_by_scheme = _BY_PROXY
        return manager


def _pools(
    note: Callable[[socket.socket | None], None], path: str = ""
) -> dict[str, type[HTTPConnectionPool]]:
    class Plain(HTTPConnection):
        def connect(self) -> None:
            if path:
                dial(self, path)
            else:
                ports.connect(self, super().connect)
            note(self.sock)

    class Secure(HTTPSConnection):
        def connect(self) -> None:
            ports.connect(self, super().connect)
            note(self.sock)

    class PlainPool(HTTPConnectionPool):
        ConnectionCls = Plain

    class SecurePool(HTTPSConnectionPool):
        ConnectionCls = Secure

    return {"http": PlainPool, "https": SecurePool}


_BY_PROXY = _pools(lambda made: None)
