"""One connection's protocol without a socket: what is written to it is there to be looked at."""

import asyncio
from typing import Any

from uvicorn.server import ServerState

from banyan.server.connections import Connections
from banyan.server.protocol import Protocol
from banyan.server.serve import server_config


class Wire(asyncio.Transport):
    """The transport, and the `protocol` that it is of; `written` is all that was sent."""

    def __init__(self, application: Any, connections: Connections | None = None) -> None:
        """application: of ASGI."""
        super().__init__()
        self.written, self.closed = b"", False
        self.state = ServerState()
        self.protocol = Protocol(server_config(application), self.state, {}, connection=None)  # type: ignore[arg-type]
        connection = (connections or Connections(10, 0)).enter("", self.protocol)
        assert connection
        self.protocol._connection = connection
        self.protocol.connection_made(self)

    async def rest(self) -> None:
        """Until no request is in work."""
        async with asyncio.timeout(30):
            while self.state.tasks:
                await asyncio.sleep(0)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += data

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            asyncio.get_running_loop().call_soon(self.protocol.connection_lost, None)

    def abort(self) -> None:
        self.close()

    def is_closing(self) -> bool:
        return self.closed

    def get_write_buffer_size(self) -> int:
        return 0

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Nothing waits here."""

    def pause_reading(self) -> None:
        """Whoever plays with it sends what it likes."""

    def resume_reading(self) -> None:
        """As above."""
