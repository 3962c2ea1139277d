"""One HTTP connection of a simulated worker: as little work for a request as there can be."""

import asyncio
from typing import Any

import orjson

_END = b"\r\n\r\n"


class Wire:
    """One request at a time; connects at the first one."""

    def __init__(self, host: str, port: int, token: str) -> None:
        self._address = host, port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._fixed = (
            f"Host: {host}:{port}\r\nAuthorization: Bearer {token}\r\n"
            "Content-Type: application/json\r\nPrefer: return=minimal"
        )

    async def ask(
        self, method: str, path: str, body: Any, wait_seconds: float = 0.0
    ) -> tuple[int, Any]:
        """Status and JSON body. wait_seconds: for which the server may hold it."""
        if self._streams is None:
            self._streams = await asyncio.open_connection(*self._address)
        reader, writer = self._streams
        data = orjson.dumps(body)
        wait = f", wait={wait_seconds:.3f}" if wait_seconds else ""
        head = f"{method} {path} HTTP/1.1\r\n{self._fixed}{wait}\r\nContent-Length: {len(data)}"
        writer.write(head.encode() + _END + data)
        answer = (await reader.readuntil(_END)).lower()
        status = int(answer[9:12])
        length = int(answer.partition(b"content-length:")[2].partition(b"\r\n")[0] or 0)
        return status, orjson.loads(await reader.readexactly(length)) if length else None
