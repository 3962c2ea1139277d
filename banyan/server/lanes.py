"""The threads in which requests are in work, and how accounts share them.

Used by `banyan.server.asgi`, on the event loop only. An account never has more threads than are
left free: one alone has half of them, however many requests it sends and with however many tokens.
What waits begins in turn, one request of each account after the other. So nobody waits for all
that another has sent. Strangers are one account, within which those of each address have their
turns: with something like a token, and without.
"""

import asyncio
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from banyan.errors import BanyanError
from banyan.server.refusals import network_of

# Requests of one account, or of strangers from one address; each may have 64 KiB of headers.
WAITING_MAX = 4_000
STRANGERS = ""  # all who are not known yet; no account's name
_REMEMBERED_MAX = 100_000  # headers, a number and a name each

# Of accounts and of attempts, said in any way.
_LIKE_TOKEN = re.compile(r"(?i)basic\s|\s(bny_[0-9a-f]{16}|att_[0-9a-f]{24})_")

AccountOf = Callable[[str], str | None]
Result = TypeVar("Result")


class Accounts:
    """Whose request it is, by its Authorization header. It goes by what was found once."""

    def __init__(self, account_of: AccountOf | None) -> None:
        """account_of: see `banyan.server.asgi.Application`; None: nobody is told apart."""
        self._account_of = account_of
        self._found: dict[int, str] = {}  # by the hash of a header, which may be long

    def of(self, header: str) -> str:
        """The account's name; STRANGERS where it is not known yet."""
        found = self._found.get(hash(header))
        return found or self._learn(header) or STRANGERS

    def group_of(self, header: str, address: str) -> str:
        """With whom a request has its turn, among those of its account."""
        if self._account_of is None or self.of(header):
            return ""
        return f"{bool(_LIKE_TOKEN.search(header))} {network_of(address)}"

    def is_to_be_asked(self, header: str) -> bool:
        """Whether the application can tell whose it is, and has not yet."""
        return bool(header and self._account_of) and not self.of(header)

    def _learn(self, header: str) -> str | None:
        account = self._account_of(header) if header and self._account_of else None
        if account:
            if len(self._found) >= _REMEMBERED_MAX:
                self._found.clear()
            self._found[hash(header)] = account
        return account


class _Lane:
    """One account's requests: how many are in work, and the turns of those that wait."""

    def __init__(self) -> None:
        self.working = 0
        self.waiting: dict[str, dict[asyncio.Future[None], None]] = {}  # whose turn is next first

    def take(self) -> asyncio.Future[None]:
        """The turn that comes next; after it, those of the other groups."""
        group = next(iter(self.waiting))
        turns = self.waiting.pop(group)
        turn = next(iter(turns))
        del turns[turn]
        if turns:
            self.waiting[group] = turns
        return turn

    def leave(self, group: str, turn: asyncio.Future[None]) -> None:
        """It waits no more; nothing, where it does not."""
        turns = self.waiting.get(group, {})
        turns.pop(turn, None)
        if not turns:
            self.waiting.pop(group, None)


class Lanes:
    """Some threads, of which no account has more than are left free."""

    def __init__(self, threads: int, name: str) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=name)
        self._free = threads
        self._lanes: dict[str, _Lane] = {}
        self._turns: dict[str, None] = {}  # accounts whose requests wait; whose turn is next first

    async def run(
        self, account: str, work: Callable[..., Result], *arguments: object, group: str = ""
    ) -> Result:
        """Do the work in a thread, as soon as there is one for this account.

        group: of its requests; each group has its turns within the account.
        Errors: `unavailable` where too much of this group waits for that already.
        """
        lane = self._lanes.get(account)
        if lane is None:
            lane = self._lanes[account] = _Lane()
        if lane.waiting or lane.working >= self._free:
            await self._wait(account, lane, group)
        else:
            self._begin(lane)
        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._pool, work, *arguments)
        finally:
            self._end(account, lane)

    async def _wait(self, account: str, lane: _Lane, group: str) -> None:
        if len(lane.waiting.get(group, ())) >= WAITING_MAX:
            message = f"{WAITING_MAX} requests of this account wait already: send it again soon"
            raise BanyanError("unavailable", message)
        turn = asyncio.get_running_loop().create_future()
        lane.waiting.setdefault(group, {})[turn] = None
        self._turns.setdefault(account)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                lane.leave(group, turn)
                self._forget_idle(account, lane)
            else:  # it was this one's turn
                self._end(account, lane)
            raise

    def _begin(self, lane: _Lane) -> None:
        lane.working += 1
        self._free -= 1

    def _end(self, account: str, lane: _Lane) -> None:
        lane.working -= 1
        self._free += 1
        self._give_turns()
        self._forget_idle(account, lane)

    def _give_turns(self) -> None:
        """Let begin what may, one request of each account after the other."""
        while (account := self._next()) is not None:
            lane = self._lanes[account]
            turn = lane.take()
            del self._turns[account]
            if lane.waiting:
                self._turns[account] = None
            if not turn.cancelled():
                self._begin(lane)
                turn.set_result(None)

    def _next(self) -> str | None:
        may_begin = (one for one in self._turns if self._lanes[one].working < self._free)
        return next(may_begin, None)

    def _forget_idle(self, account: str, lane: _Lane) -> None:
        if not lane.waiting and self._lanes.get(account) is lane:
            self._turns.pop(account, None)
            if not lane.working:
                del self._lanes[account]
