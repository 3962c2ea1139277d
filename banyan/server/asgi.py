"""The ASGI application: reads a request, asks the WSGI application, holds who may wait.

Run by `banyan.server.serve`. A request with `Prefer: wait=N` whose answer names topics
(`Banyan-Wait`) is held here, as a coroutine without a thread, and the WSGI application is
asked again when one of them is signalled. It never asks again for a caller that has gone:
a claim must not be made for nobody.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any

from banyan.config import knobs
from banyan.errors import BanyanError
from banyan.preferences import wait_seconds
from banyan.server.bridge import (
    GO_ON,
    HEAD_ONLY,
    Answer,
    Environ,
    Header,
    WSGIApplication,
    call,
    environ_of,
    error_answer,
    heed_proxy,
)
from banyan.server.connections import Connection
from banyan.server.crowd import Crowd, Request
from banyan.server.intake import SHORT_BYTES_MAX, Body, Disconnected, Room, discard, read_short
from banyan.server.lanes import STRANGERS, AccountOf, Accounts, Lanes, Place, Tokens
from banyan.server.protocol import CONNECTION, SHORT
from banyan.server.store import told
from banyan.server.turns import Claimant
from banyan.server.waiting import TURN_TOPICS, Hub, Waiter

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

_SAFE_METHODS = {"GET", "HEAD", "OPTIONS"}
_TOPICS_HEADER = b"banyan-wait"
_CLAIMANT_HEADER = b"banyan-wait-as"
_BEAT = re.compile(r"/workers/[^/]+/beat")
_TASK = re.compile(r"/tasks/([0-9a-f]{24})")
HELD_BYTES_MAX = 64 * 1024  # of the body of a claim or a beat
_COALESCE_SECONDS = 0.1  # a collection may change a thousand times a second
_PIECE_BYTES = 64 * 1024  # of an answer: what is written before it is known whether it is read
_TOPICS_FEW = 8  # more tasks than that, named one by one, are as good as a collection


class Application:
    """One WSGI application behind ASGI."""

    def __init__(
        self,
        wsgi: WSGIApplication,
        hub: Hub,
        threads: int,
        behind_proxy: bool = False,
        knows: Callable[[str], bool] = lambda header: True,
        account_of: AccountOf | None = None,
        tokens: Tokens | None = None,
    ) -> None:
        """threads: that one account may have; all together have twice as many.

        knows:      whether this Authorization header was found valid a moment ago; does no I/O.
        account_of: whose it was found to be, if it was; does no I/O.
        tokens:     what is remembered of those that were not looked up yet.
        """
        self._wsgi = wsgi
        self._behind_proxy = behind_proxy
        self._knows = knows
        self._hub = hub
        # Of which an account may take half, as of the threads: one body has room in it.
        self._room = Room(max(knobs().BODIES_BYTES_MAX, 2 * knobs().BODY_BYTES_MAX))
        self._accounts = Accounts(account_of, tokens)
        self._lanes = Lanes(2 * threads, "request")
        # What keeps leases alive never stands behind other requests: late beats lose attempts.
        self._beats = Lanes(max(2, threads), "beat")
        # Who was woken has half of an account's threads, so that a change that wakes hundreds
        # does not stand before all its other requests.
        self._woken = Crowd(self._ask, self._account_of, max(1, threads // 2))

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Serve one HTTP request."""
        if scope["type"] != "http":
            raise ValueError(f"no {scope['type']} here")
        try:
            environ = environ_of(scope)
            if self._behind_proxy:
                heed_proxy(environ)
            if SHORT in scope["state"]:  # nearly every request
                body = await read_short(receive, knobs().BODY_BYTES_MAX)
                await self._serve(scope, send, with_body(environ, body))
            else:
                await self._serve_long(scope, receive, send, environ)
        except Disconnected:
            return
        except BanyanError as error:
            await _send_and_close(send, scope, error_answer(error), receive)

    async def _serve_long(
        self, scope: Message, receive: Receive, send: Send, environ: Environ
    ) -> None:
        """A body that is long, or not there yet, is read only for those who may send one."""
        header, connection = _token(environ), scope["state"][CONNECTION]
        known = self._knows(header)
        self._trust(connection, header)  # now: a slow body may take a minute
        with self._room.share(self._accounts.of(header)) as share:
            body = Body(scope, receive, knobs().BODY_BYTES_MAX, share)
            if body.is_short():
                known = known or connection.is_trusted
            if not known and not await body.comes_soon():
                answer = await self._call({**environ, HEAD_ONLY: True}, b"", connection)
                if answer.status != GO_ON:
                    await _send_and_close(send, scope, answer, receive)
                    return
                self._trust(connection, header, is_valid=True)
                share.belongs_to(self._accounts.of(header))
            request = with_body(environ, await body.whole())
            if len(request.body) > SHORT_BYTES_MAX:
                await self._serve(scope, send, request)
                return
        # A short one takes nothing of the room while it is held.
        await self._serve(scope, send, request)

    async def _serve(self, scope: Message, send: Send, request: Request) -> None:
        try:
            answer = await self._answer(request, scope["state"][CONNECTION])
        except asyncio.CancelledError:  # the server ends, and has waited for this long enough
            answer = error_answer(BanyanError("unavailable", "the server ends; ask again soon"))
        if answer:
            await _send(send, scope, answer)

    async def _answer(self, request: Request, connection: Connection) -> Answer | None:
        """The answer, after the wait if one was asked for; None: the caller has gone."""
        asked = self._hub.now()
        task = _task_in(request)
        header = _token(request.environ)
        self._trust(connection, header)  # also before: who waits for an answer may have to go
        has_it = task and self._has_it(request, task)
        answer = None if has_it else await self._ask(request, connection)
        self._trust(connection, header)
        topics = _topics(answer) if answer else [task]
        if not topics or not request.wait_seconds:
            return answer
        with (
            self._hub.subscribe(topics, asked, _claimant(answer)) as waiter,
            connection.heeding(waiter.cancel),  # who sends nothing more waits no longer
        ):
            answer = await self._hold(request, answer, waiter)
        if connection.is_gone:
            return None
        return answer or await self._ask(request, connection)

    def _trust(self, connection: Connection, header: str, is_valid: bool = False) -> None:
        """is_valid: it was looked up just now."""
        if not connection.is_trusted and (is_valid or self._knows(header)):
            connection.trust(self._accounts.of(header))

    def _has_it(self, request: Request, topic: str) -> bool:
        """Whether the caller has made the task a moment ago, and nothing has become of it yet.

        Most who submit one task wait for it at once: to ask the application what is known would
        stand in the way of the claim that the task has just woken.
        """
        etag = request.environ.get("HTTP_IF_NONE_MATCH", "").strip('"')
        return bool(request.wait_seconds) and self._hub.is_new(topic, etag)

    async def _hold(self, request: Request, answer: Answer | None, waiter: Waiter) -> Answer | None:
        """Wait and ask again, until there is an answer that names no topics, or time is up.

        Of one that was not asked before, and is not now, None.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + request.wait_seconds
        pause = 0.0 if _are_narrow(waiter.topics) else _COALESCE_SECONDS
        rested = loop.time()
        while await waiter.wait(deadline - loop.time()):
            await asyncio.sleep(min(rested, deadline) - loop.time())
            found = await self._woken.ask(request, waiter)
            if found is None:
                break
            answer = found
            if not _topics(answer):
                waiter.found()
                return answer
            waiter.found_nothing()
            if loop.time() >= deadline:  # also where there is always something new
                break
            rested = loop.time() + pause
        return answer

    async def _ask(self, request: Request, connection: Connection | None = None) -> Answer:
        """Errors: Disconnected, and nothing was asked."""
        try:
            answer = await self._call(request.environ, request.body, connection)
        except BanyanError as error:  # it was not asked
            return error_answer(error)
        if answer.status >= 500 and request.environ["REQUEST_METHOD"] not in _SAFE_METHODS:
            told.disown()
        return answer

    async def _call(
        self, environ: Environ, body: bytes, connection: Connection | None = None
    ) -> Answer:
        """Ask the application, in a thread of the caller's account.

        Who is not known yet is asked for its head first: strangers share their threads, and
        nothing that takes long is done in those.
        Errors: `unavailable`, Disconnected; then it was not asked.
        """
        if connection and connection.is_gone:
            raise Disconnected
        header = _token(environ)
        lanes = self._beats if _is_beat(environ) else self._lanes
        account, group = self._accounts.of(header), ""
        if account == STRANGERS:
            place = self._accounts.place_of(header, environ["REMOTE_ADDR"])
            if self._accounts.is_to_be_asked(header):
                answer = await self._ask_head(lanes, place, environ, connection)
                if answer.status != GO_ON or HEAD_ONLY in environ:
                    return answer
                if connection:
                    self._trust(connection, header, is_valid=True)
            found = self._accounts.of(header)
            account, group = (found, "") if found else place
        ask = (call, self._wsgi, environ, body)
        return await lanes.run(account, *ask, group=group, connection=connection)

    async def _ask_head(
        self, lanes: Lanes, place: Place, environ: Environ, connection: Connection | None
    ) -> Answer:
        ask = (call, self._wsgi, {**environ, HEAD_ONLY: True}, b"")
        try:
            return await lanes.run(place.lane, *ask, group=place.group, connection=connection)
        except BanyanError:  # there are too many: whoever is none of them should stand elsewhere
            self._accounts.look_again()
            raise

    def _account_of(self, request: Request) -> str:
        return self._accounts.of(_token(request.environ))


def with_body(environ: Environ, body: bytes) -> Request:
    """A request whose body is whole; it says how long that is.

    One whose body is long waits for nothing: it would keep the body's room from others.
    """
    if body or "CONTENT_LENGTH" in environ:
        environ["CONTENT_LENGTH"] = str(len(body))
    safe = environ["REQUEST_METHOD"] in _SAFE_METHODS
    held = len(body) <= (SHORT_BYTES_MAX if safe else HELD_BYTES_MAX)
    prefer = environ.get("HTTP_PREFER", "")
    return Request(environ, body, wait_seconds(prefer, knobs().WAIT_SECONDS_MAX) if held else 0.0)


def _is_beat(environ: Environ) -> bool:
    return environ["REQUEST_METHOD"] == "POST" and bool(_BEAT.fullmatch(environ["PATH_INFO"]))


def _token(environ: Environ) -> str:
    return str(environ.get("HTTP_AUTHORIZATION", ""))


def _task_in(request: Request) -> str:
    """The topic of the task that a request reads, as it is; empty where it is another request."""
    environ = request.environ
    found = _TASK.fullmatch(environ["PATH_INFO"])
    plain = environ["REQUEST_METHOD"] == "GET" and not environ["QUERY_STRING"]
    return f"task:{found[1]}" if found and plain and "HTTP_AUTHORIZATION" in environ else ""


def _topics(answer: Answer) -> list[str]:
    """What the answer says may be waited for; none: it is the final one."""
    for name, value in answer.headers:
        if name == _TOPICS_HEADER:
            return [topic for topic in value.decode("latin-1").replace(" ", "").split(",") if topic]
    return []


def _claimant(answer: Answer | None) -> Claimant | None:
    """Who waits for work, as the answer says."""
    for name, value in answer.headers if answer else ():
        if name == _CLAIMANT_HEADER:
            return Claimant(*value.decode("latin-1").split(" "))
    return None


def _are_narrow(topics: Sequence[str]) -> bool:
    """Whether a signal for them most likely means an answer, and so needs no pause."""
    few = len(topics) <= _TOPICS_FEW
    return few and all(":" in topic or topic in TURN_TOPICS for topic in topics)


async def _send(send: Send, scope: Message, answer: Answer) -> None:
    """Send a whole answer."""
    head, body = _to_send(scope, answer)
    await send({"type": "http.response.start", "status": answer.status, "headers": head})
    if len(body) > _PIECE_BYTES:
        view = memoryview(body)
        for start in range(0, len(body), _PIECE_BYTES):
            piece = {"body": view[start : start + _PIECE_BYTES], "more_body": True}
            await send({"type": "http.response.body", **piece})
        body = b""
    await send({"type": "http.response.body", "body": body})


async def _send_and_close(send: Send, scope: Message, answer: Answer, receive: Receive) -> None:
    """Send a whole answer to a request that was not read to its end, and no further one."""
    head, body = _to_send(scope, answer)
    head.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": answer.status, "headers": head})
    await send({"type": "http.response.body", "body": body, "more_body": True})
    await discard(scope, receive)
    await send({"type": "http.response.body", "body": b""})


def _to_send(scope: Message, answer: Answer) -> tuple[list[Header], bytes]:
    bodiless = answer.status in (204, 304)
    headers = [
        header
        for header in answer.headers
        if header[0] not in (_TOPICS_HEADER, _CLAIMANT_HEADER, b"connection", b"date")
        and not (header[0] == b"content-length" and (bodiless or scope["method"] != "HEAD"))
    ]
    body = b"" if bodiless or scope["method"] == "HEAD" else answer.body
    if not bodiless and scope["method"] != "HEAD":
        headers.append((b"content-length", str(len(body)).encode()))
    return headers, body
