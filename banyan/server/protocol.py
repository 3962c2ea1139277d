"""HTTP as uvicorn parses it, with what it lacks: bounds on headers, errors as JSON, one write.

Handed to uvicorn by `banyan.server.serve`. The parser is given one request at a time. What comes
behind a request is kept as it came, within a bound, until the answer before it is taken in: a
head that is parsed costs many times its bytes.
"""

import asyncio
import contextlib
import json
import socket
import struct
from typing import Any, NoReturn

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from banyan.errors import BanyanError
from banyan.server.connections import Connection, Standing, has_arrived
from banyan.server.intake import SHORT_BYTES_MAX

HEADER_BYTES_MAX = 64 * 1024
BEHIND_BYTES_MAX = 16 * 1024  # of requests on one connection that wait for the answer before
FRAME_BYTES_MAX = 1024  # of a body in chunks: between two pieces of it, and after the last
_PACKET_BYTES_MIN = 64  # as so many bytes counts the smallest packet: each costs some work
# In the state of an ASGI scope: by what it came, and that its body is there and is short.
CONNECTION, SHORT = "connection", "short"
HEADERS_MAX = 200  # of one request
PATH_BYTES_MAX = 1024  # it is unquoted before it is known who asks
_END = b"\r\n\r\n"  # of a head, and of a body in chunks
_CHUNKED_BYTES_MAX = 4096  # the parser is given at one time: it may keep as much of a frame
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
        self._in_headers = True  # or before them
        self._header_bytes = 0  # of this head, as far as it has come
        self._body_left = 0  # bytes, of one whose length was announced
        self._frame_bytes = 0  # since there was something of the body
        self._tail = b""  # the last bytes that came: an end may come in two packets
        self._behind = b""
        self._complaint = ""
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
        super().connection_lost(exc)
        self._connection.be_gone()

    def eof_received(self) -> bool:  # type: ignore[override]
        """Nothing more comes, but what was asked for is answered: its sender may read still.

        TLS has no such half of a connection. Whether the connection stays open.
        """
        if self.scheme == "https" or not self._has_request():
            return False
        self._connection.end_sending()
        return True

    def pause_writing(self) -> None:
        """What was written is not taken in."""
        super().pause_writing()
        self._connection.pause(self)

    def resume_writing(self) -> None:
        """It is."""
        super().resume_writing()
        self._connection.resume(self)
        self._go_on()
        self._end_where_all_is_answered()

    def held(self) -> int:
        """The bytes that are kept: of the answer in work, all; and of what may come behind."""
        joining = self.cycle.transport if self.cycle else None
        length = joining.length if isinstance(joining, Joining) else 0
        beneath = _BENEATH_TLS_BYTES if self.scheme == "https" else 0
        return self.transport.get_write_buffer_size() + length + beneath + BEHIND_BYTES_MAX

    def unsent(self) -> int:
        """The bytes of answers that are still to go, as far as they can be seen."""
        to_come = self.cycle.expected_content_length if self.cycle else 0
        return self.transport.get_write_buffer_size() + to_come

    def data_received(self, data: bytes) -> None:
        """Give the parser what belongs to one request, and keep what is behind it."""
        start = 0
        while start < len(data) and not self.transport.is_closing():
            if self._has_request():
                self._keep(data[start:])
                return
            end = self._end_of_piece(data, start)
            self._parse(data[start:end])
            start = end
        if self._header_bytes or not self._in_headers:  # it is not whole
            self._tail = (self._tail + data[1 - len(_END) :])[1 - len(_END) :]
            if self._in_headers:
                self._connection.await_head()

    def _has_request(self) -> bool:
        """Whether a whole request is in work, or its answer is not taken in."""
        cycle = self.cycle
        if cycle is None or cycle.more_body:
            return False
        return not cycle.response_complete or self.flow.write_paused

    def _keep(self, data: bytes) -> None:
        """Until the answer before it was sent. Who sends too much ahead is not answered at all."""
        self._unset_keepalive_if_required()
        if len(self._behind) + len(data) > BEHIND_BYTES_MAX:
            self._behind = b""
            self.transport.close()
        else:
            self._behind += data

    def _go_on(self) -> None:
        """With what was kept, where its turn has come."""
        if self._behind and not self._has_request():
            data, self._behind = self._behind, b""
            self.data_received(data)

    def _end_where_all_is_answered(self) -> None:
        """Where nothing more can come."""
        if self._connection.has_ended and not self._has_request():
            self.transport.close()

    def _end_of_piece(self, data: bytes, start: int) -> int:
        """Not beyond the end of this request. To give the parser less at a time changes nothing."""
        if self._body_left:
            return min(len(data), start + self._body_left)
        if self._tail and start == 0:
            seam = (self._tail + data[: len(_END) - 1]).find(_END)
            if seam >= 0:
                return seam + len(_END) - len(self._tail)
        found = data.find(_END, start)
        end = len(data) if found < 0 else found + len(_END)
        return end if self._in_headers else min(end, start + _CHUNKED_BYTES_MAX)

    def _parse(self, piece: bytes) -> None:
        """Count all that is no body: the parser keeps it, or each byte of it costs some work."""
        size = len(piece) if len(piece) > _PACKET_BYTES_MIN else _PACKET_BYTES_MIN
        if self._in_headers:
            self._header_bytes += size
            if self._header_bytes > HEADER_BYTES_MAX:
                self.send_400_response(f"headers may have {HEADER_BYTES_MAX} bytes in all")
                return
        else:
            self._frame_bytes += size
        super().data_received(piece)
        if self._frame_bytes > FRAME_BYTES_MAX:
            told = f"between chunks, and after the last, there may be {FRAME_BYTES_MAX} bytes"
            self.send_400_response(told)

    def on_message_begin(self) -> None:
        """The first byte of a request. What asks it may know what it came by."""
        if self._has_request():  # where its end was overlooked, answers must not be mixed up
            self._refuse("one request at a time")
        super().on_message_begin()
        self.scope["state"][CONNECTION] = self._connection

    def on_header(self, name: bytes, value: bytes) -> None:
        """An exception here becomes a 400. The rest is uvicorn's, without a further call."""
        if not self._in_headers:
            self._refuse("send all headers before the body, none after it")
        if len(self.headers) >= HEADERS_MAX:
            self._refuse(f"a request may have {HEADERS_MAX} headers")
        name = name.lower()
        if name == b"expect" and value.lower() == b"100-continue":
            self.expect_100_continue = True
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        """The body, if any, has its own bounds: `banyan.server.intake`."""
        hosts = 0
        for name, value in self.headers:
            if name == b"host":
                hosts += 1
            elif name == b"content-length":
                self._body_left = int(value)
        if len(self.url.partition(b"?")[0]) > PATH_BYTES_MAX:
            self._refuse(f"an address may have {PATH_BYTES_MAX} bytes before its query")
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

    def on_body(self, body: bytes) -> None:
        """A piece of it: what comes now may have a frame again."""
        self._frame_bytes = 0
        if self._body_left:
            self._body_left -= len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """A short body that came with its head needs no looking after. The rest is as uvicorn's."""
        cycle = self.cycle
        if len(cycle.body) <= SHORT_BYTES_MAX:
            self.scope["state"][SHORT] = True
        self._in_headers = True
        self._header_bytes = self._body_left = self._frame_bytes = 0
        self._tail = b""
        if not cycle.response_complete:
            cycle.more_body = False
            cycle.message_event.set()

    def on_response_complete(self) -> None:
        """What was sent ahead has its turn."""
        super().on_response_complete()
        if self._behind and not self.transport.is_closing():
            self._unset_keepalive_if_required()
            self._go_on()
        self._end_where_all_is_answered()

    def send_400_response(self, msg: str) -> None:
        """What can't be parsed as HTTP gets the one error shape too.

        Where a request waits for its answer, or has a part of it, this one would be taken for it:
        then the connection is closed, and no more.
        """
        if self.transport.is_closing():
            return
        if self._has_request() or (self._is_asked() and self.cycle.response_started):
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
            return Standing.CLAIMS if self._has_token() else Standing.ASKS
        if self._may_go_on() and self._has_token():  # while that is looked at
            return Standing.CLAIMS
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

    def _may_go_on(self) -> bool:
        """Whether a body is to come, and nobody has refused it."""
        cycle = self.cycle
        return cycle is not None and cycle.more_body and not cycle.response_started

    def _has_token(self) -> bool:
        """Whether the request in work comes with something like it."""
        if self._looked_at is not self.cycle:
            self._looked_at = self.cycle
            self._claims = any(name == b"authorization" for name, _value in self.headers)
        return self._claims

    def _is_asked(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _refuse(self, message: str) -> NoReturn:
        self._complaint = message
        raise ValueError(message)
