"""Reading a request's body: whole, bounded in bytes and in time.

Called by `banyan.server.asgi`. What is too long is never kept, only read past for a
while, so that a client that is still sending gets to see the answer.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from banyan.errors import BanyanError

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]

_DISCARD_SECONDS_MAX = 5.0


class Disconnected(Exception):
    """The client went away before its request was complete."""


async def read_body(scope: Message, receive: Receive, limit_bytes: int, seconds: float) -> bytes:
    """The whole body. Errors: `too_large`, `bad_request` (too slow), Disconnected."""
    if _declared_length(scope) > limit_bytes:
        if not _expects_permission(scope):
            await _discard(receive)
        raise _too_large(limit_bytes)
    chunk, more = await _next(receive)
    if not more and len(chunk) <= limit_bytes:
        return chunk  # nearly every request: spared the timer
    try:
        async with asyncio.timeout(seconds):
            return await _read_on(receive, chunk, more, limit_bytes)
    except TimeoutError:
        raise BanyanError(
            "bad_request", f"the body did not arrive within {seconds:g} seconds"
        ) from None


async def _read_on(receive: Receive, first: bytes, more: bool, limit_bytes: int) -> bytes:
    chunks, length = [first], len(first)
    while more:
        if length > limit_bytes:
            await _discard(receive)
            break
        chunk, more = await _next(receive)
        chunks.append(chunk)
        length += len(chunk)
    if length > limit_bytes:
        raise _too_large(limit_bytes)
    return b"".join(chunks)


async def _next(receive: Receive) -> tuple[bytes, bool]:
    message = await receive()
    if message["type"] == "http.disconnect":
        raise Disconnected
    return message.get("body", b""), message.get("more_body", False)


async def _discard(receive: Receive) -> None:
    """Read past the rest: closing on a client that sends would destroy the answer."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_DISCARD_SECONDS_MAX):
            while (await _next(receive))[1]:
                pass


def _declared_length(scope: Message) -> int:
    for name, value in scope["headers"]:
        if name == b"content-length":
            return int(value)  # the parser has refused all but digits
    return 0


def _expects_permission(scope: Message) -> bool:
    return (b"expect", b"100-continue") in scope["headers"]


def _too_large(limit_bytes: int) -> BanyanError:
    return BanyanError("too_large", f"a body may have {limit_bytes} bytes: send less at a time")
