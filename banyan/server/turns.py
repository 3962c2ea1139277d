"""Whose turn it is to look for work, so that nobody makes others wait by waiting.

Called by `banyan.server.waiting` on the event loop. It knows no time and wakes nobody.
"""

from collections import Counter, deque
from collections.abc import Iterator
from typing import Generic, NamedTuple, Protocol, TypeVar


class Waiting(Protocol):
    """One who waits for a turn, as the line sees it. `woken`: it is about to look."""

    claimant: "Claimant | None"
    asked: int
    woken: bool


class Claimant(NamedTuple):
    """Who waits for work: for which account and worker, and what it would take, as a digest."""

    account: str
    worker: str
    wish: str


class Refused:
    """Who has had a turn and found nothing."""

    def __init__(self) -> None:
        self.wishes: set[tuple[str, str]] = set()  # account and wish
        self.accounts: Counter[str] = Counter()

    def add(self, claimant: Claimant | None) -> None:
        """It found nothing."""
        if claimant:
            self.accounts[claimant.account] += 1
            self.wishes.add((claimant.account, claimant.wish))

    def was_late(self, claimant: Claimant | None) -> None:
        """It has not looked yet: others come before the next of its account."""
        self.accounts[claimant.account if claimant else ""] += 1

    def has(self, claimant: Claimant | None) -> bool:
        """Whether it, or one that is alike, found nothing."""
        return claimant is not None and (claimant.account, claimant.wish) in self.wishes


class Turn(NamedTuple):
    """The right of one waiter to look first. `subject` may be empty: not known."""

    topic: str
    subject: str
    moment: int
    refused: Refused


WaiterT = TypeVar("WaiterT", bound=Waiting)


class Line(Generic[WaiterT]):
    """Those who wait for turns, by account: who asked last stands at the end of its account's."""

    def __init__(self) -> None:
        self._accounts: dict[str, dict[WaiterT, None]] = {}

    def add(self, waiter: WaiterT) -> None:
        """Put it at the end."""
        self._accounts.setdefault(_account(waiter), {})[waiter] = None

    def remove(self, waiter: WaiterT) -> None:
        """Take it out."""
        account = _account(waiter)
        del self._accounts[account][waiter]
        if not self._accounts[account]:
            del self._accounts[account]

    def put_back(self, waiter: WaiterT) -> None:
        """Its account has had a turn first, and is the last to have the next."""
        account = _account(waiter)
        self._accounts[account] = self._accounts.pop(account)

    def __iter__(self) -> Iterator[WaiterT]:
        """One of each account, then the next of each."""
        rest = deque(iter(waiting) for waiting in self._accounts.values())
        while rest:
            waiting = rest.popleft()
            waiter = next(waiting, None)
            if waiter:
                yield waiter
                rest.append(waiting)

    def next(self, turn: Turn) -> WaiterT | None:
        """Who has not looked since, of an account that has refused this turn least often."""
        for account in sorted(self._accounts, key=turn.refused.accounts.__getitem__):
            for waiter in self._accounts[account]:
                free = not waiter.woken and waiter.asked < turn.moment
                if free and not turn.refused.has(waiter.claimant):
                    return waiter
        return None


def _account(waiter: Waiting) -> str:
    return waiter.claimant.account if waiter.claimant else ""
