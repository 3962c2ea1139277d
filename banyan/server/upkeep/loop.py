"""The threads that do the duties, in each server process.

A process does the duties only while it has their lease in the database; when it is
killed, another takes over as soon as the lease is over. What a killed server holds in an
open transaction would block a duty, so a thread of its own sees to that, in every process.
Each of them may take long, so each kind has a thread of its own: lapsed leases wait for nothing
else. One more thread removes what has had its time.
"""

import logging
import random
import secrets
import threading
import time
from collections.abc import Callable
from functools import cached_property, partial

from pymongo.errors import PyMongoError

from banyan.config import knobs
from banyan.server.alarm import ALARM
from banyan.server.calls import Context, Signals
from banyan.server.counters import COUNTERS
from banyan.server.outages import told
from banyan.server.store import duties, orphans
from banyan.server.store.indexes import RETENTION
from banyan.server.store.mongo import Store, now
from banyan.server.upkeep.duties import (
    COUNTS_SECONDS,
    DUTIES,
    LOOK_ON_SECONDS,
    Seldom,
    delays,
    hand_on_counts,
    look_on,
    recount,
)
from banyan.server.upkeep.retention import Retention

logger = logging.getLogger(__name__)

# Their holder keeps them for so many periods; so long is the gap when it is killed.
PERIODS_HELD = 3
_WAKE_PAUSE_SECONDS = 0.02  # while one delay after the other is over


class Upkeep:
    """`start()` and `stop()` the duties of this process."""

    def __init__(self, mongo_uri: str, signals: Signals) -> None:
        self._store = Store(mongo_uri)
        self._signals = signals
        self._name = secrets.token_hex(8)
        self._stop = threading.Event()
        self._idle: orphans.Idle = {}
        self._ageing = Retention()
        self._own = [
            Seldom(COUNTS_SECONDS, hand_on_counts),
            Seldom(COUNTS_SECONDS, recount),
            Seldom(LOOK_ON_SECONDS, look_on),
        ]
        self._threads = [
            threading.Thread(target=self._loop, args=[work], name="upkeep", daemon=True)
            for work in (
                *(partial(self._do, name) for name in DUTIES),
                self._orphans,
                self._retention,
                self._counts,
                self._delays,
            )
        ]

    @cached_property
    def _context(self) -> Context:
        return Context(self._store, self._signals)

    def start(self) -> None:
        """Begin; the first round is done at once."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End after the duty that is being done."""
        self._stop.set()
        ALARM.set(now())  # for the thread that waits for it
        for thread in self._threads:
            thread.join(timeout=5)
        self._store.close()

    def _loop(self, work: Callable[[], None]) -> None:
        period = knobs().UPKEEP_SECONDS
        while not self._stop.is_set():
            self._round(work)
            # A little off the beat, so that processes do not all ask at one moment.
            self._stop.wait(period * random.uniform(0.9, 1.1))  # noqa: S311 - not a secret

    def _do(self, name: str) -> None:
        """The duties of this name, while this process has their lease."""
        seconds = PERIODS_HELD * knobs().UPKEEP_SECONDS
        if duties.take(self._store, name, self._name, seconds):
            for duty in DUTIES[name]:
                begun = time.perf_counter()
                if not self._round(partial(duty, self._context)):  # it stops no other
                    COUNTERS.count("banyan_upkeep_failures_total", duty=duty.__name__)
                seconds_spent = time.perf_counter() - begun
                COUNTERS.observe("banyan_upkeep_seconds", seconds_spent, duty=duty.__name__)

    def _delays(self) -> None:
        """Let what this process has delayed be claimed at its time."""
        while not self._stop.is_set():
            if ALARM.wait(knobs().UPKEEP_SECONDS) and not self._stop.is_set():
                self._round(partial(delays, self._context))
                self._stop.wait(_WAKE_PAUSE_SECONDS)

    def _retention(self) -> None:
        seconds = PERIODS_HELD * knobs().UPKEEP_SECONDS
        if duties.take(self._store, RETENTION, self._name, seconds):
            self._ageing.work(self._context)

    def _counts(self) -> None:
        for duty in self._own:
            duty(self._context)

    def _orphans(self) -> None:
        self._idle = orphans.end(self._store, self._idle)

    def _round(self, work: Callable[[], None]) -> bool:
        """Whether it was done."""
        try:
            work()
            return True
        except PyMongoError as error:
            logger.warning("upkeep waits for the database: %s", told(error))
        except Exception:
            logger.exception("upkeep: a duty failed; it is tried again")
        return False
