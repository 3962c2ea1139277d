"""The threads in which requests are in work, and how accounts share them.

Used by `banyan.server.asgi`, on the event loop only. An account never has more threads than are
left free: one alone has half of them, however many requests it sends and with however many tokens.
What waits begins in turn, one request of each account after the other. So nobody waits for all
that another has sent.

Who is not known yet stands in one of two further lanes. Newcomers have a token that was made here,
as far as memory tells; each token has its turns. Of strangers nothing of the kind is known: those
of each network have their turns, with what may be a token and without. They may guess as fast as
they like, so few of them wait, for a second or so; the others are told at once to ask again.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from threading import Thread
from typing import NamedTuple, Protocol, TypeVar

from banyan.errors import BanyanError
from banyan.server.connections import Connection
from banyan.server.intake import Disconnected
from banyan.server.refusals import network_of

# Requests of one account, or of one token that is new; each may have 64 KiB of headers.
WAITING_MAX = 4_000
# Of strangers, shared by their groups; so many are answered within a second or so.
STRANGERS_WAITING_MAX = 200
_STRANGERS_LEAST = 8  # of a group, however many there are
STRANGERS, NEWCOMERS = "", " new"  # who is not known yet; no names of accounts
LOOK_SECONDS = 1.0
_REMEMBERED_MAX = 100_000  # headers, a number and a name each

AccountOf = Callable[[str], str | None]
Result = TypeVar("Result")


class Tokens(Protocol):
    """What this process remembers of tokens that it has not looked up."""

    def made_here(self, header: str) -> str | None:
        """The public part of a token that was made here, as far as memory tells.

        Empty where the database may know one that memory does not; None where there is none.
        """

    def load(self) -> None:
        """Read what is to be remembered, where that was a while ago. Waits for the database."""


class Place(NamedTuple):
    """The lane in which a request waits, and with whom it has its turns there."""

    lane: str
    group: str


class Accounts:
    """Whose request it is, by its Authorization header. It goes by what was found once."""

    def __init__(self, account_of: AccountOf | None, tokens: Tokens | None = None) -> None:
        """account_of: see `banyan.server.asgi.Application`; None: nobody is told apart."""
        self._account_of = account_of
        self._tokens = tokens
        self._found: dict[int, str] = {}  # by the hash of a header, which may be long
        self._look_after = 0.0
        self._looking: Thread | None = None

    def of(self, header: str) -> str:
        """The account's name; STRANGERS where it is not known yet."""
        found = self._found.get(hash(header))
        return found or self._learn(header) or STRANGERS

    def place_of(self, header: str, address: str) -> Place:
        """Where a request waits whose account is not known yet."""
        if self._account_of is None:
            return Place(STRANGERS, "")
        token = self._tokens.made_here(header) if header and self._tokens else None
        if token:
            return Place(NEWCOMERS, token)
        return Place(STRANGERS, f"{token is not None} {network_of(address)}")

    def is_to_be_asked(self, header: str) -> bool:
        """Whether the application can tell whose it is, where that is not known yet."""
        return bool(header and self._account_of)

    def look_again(self) -> None:
        """Load the tokens that were made here, in a thread that nobody waits for.

        Once in a while, and not before the last time has come to its end.
        """
        now = asyncio.get_running_loop().time()
        if self._tokens and now >= self._look_after and not self._is_looking():
            self._look_after = now + LOOK_SECONDS
            self._looking = Thread(target=self._tokens.load, name="tokens", daemon=True)
            self._looking.start()

    def _is_looking(self) -> bool:
        return self._looking is not None and self._looking.is_alive()

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
        self,
        account: str,
        work: Callable[..., Result],
        *arguments: object,
        group: str = "",
        connection: Connection | None = None,
    ) -> Result:
        """Do the work in a thread, as soon as there is one for this account.

        group:      of its requests; each group has its turns within the account.
        connection: by which it came; where that is gone meanwhile, the work is not begun.
        Errors: `unavailable` where too much of this group waits already, or where it is of a
        stranger who sends nothing more, and most likely has gone; Disconnected.
        """
        lane = self._lanes.get(account)
        if lane is None:
            lane = self._lanes[account] = _Lane()
        if lane.waiting or lane.working >= self._free:
            await self._wait(account, lane, group, connection)
        else:
            self._begin(lane)
        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._pool, work, *arguments)
        finally:
            self._end(account, lane)

    async def _wait(
        self, account: str, lane: _Lane, group: str, connection: Connection | None
    ) -> None:
        _check_room(account, lane, group)
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        lane.waiting.setdefault(group, {})[turn] = None
        self._turns.setdefault(account)

        def give_up() -> None:
            if turn.done() or connection is None:
                return
            if connection.is_gone:
                turn.set_exception(Disconnected())
            elif account == STRANGERS:
                turn.set_exception(_too_many("do not end it, and send it again soon"))

        try:
            with connection.heeding(give_up) if connection else nullcontext():
                await turn
        except (asyncio.CancelledError, BanyanError, Disconnected):
            if turn.cancelled() or turn.exception():
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
            if not turn.done():
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


def _check_room(account: str, lane: _Lane, group: str) -> None:
    """Errors: `unavailable` where one more of this group may not wait."""
    waiting, most = len(lane.waiting.get(group, ())), WAITING_MAX
    if account == STRANGERS:
        most = max(_STRANGERS_LEAST, STRANGERS_WAITING_MAX // max(1, len(lane.waiting)))
        if waiting >= most:
            raise _too_many("send it again soon")
    elif waiting >= most:
        message = f"{most} requests of this account wait already: send it again soon"
        raise BanyanError("unavailable", message)


def _too_many(hint: str) -> BanyanError:
    message = f"too many requests without a token that is known wait from your network: {hint}"
    return BanyanError("unavailable", message)
