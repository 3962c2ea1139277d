"""Moves the wall clock of the process that is started with it: see `tests/chaos/faults/clock.py`.

Read at the start of Python, before anything asks for the time. The offset is read again each
time, so that a clock may jump while the process runs.
"""

import datetime
import os
import time

_FILE = os.environ.get("CHAOS_CLOCK", "")
_time, _time_ns, _datetime = time.time, time.time_ns, datetime.datetime


def _offset() -> float:
    try:
        with open(_FILE) as file:
            return float(file.read() or 0)
    except OSError:
        return 0.0


class _Like(type):
    """What is a datetime stays one, whichever class made it."""

    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, _datetime)


class _Moved(_datetime, metaclass=_Like):
    @classmethod
    def now(cls, tz: datetime.tzinfo | None = None) -> datetime.datetime:
        return _datetime.now(tz) + datetime.timedelta(seconds=_offset())

    @classmethod
    def utcnow(cls) -> datetime.datetime:
        return cls.now(datetime.UTC).replace(tzinfo=None)


if _FILE:
    time.time = lambda: _time() + _offset()
    time.time_ns = lambda: _time_ns() + int(_offset() * 1e9)
    datetime.datetime = _Moved  # type: ignore[misc]
