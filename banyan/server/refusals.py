"""How many wrong tokens an address may send: what guessing costs, and what it may cost us.

Asked by `banyan.server.auth` for tokens that it does not know from a moment ago. A valid one is
served, whoever else is behind the same address. Beyond the limit of an address nothing is looked
up for it but what was valid lately, is sealed, or is among the hashes of all tokens, which are read
once in a while then. Each server process counts for itself, and remembers a bounded number of
addresses and tokens.
"""

import ipaddress
import threading
import time
from collections import OrderedDict
from collections.abc import Callable

from banyan.errors import BanyanError
from banyan.server.store import accounts

ADDRESSES_MAX = 4096
TOKENS_MAX = 10_000  # of each kind that are remembered
STORED_SECONDS = 1.0  # from one reading of all hashes to the next, at least
_STORED_PAUSE = 20  # as long as so many readings
_REFUSED_SECONDS = 10.0  # a token that was wrong is not looked up again for so long
_VALID_SECONDS = 3600.0
_THIS_MACHINE = "127.0.0.0/8"
_NETWORK_BITS = 64  # of IPv6: who has one address there has all of them


class Refusals:
    """A bucket of failures for each address; it fills again as time goes by."""

    def __init__(
        self,
        per_minute: int,
        clock: Callable[[], float] = time.monotonic,
        read: Callable[[], frozenset[str]] = frozenset,
    ) -> None:
        """per_minute: 0: without limit. read: all tokens, as `accounts.all_tokens` says them."""
        self._per_minute = per_minute
        self._clock = clock
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()  # who failed last is the last
        self._stored = _Stored(read, clock)
        self._refused = _Tokens(_REFUSED_SECONDS)
        self._valid = _Tokens(_VALID_SECONDS)
        self._lock = threading.Lock()

    def is_refused(self, token: str) -> bool:
        """Whether it was found wrong a moment ago. Without the lock: the event loop asks, too.

        None becomes valid later, but for those of attempts whose account is in use again.
        """
        return self._refused.has(token, self._clock())

    def check(self, address: str, token: str) -> None:
        """Before a token is looked up. Errors: `too_many_requests` where that has to wait."""
        with self._lock:
            now = self._clock()
            bucket = self._buckets.get(network_of(address))
            seconds = bucket.wait(self._per_minute / 60, now) if bucket else 0.0
            if seconds <= 0 or self._valid.has(token, now):
                return
        if not self._stored.has(token):
            raise _slow_down(address, seconds)

    def is_stored(self, token: str) -> bool:
        """Whether it was among the tokens that were read last. From memory: at once."""
        return self._stored.had(token)

    def load(self) -> None:
        """Read all tokens, unless that was done a moment ago."""
        self._stored.refresh()

    def accept(self, token: str) -> None:
        """It was looked up and is valid."""
        with self._lock:
            self._valid.add(token, self._clock())

    def count(self, address: str, token: str, is_guess: bool = True) -> None:
        """One more wrong token. Errors: `too_many_requests` where there were too many.

        The same one again is no further guess: a forgotten program with a token that was
        revoked does not use up what everybody behind its address may get wrong. Nor do tasks whose
        tokens were worth something until a moment ago (`is_guess`).
        """
        with self._lock:
            self._refused.add(token, self._clock())
            if self._per_minute <= 0 or not is_guess:
                return
            seconds = self._take(network_of(address), hash(token))
        if seconds > 0:
            raise _slow_down(address, seconds)

    def _take(self, address: str, guess: int) -> float:
        """Takes one from the bucket; the seconds until there is one where it is empty."""
        bucket = self._buckets.pop(address, None) or _Bucket(self._per_minute, self._clock())
        self._buckets[address] = bucket
        if len(self._buckets) > ADDRESSES_MAX:
            self._buckets.popitem(last=False)
        return bucket.guess(guess, self._per_minute / 60, self._clock())


def _slow_down(address: str, seconds: float) -> BanyanError:
    message = f"too many wrong tokens from {address}: look at the token, then try again"
    return BanyanError("too_many_requests", message, retry_after_seconds=seconds)


class _Bucket:
    """How much is left to be taken, and the guesses that were."""

    def __init__(self, most: float, now: float) -> None:
        self._most = self._left = most
        self._since = now
        self._guesses: OrderedDict[int, None] = OrderedDict()

    def guess(self, guess: int, per_second: float, now: float) -> float:
        """As `take`; what was guessed before takes nothing."""
        if guess in self._guesses:
            return 0.0
        seconds = self.take(per_second, now)
        if not seconds:
            self._guesses[guess] = None
            if len(self._guesses) > self._most:
                self._guesses.popitem(last=False)
        return seconds

    def take(self, per_second: float, now: float) -> float:
        """Takes one: 0, or the seconds until there is one left."""
        seconds = self.wait(per_second, now)
        if not seconds:
            self._left -= 1
        return seconds

    def wait(self, per_second: float, now: float) -> float:
        """The seconds until there is one left; 0: there is."""
        self._left = min(self._left + (now - self._since) * per_second, self._most)
        self._since = now
        return 0.0 if self._left >= 1 else (1 - self._left) / per_second


class _Stored:
    """All tokens of the database, as they were last read: at the start, and where one guesses."""

    def __init__(self, read: Callable[[], frozenset[str]], clock: Callable[[], float]) -> None:
        self._read = read
        self._clock = clock
        self._tokens: frozenset[str] = frozenset()
        self._read_after = 0.0
        self._lock = threading.Lock()

    def has(self, token: str) -> bool:
        """Whether it is one of them; with its id, so that one's own secret opens no other."""
        told = accounts.as_stored(token)
        if told not in self._tokens and self._clock() >= self._read_after:
            with self._lock:
                if self._clock() >= self._read_after:
                    self._read_anew()
        return told in self._tokens

    def had(self, token: str) -> bool:
        """Whether it was one of them."""
        return accounts.as_stored(token) in self._tokens

    def refresh(self) -> None:
        """Read them, unless that is too soon or somebody does it already."""
        if self._clock() >= self._read_after and self._lock.acquire(blocking=False):
            try:
                self._read_anew()
            finally:
                self._lock.release()

    def _read_anew(self) -> None:
        began = self._clock()
        self._tokens = self._read()
        now = self._clock()
        self._read_after = now + max(STORED_SECONDS, _STORED_PAUSE * (now - began))


class _Tokens:
    """Tokens by their hashes, each for a while; those that were added last, if there are many."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._until: OrderedDict[int, float] = OrderedDict()

    def add(self, token: str, now: float) -> None:
        self._until.pop(hash(token), None)
        self._until[hash(token)] = now + self._seconds
        if len(self._until) > TOKENS_MAX:
            self._until.popitem(last=False)

    def has(self, token: str, now: float) -> bool:
        return self._until.get(hash(token), now) > now


def network_of(address: str) -> str:
    """What is counted as one: an address of IPv4, a network of IPv6, all of this machine's own."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address[:64]
    parsed = getattr(parsed, "ipv4_mapped", None) or parsed
    if parsed.is_loopback:  # each program here has millions of addresses
        return _THIS_MACHINE
    if parsed.version == 4:
        return str(parsed)
    return str(ipaddress.ip_network((parsed, _NETWORK_BITS), strict=False))
