"""HTTP as uvicorn parses it, with what it lacks: bounds on headers, errors as JSON, one write.

Handed to uvicorn by `banyan.server.serve`.
"""

import asyncio
import json
from typing import Any, NoReturn

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from banyan.errors import BanyanError
from banyan.server.connections import Connection
from banyan.server.intake import SHORT_BYTES_MAX

HEADER_BYTES_MAX = 64 * 1024
PIPELINED_MAX = 16  # requests on one connection that wait until the one before is answered
# In the state of an ASGI scope: by what it came, and that its body is there and is short.
CONNECTION, SHORT = "connection", "short"
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

    def __init__(self, *args: Any, connection: Connection, **more: Any) -> None:
        super().__init__(*args, **more)
        self._connection = connection
        self._header_bytes = 0  # arrived while headers were not complete
        self._complete_bytes = 0  # in headers that were
        self._in_headers = True
        self._complaint = ""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A connection that never says anything is closed too."""
        self.transport = transport
        if self._connection.has_left:  # displaced meanwhile: nobody has to wait for its end
            transport.abort()
            return
        super().connection_made(transport)
        if isinstance(transport.get_extra_info("sockname"), str):
            self.server = None  # the path of a unix socket is no host that requests are for
        self._connection.holder = self
        self._connection.await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """It makes room for others."""
        self._connection.leave()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Count what comes before the headers are complete."""
        counts = self._in_headers
        if counts:
            self._header_bytes += len(data)
        super().data_received(data)
        if self._in_headers:
            self._header_bytes += not counts  # of a later request: how much of it is not known
            self._connection.await_head()
            if self._header_bytes > HEADER_BYTES_MAX:
                self.send_400_response(f"headers may have {HEADER_BYTES_MAX} bytes in all")

    def on_header(self, name: bytes, value: bytes) -> None:
        """Count what is complete already; an exception here becomes a 400."""
        self._complete_bytes += len(name) + len(value) + _BETWEEN_BYTES
        if self._complete_bytes > HEADER_BYTES_MAX:
            self._refuse("headers are too long")
        super().on_header(name, value)

    def on_message_begin(self) -> None:
        """The first byte of a request. What asks it may know what it came by."""
        if len(self.pipeline) >= PIPELINED_MAX:
            self._refuse(f"at most {PIPELINED_MAX} requests may wait on one connection")
        super().on_message_begin()
        self.scope["state"][CONNECTION] = self._connection
        self._complete_bytes = 0
        if not self._in_headers:
            self._header_bytes = 0
            self._in_headers = True

    def on_headers_complete(self) -> None:
        """The body, if any, has its own bounds: `banyan.server.intake`."""
        hosts = sum(name == b"host" for name, _value in self.headers)
        if hosts > 1 or (not hosts and self.parser.get_http_version() == "1.1"):
            self._refuse("a request has one header `Host`")
        self._in_headers = False
        self._connection.head_came()
        super().on_headers_complete()
        if self.scope["method"] != "HEAD":  # whose answer is a head and no more
            self.cycle.transport = Joining(  # type: ignore[assignment]  # as much as is used of it
                self.transport, self.cycle
            )

    def on_message_complete(self) -> None:
        """A short body that came with its head needs no looking after."""
        if len(self.cycle.body) <= SHORT_BYTES_MAX:
            self.scope["state"][SHORT] = True
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """What can't be parsed as HTTP gets the one error shape too.

        Where an earlier request waits for its answer this one would be taken for it: then the
        connection is closed, and no more.
        """
        if self.transport.is_closing():
            return
        if self.pipeline or (self._in_headers and self._is_asked()):
            self.transport.close()
            return
        body = json.dumps(BanyanError("bad_request", self._complaint or msg).body()).encode()
        head = (
            "HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}\r\nconnection: close\r\n"
            "x-content-type-options: nosniff\r\ncache-control: no-store\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.close()

    def is_busy(self) -> bool:
        """Whether a whole request waits for its answer. To take that in is the other end's part."""
        cycle = self.cycle
        return cycle is not None and not (cycle.more_body or cycle.response_started)

    def end(self) -> None:
        """Close it now, whatever goes on."""
        self.transport.abort()

    def be_late(self) -> None:
        """The head of a request did not come in time."""
        if self.transport.is_closing():
            self.transport.abort()  # who is told so does not listen
        elif self._header_bytes:
            self.send_400_response("no whole request within the time for one")
        else:
            self.transport.close()  # nothing was asked: an answer could be taken for another's

    def _is_asked(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _refuse(self, message: str) -> NoReturn:
        self._complaint = message
        raise ValueError(message)
