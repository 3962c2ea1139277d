"""HTTP as uvicorn parses it, with what it lacks: bounds on headers, errors as JSON, one write.

Handed to uvicorn by `banyan.server.serve`.
"""

import asyncio
import contextlib
import json
import socket
import struct
from functools import partial
from typing import Any, NoReturn

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from banyan.errors import BanyanError
from banyan.server.connections import Connection, Standing, has_arrived
from banyan.server.intake import SHORT_BYTES_MAX

HEADER_BYTES_MAX = 64 * 1024
PIPELINED_MAX = 16  # requests on one connection that wait until the one before is answered
# In the state of an ASGI scope: by what it came, and that its body is there and is short.
CONNECTION, SHORT = "connection", "short"
HEADERS_MAX = 200  # of one request
_BETWEEN_BYTES = len(": \r\n")
_JOINED_BYTES_MAX = 16 * 1024  # of a body: a longer one is not copied behind its head
_BENEATH_TLS_BYTES = 64 * 1024  # as much as uvloop's default is out of our sight there
_NOTHING_LINGERS = struct.pack("ii", 1, 0)


class Joining:
    """The transport of one answer, whose head waits for its body: a write less.

    In a process where threads calculate, the loop may have to wait after each for its turn. What
    is written when the connection is closing goes nowhere.
    """

    def __init__(self, transport: asyncio.Transport, cycle: RequestResponseCycle) -> None:
        self._transport = transport
        self._cycle = cycle
        self._head: bytes | None = None
        self.length = 0  # of the whole body, as it was announced
        if cycle.scope["method"] == "HEAD":  # whose answer is a head and no more
            self._head = b""
        self.close = transport.close
        self.is_closing = transport.is_closing

    def write(self, data: bytes) -> None:
        """Hold the head of the answer, and send it with what comes after it."""
        if self._transport.is_closing():
            return
        if not self._cycle.response_started:  # 100 Continue
            self._transport.write(data)
        elif self._head is None:
            self._head = data
            self.length = self._cycle.expected_content_length
        elif len(data) > _JOINED_BYTES_MAX:
            self._transport.writelines([self._head, data])
            self._head = b""
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
        self._in_work: RequestResponseCycle | None = None  # of several: the one before the others
        self._looked_at: RequestResponseCycle | None = None
        self._claims = False  # a token, in the one that was looked at

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A connection that never says anything is closed too."""
        self.transport = transport
        if self._connection.has_left:  # displaced meanwhile: nobody has to wait for its end
            transport.abort()
            return
        super().connection_made(transport)
        if isinstance(transport.get_extra_info("sockname"), str):
            self.server = None  # the path of a unix socket is no host that requests are for
        # One byte that is unsent may keep a whole answer in memory: it is counted from there on.
        transport.set_write_buffer_limits(1 if self.scheme == "https" else 0)  # "from", and "above"
        self._connection.holder = self
        self._connection.await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """It makes room for others."""
        self._connection.resume(self)
        self._connection.leave()
        if self._in_work and not self._in_work.response_complete:
            self._in_work.disconnected = True
            self._in_work.message_event.set()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """What was written is not taken in."""
        super().pause_writing()
        self._connection.pause(self)

    def resume_writing(self) -> None:
        """It is."""
        super().resume_writing()
        self._connection.resume(self)

    def held(self) -> int:
        """The bytes that are kept for answers: of the one in work, all."""
        joining = self._in_work.transport if self._in_work else None
        length = joining.length if isinstance(joining, Joining) else 0
        beneath = _BENEATH_TLS_BYTES if self.scheme == "https" else 0
        return self.transport.get_write_buffer_size() + length + beneath

    def unsent(self) -> int:
        """The bytes of answers that are still to go, as far as they can be seen."""
        to_come = self._in_work.expected_content_length if self._in_work else 0
        return self.transport.get_write_buffer_size() + to_come

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
        if len(self.headers) >= HEADERS_MAX:
            self._refuse(f"a request may have {HEADERS_MAX} headers")
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
        self.cycle.transport = Joining(  # type: ignore[assignment]  # as much as is used of it
            self.transport, self.cycle
        )
        if self.parser.should_upgrade():  # to what we do not speak, and may follow at once
            self.cycle.keep_alive = False

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
        if cycle is None or self.flow.write_paused:
            return False
        return not (cycle.more_body or cycle.response_started)

    def standing(self) -> Standing:
        """How far it is. Bytes that come later may wait for long, where nobody has to read them."""
        if self.is_busy():
            if self._looked_at is not self.cycle:
                self._looked_at = self.cycle
                self._claims = any(name == b"authorization" for name, _value in self.headers)
            return Standing.CLAIMS if self._claims else Standing.ASKS
        if self.cycle is not None or self._header_bytes:
            return Standing.SILENT
        client = self.transport.get_extra_info("socket")
        return Standing.ARRIVED if has_arrived(client.fileno()) else Standing.SILENT

    def end(self) -> None:
        """Close it now, whatever goes on; the kernel keeps nothing for who reads nothing."""
        if self.flow.write_paused:
            with contextlib.suppress(OSError):
                self.transport.get_extra_info("socket").setsockopt(
                    socket.SOL_SOCKET, socket.SO_LINGER, _NOTHING_LINGERS
                )
        self.transport.abort()

    def be_late(self) -> None:
        """The head of a request did not come in time."""
        if self.transport.is_closing():
            self.transport.abort()  # who is told so does not listen
        elif self._header_bytes:
            self.send_400_response("no whole request within the time for one")
        else:
            self.transport.close()  # nothing was asked: an answer could be taken for another's

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        if self.flow.write_paused:
            app = partial(self._answer_later, cycle, app)
        else:
            self._in_work = cycle
        super()._start_asgi_task(cycle, app)

    async def _answer_later(
        self, cycle: RequestResponseCycle, app: Any, scope: Any, receive: Any, send: Any
    ) -> None:
        """Who does not take in one answer is not given another to keep."""
        await self.flow.drain()
        if self.transport.is_closing():
            cycle.disconnected = True
        else:
            self._in_work = cycle
            await app(scope, receive, send)

    def _is_asked(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _refuse(self, message: str) -> NoReturn:
        self._complaint = message
        raise ValueError(message)
