"""The threads in which requests are in work, and how accounts share them.

Used by `banyan.server.asgi`, on the event loop only. However many requests an account sends at
one time, and with however many tokens, it has half of the threads: the rest of its requests
wait for one another, and not before those of others. Who is not known yet shares the half of all
such.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

_REMEMBERED_MAX = 100_000  # headers, a number and a name each
_STRANGERS = ""  # is no account's name

Result = TypeVar("Result")


class Accounts:
    """Whose request it is, by its Authorization header.

    It goes by what was found once: who is refused meanwhile is only told so in the same lane.
    """

    def __init__(self, account_of: Callable[[str], str | None]) -> None:
        """account_of: whose a header was found to be a moment ago; does no I/O."""
        self._account_of = account_of
        self._found: dict[int, str] = {}  # the hash of a header, which may be long

    def of(self, header: str) -> str:
        """The account's name; the same one for all who are not known yet."""
        return self._found.get(hash(header), _STRANGERS)

    def learn(self, header: str) -> None:
        """The request was dealt with: now it may be known."""
        account = self._account_of(header)
        if account:
            if len(self._found) >= _REMEMBERED_MAX:
                self._found.clear()
            self._found[hash(header)] = account


class _Lane:
    """One account's requests that are in work, or wait."""

    def __init__(self, width: int) -> None:
        self.slots = asyncio.Semaphore(width)
        self.count = 0


class Lanes:
    """Some threads, of which each account has at most half at one time."""

    def __init__(self, threads: int, name: str) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=name)
        self._width = max(1, threads // 2)
        self._lanes: dict[str, _Lane] = {}

    async def run(self, account: str, work: Callable[..., Result], *arguments: object) -> Result:
        """Do the work in a thread, as soon as there is one for this account."""
        lane = self._lanes.get(account)
        if lane is None:
            lane = self._lanes[account] = _Lane(self._width)
        lane.count += 1
        try:
            async with lane.slots:
                loop = asyncio.get_running_loop()
                return await loop.run_in_executor(self._pool, work, *arguments)
        finally:
            lane.count -= 1
            if not lane.count:
                del self._lanes[account]
