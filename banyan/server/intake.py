"""Reading a request's body: whole, bounded in bytes and in time, one alone and all together.

Called by `banyan.server.asgi`, which first asks whether the sender may send one where it is long
or does not come at once. What is too long is never kept, only read past for a while, so
that a client that is still sending gets to see the answer.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from typing import Any

from banyan.errors import BanyanError

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]

SHORT_BYTES_MAX = 16 * 1024  # so much is kept for anybody
SOON_SECONDS = 0.1  # within which a short body is right behind its head
BODY_SECONDS_MAX = 60.0
PATIENCE_SECONDS = 10.0  # until a body begins; after that it has to come at this rate, averaged
BYTES_PER_SECOND_MIN = 16 * 1024
DISCARD_SECONDS_MAX = 5.0


class Disconnected(Exception):
    """The client went away before its request was complete."""


class Room:
    """How many bytes of long bodies may be in memory at one time; on the event loop only.

    The bodies of one account never take more than is left for others.
    """

    def __init__(self, bytes_max: int) -> None:
        self._left = bytes_max
        self._taken: dict[str, int] = {}  # by account

    @contextlib.contextmanager
    def share(self, account: str) -> Iterator["Share"]:
        """For one body, until it was dealt with."""
        share = Share(self, account)
        try:
            yield share
        finally:
            self.move(share.account, -share.taken)

    def take(self, account: str, count: int) -> None:
        """Errors: `unavailable` where there is not so much left for this account."""
        if self._taken.get(account, 0) + count > self._left - count:
            message = "too many long bodies are on their way: send it again soon"
            raise BanyanError("unavailable", message)
        self.move(account, count)

    def move(self, account: str, count: int) -> None:
        """An account has so much more, or less, whatever is left."""
        self._left -= count
        taken = self._taken.pop(account, 0) + count
        if taken:
            self._taken[account] = taken


class Share:
    """What one body takes of the room."""

    def __init__(self, room: Room, account: str) -> None:
        self._room = room
        self.account = account
        self.taken = 0

    def take(self, count: int) -> None:
        """So many bytes more. Errors: `unavailable`."""
        self._room.take(self.account, count)
        self.taken += count

    def belongs_to(self, account: str) -> None:
        """Now it is known whose body it is."""
        self._room.move(self.account, -self.taken)
        self._room.move(account, self.taken)
        self.account = account


class Body:
    """One that is long, or was not there with its head."""

    def __init__(self, scope: Message, receive: Receive, limit_bytes: int, share: Share) -> None:
        self._receive = receive
        self._limit_bytes = limit_bytes
        self._share = share
        self._declared = _declared_length(scope)
        self._asks = _expects_permission(scope)
        self._chunks: list[bytes] = []
        self._more = True

    def is_short(self) -> bool:
        """Whether it says so, and comes unasked."""
        return 0 < self._declared <= SHORT_BYTES_MAX and not self._asks

    async def comes_soon(self) -> bool:
        """Whether it is short and right behind its head: many clients send two packets.

        Errors: Disconnected, `too_large`, `unavailable`.
        """
        if self.is_short():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(SOON_SECONDS):
                    while self._more:
                        await self._read()
        return not self._more

    async def whole(self) -> bytes:
        """All of it.

        Errors: `too_large`, `bad_request` (too slow), `unavailable` (no room), Disconnected.
        """
        if self._declared > self._limit_bytes:
            raise _too_large(self._limit_bytes)
        loop = asyncio.get_running_loop()
        began, share = loop.time(), self._share
        try:
            async with asyncio.timeout(min(PATIENCE_SECONDS, BODY_SECONDS_MAX)) as patience:
                while self._more:
                    await self._read()
                    earned = PATIENCE_SECONDS + share.taken / BYTES_PER_SECOND_MIN
                    patience.reschedule(began + min(earned, BODY_SECONDS_MAX))
        except TimeoutError:
            told = f"{share.taken} bytes in {loop.time() - began:.0f} seconds"
            raise BanyanError("bad_request", f"the body came too slowly: {told}") from None
        return b"".join(self._chunks)

    async def _read(self) -> None:
        chunk, self._more = await _next(self._receive)
        if self._share.taken + len(chunk) > self._limit_bytes:
            raise _too_large(self._limit_bytes)
        self._share.take(len(chunk))
        self._chunks.append(chunk)


async def read_short(receive: Receive, limit_bytes: int) -> bytes:
    """A body that is there already. Errors: `too_large`, Disconnected."""
    chunk, _more = await _next(receive)
    if len(chunk) > limit_bytes:
        raise _too_large(limit_bytes)
    return chunk


async def _next(receive: Receive) -> tuple[bytes, bool]:
    message = await receive()
    if message["type"] == "http.disconnect":
        raise Disconnected
    return message.get("body", b""), message.get("more_body", False)


async def discard(scope: Message, receive: Receive) -> None:
    """Read past the rest: closing on a client that sends would destroy the answer."""
    if _expects_permission(scope):
        return  # it sends nothing before it is told to
    with contextlib.suppress(TimeoutError, Disconnected):
        async with asyncio.timeout(DISCARD_SECONDS_MAX):
            while (await _next(receive))[1]:
                pass


def _expects_permission(scope: Message) -> bool:
    return (b"expect", b"100-continue") in scope["headers"]


def _declared_length(scope: Message) -> int:
    for name, value in scope["headers"]:
        if name == b"content-length":
            return int(value)  # the parser has refused all but digits
    return 0


def _too_large(limit_bytes: int) -> BanyanError:
    return BanyanError("too_large", f"a body may have {limit_bytes} bytes: send less at a time")
