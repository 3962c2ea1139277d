"""HTTP as uvicorn parses it, with what it lacks: bounds on headers, errors as JSON, one write.

Handed to uvicorn by `banyan.server.serve`.
"""

import asyncio
import json

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from banyan.errors import BanyanError

HEADER_SECONDS_MAX = 20.0
HEADER_BYTES_MAX = 64 * 1024
_BETWEEN_BYTES = len(": \r\n")


class Joining:
    """The transport of one answer, whose head waits for its body: a write less.

    In a process where threads calculate, the loop may have to wait after each for its turn.
    """

    def __init__(self, transport: asyncio.Transport, cycle: RequestResponseCycle) -> None:
        self._transport = transport
        self._cycle = cycle
        self._head: bytes | None = None
        self.close = transport.close
        self.is_closing = transport.is_closing

    def write(self, data: bytes) -> None:
        """Hold the head of the answer, and send it with what comes after it."""
        if not self._cycle.response_started:  # 100 Continue
            self._transport.write(data)
        elif self._head is None:
            self._head = data
        else:
            self._transport.write(self._head + data)
            self._head = b""


class Protocol(HttpToolsProtocol):
    """One connection. A request line and headers must come soon, and be of decent length."""

    _timer: asyncio.TimerHandle | None = None
    _header_bytes = 0  # arrived while headers were not complete
    _complete_bytes = 0  # in headers that were
    _in_headers = True

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A connection that never says anything is closed too."""
        super().connection_made(transport)
        self._expect_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the timer with the connection."""
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Count what comes before the headers are complete."""
        if self._in_headers:
            self._header_bytes += len(data)
        super().data_received(data)
        if self._in_headers and self._header_bytes > HEADER_BYTES_MAX:
            self.send_400_response(f"headers may have {HEADER_BYTES_MAX} bytes in all")

    def on_header(self, name: bytes, value: bytes) -> None:
        """Count what is complete already; an exception here becomes a 400."""
        self._complete_bytes += len(name) + len(value) + _BETWEEN_BYTES
        if self._complete_bytes > HEADER_BYTES_MAX:
            raise ValueError("headers are too long")
        super().on_header(name, value)

    def on_message_begin(self) -> None:
        """The first byte of a request."""
        super().on_message_begin()
        self._complete_bytes = 0
        if not self._in_headers:
            self._header_bytes = 0
            self._expect_headers()

    def on_headers_complete(self) -> None:
        """The body, if any, has its own bounds: `banyan.server.intake`."""
        self._in_headers = False
        self._stop_timer()
        super().on_headers_complete()
        if self.scope["method"] != "HEAD":  # whose answer is a head and no more
            self.cycle.transport = Joining(  # type: ignore[assignment]  # as much as is used of it
                self.transport, self.cycle
            )

    def send_400_response(self, msg: str) -> None:
        """What can't be parsed as HTTP gets the one error shape too."""
        if self.transport.is_closing():
            return
        body = json.dumps(BanyanError("bad_request", msg).body()).encode()
        head = (
            "HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}\r\nconnection: close\r\n"
            "x-content-type-options: nosniff\r\ncache-control: no-store\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.close()

    def _expect_headers(self) -> None:
        self._in_headers = True
        self._stop_timer()
        self._timer = self.loop.call_later(HEADER_SECONDS_MAX, self._give_up)

    def _stop_timer(self) -> None:
        if self._timer:
            self._timer.cancel()
            self._timer = None

    def _give_up(self) -> None:
        if self._header_bytes:
            self.send_400_response(f"no whole request within {HEADER_SECONDS_MAX:g} seconds")
        else:
            self.transport.close()  # nothing was asked: an answer could be taken for another's
