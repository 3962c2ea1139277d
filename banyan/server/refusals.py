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
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()  # how many, since when
        self._lock = threading.Lock()

    def count(self, address: str) -> None:
        """One more wrong token. Errors: `too_many_requests` where there were too many."""
        if self._per_minute <= 0:
            return
        with self._lock:
            seconds = self._take(_network_of(address))
        if seconds > 0:
            message = f"too many wrong tokens from {address}: look at the token, then try again"
            raise BanyanError("too_many_requests", message, retry_after_seconds=seconds)

    def _take(self, address: str) -> float:
        """Takes one from the bucket; the seconds until there is one where it is empty."""
        now = self._clock()
        left, since = self._left.pop(address, (float(self._per_minute), now))
        left = min(left + (now - since) * self._per_minute / 60, self._per_minute)
        seconds = (1 - left) * 60 / self._per_minute
        self._left[address] = (left - 1 if left >= 1 else left, now)
        if len(self._left) > ADDRESSES_MAX:
            self._left.popitem(last=False)  # which has failed the longest time ago
        return seconds


def _network_of(address: str) -> str:
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address[:64]
    if parsed.version == 4:
        return str(parsed)
    if parsed.ipv4_mapped:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.ip_network((parsed, _NETWORK_BITS), strict=False))
