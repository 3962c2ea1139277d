"""How many wrong tokens an address may send: what guessing costs.

Asked by `banyan.server.auth` once a token was found wrong, never before: a valid one is served
at once, whoever else is behind the same address. Each server process counts for itself, and
remembers a bounded number of addresses.
"""

import ipaddress
import threading
import time
from collections import OrderedDict
from collections.abc import Callable

from banyan.errors import BanyanError

ADDRESSES_MAX = 4096
_NETWORK_BITS = 64  # of IPv6: who has one address there has all of them


class Refusals:
    """A bucket of failures for each address; it fills again as time goes by."""

    def __init__(self, per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        """per_minute: 0: without limit."""
        self._per_minute = per_minute
        self._clock = clock
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()  # who failed last is the last
        self._lock = threading.Lock()

    def count(self, address: str, token: str) -> None:
        """One more wrong token. Errors: `too_many_requests` where there were too many.

        The same one again is no further guess: a forgotten program with a token that was
        revoked does not use up what everybody behind its address may get wrong.
        """
        if self._per_minute <= 0:
            return
        with self._lock:
            seconds = self._take(network_of(address), hash(token))
        if seconds > 0:
            message = f"too many wrong tokens from {address}: look at the token, then try again"
            raise BanyanError("too_many_requests", message, retry_after_seconds=seconds)

    def _take(self, address: str, guess: int) -> float:
        """Takes one from the bucket; the seconds until there is one where it is empty."""
        bucket = self._buckets.pop(address, None) or _Bucket(self._per_minute, self._clock())
        self._buckets[address] = bucket
        if len(self._buckets) > ADDRESSES_MAX:
            self._buckets.popitem(last=False)
        return bucket.take(guess, self._per_minute, self._clock())


class _Bucket:
    """How many guesses an address has left, and those that it has made."""

    def __init__(self, left: float, now: float) -> None:
        self._left = left
        self._since = now
        self._guesses: OrderedDict[int, None] = OrderedDict()

    def take(self, guess: int, per_minute: int, now: float) -> float:
        """0, or the seconds until there is one left."""
        if guess in self._guesses:
            return 0.0
        self._left = min(self._left + (now - self._since) * per_minute / 60, per_minute)
        self._since = now
        if self._left < 1:
            return (1 - self._left) * 60 / per_minute
        self._left -= 1
        self._guesses[guess] = None
        if len(self._guesses) > per_minute:
            self._guesses.popitem(last=False)
        return 0.0


def network_of(address: str) -> str:
    """What is counted as one: an address of IPv4, a network of IPv6."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address[:64]
    if parsed.version == 4:
        return str(parsed)
    if parsed.ipv4_mapped:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.ip_network((parsed, _NETWORK_BITS), strict=False))
