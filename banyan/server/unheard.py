"""What a worker's lists lack: since when, by this process's own clock.

Asked by `verbs/beat.py`. A claim is written before its worker hears of it, so a list may lack
what is about to arrive there; and a list may have been under way for long itself. Only what
two lists lack that came so far apart is unknown to the worker, and will never be started. The
time of the claim says nothing: the clock of the server that wrote it may have been wrong.
"""

from collections.abc import Iterable
from time import monotonic

from bson import ObjectId

UNHEARD_OF_SECONDS = 10.0
_ENTRIES_MAX = 10_000


class Unheard:
    """The attempts that the last lists of their workers lacked; safe from any thread."""

    def __init__(self) -> None:
        self._since: dict[ObjectId, float] = {}

    def lacked(self, attempts: Iterable[ObjectId], known: Iterable[ObjectId]) -> set[ObjectId]:
        """Those of `attempts` that lists have lacked for long enough; `known` is listed now."""
        for one in known:
            self._since.pop(one, None)
        time = monotonic()
        stale = {
            one
            for one in attempts
            if time - self._since.setdefault(one, time) >= UNHEARD_OF_SECONDS
        }
        for one in stale:
            self._since.pop(one, None)
        while len(self._since) > _ENTRIES_MAX:
            self._since.pop(next(iter(self._since)), None)
        return stale


UNHEARD = Unheard()
