"""What a worker's lists lack: since when, by this process's own clock.

Asked by `verbs/beat.py`. A claim is written before its worker hears of it, so a list may lack
what is about to arrive there; and a list may have been under way for long itself. Only what
two lists lack that came so far apart is unknown to the worker, and will never be started. The
time of the claim says nothing: the clock of the server that wrote it may have been wrong.

Each worker has entries of its own: who holds very much pushes out nobody else's.
"""

from collections.abc import Collection
from threading import Lock
from time import monotonic

from bson import ObjectId

UNHEARD_OF_SECONDS = 10.0
_OF_WORKER_MAX = 5_000
_IN_ALL_MAX = 100_000
_IDLE_SECONDS = 600.0  # without a list, after which a worker's entries are forgotten


class _Lacking:
    """What the last list of one worker lacked, since when; and when that list came."""

    def __init__(self, since: dict[ObjectId, float], time: float) -> None:
        self.since = since
        self.time = time


class Unheard:
    """The attempts that the last lists of their workers lacked; safe from any thread."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._of_worker: dict[ObjectId, _Lacking] = {}  # whose list came last stands last
        self._count = 0

    def lacked(self, worker: ObjectId, attempts: Collection[ObjectId]) -> set[ObjectId]:
        """Those of `attempts`, which its list lacks, that lists have lacked for long enough.

        Of very many, a bounded number at a time: the others have their turn after these.
        """
        time = monotonic()
        with self._lock:
            before = self._forget(worker)
            if not attempts:
                return set()
            known = {one: before[one] for one in attempts if one in before}
            for one in attempts:
                if len(known) >= _OF_WORKER_MAX:
                    break
                known.setdefault(one, time)
            stale = {one for one, since in known.items() if time - since >= UNHEARD_OF_SECONDS}
            since = {one: known[one] for one in known.keys() - stale}
            if since:
                self._of_worker[worker] = _Lacking(since, time)
                self._count += len(since)
                self._make_room(time)
            return stale

    def _forget(self, worker: ObjectId) -> dict[ObjectId, float]:
        lacking = self._of_worker.pop(worker, None)
        since = lacking.since if lacking else {}
        self._count -= len(since)
        return since

    def _make_room(self, time: float) -> None:
        while (first := next(iter(self._of_worker))) and (
            time - self._of_worker[first].time > _IDLE_SECONDS
        ):
            self._forget(first)
        while self._count > _IN_ALL_MAX:
            self._forget(max(self._of_worker, key=lambda one: len(self._of_worker[one].since)))


UNHEARD = Unheard()
