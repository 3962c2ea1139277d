"""Tallies: what attempts of a stretch of time came to, as numbers that can be added up.

A tally is a flat mapping, so that the database adds to it and two of them merge without
knowing what is in them:

    ended/<word>                attempts that ended so
    run/<word>/sum, run/max     how long they ran, in milliseconds
    run/<word>/<bin>            how many of them ran about so long
    wait/sum, wait/max, wait/<bin>
    cpu                         the CPU seconds that they used
    <resource>/delta            what started to be in use, less what ceased to be
    <resource>/moment           the same, each times the seconds since the tally's begin

What is in use at a time follows from the deltas after it, and its integral from the moments:
an attempt of a month costs as much to tally as one of a second. Bins grow by a tenth, so a
percentile read from them is wrong by less than 5 percent; sums and maxima are exact. Called
by the store, which writes tallies, and by the verbs, which tell them. It must never know
where a tally comes from.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from datetime import UTC, datetime, timedelta
from itertools import accumulate

from banyan.domain.units import LARGEST

Tally = dict[str, float]

BINS_PER_DECADE = 24
RESOURCES = ("cores", "memory_bytes", "gpu_count")
PERCENTILES = (50, 90, 99)
# The widths of stored tallies in seconds, each a multiple of the one before it.
WIDTHS = (60, 600, 3600)
BUCKETS_MAX = 1000
_DAY = 86_400
_ROUND = tuple(60 * one for one in (1, 2, 5, 10, 15, 20, 30, 60, 120, 180, 240, 360, 720, 1440))
_DIGITS = 6


def bin_of(milliseconds: float) -> int:
    """The bin of a duration: bin n ends with 10^(n/24) milliseconds; all up to 1 are in bin 0."""
    return math.ceil(BINS_PER_DECADE * math.log10(max(1.0, milliseconds)))


def end_of(number: int) -> float:
    """The largest duration of a bin, in milliseconds."""
    return float(10 ** (number / BINS_PER_DECADE))


def add(total: Tally, other: Mapping[str, float]) -> Tally:
    """`other` added to `total`, which is changed and returned."""
    for name, value in other.items():
        if name.endswith("/max"):
            total[name] = max(total.get(name, 0), value)
        else:
            total[name] = total.get(name, 0) + value
    return total


def bounded(amount: float) -> float:
    """A sum as a number that the database and JSON can hold, however much was added up.

    There whole numbers end at 64 bits, and floats do not. Beyond LARGEST they are not exact.
    """
    return amount if -LARGEST <= amount <= LARGEST else float(amount)


def rebased(tally: Mapping[str, float], seconds: float) -> Tally:
    """The same tally as one that began so many seconds earlier."""
    moved = dict(tally)
    for resource in RESOURCES:
        delta = tally.get(f"{resource}/delta", 0)
        if delta:
            moved[f"{resource}/moment"] = tally.get(f"{resource}/moment", 0) + delta * seconds
    return moved


def words(tally: Mapping[str, float]) -> dict[str, int]:
    """How many attempts ended, by the word for how."""
    return {
        name.partition("/")[2]: int(value)
        for name, value in sorted(tally.items())
        if name.startswith("ended/") and value
    }


def bins(tally: Mapping[str, float], kind: str) -> dict[int, int]:
    """The histogram of a kind, `wait` or `run` or `run/<word>`: bin -> how many."""
    found: dict[int, int] = {}
    for name, value in tally.items():
        head, _, tail = name.rpartition("/")
        if tail.isdecimal() and (head == kind or head.startswith(f"{kind}/")):
            found[int(tail)] = found.get(int(tail), 0) + int(value)
    return dict(sorted(found.items()))


def total(tally: Mapping[str, float], kind: str) -> float:
    """The sum of a kind, in milliseconds."""
    return sum(
        value
        for name, value in tally.items()
        if name.endswith("/sum") and (name.startswith(f"{kind}/"))
    )


def times(tally: Mapping[str, float], kind: str) -> dict[str, float] | None:
    """{"count", "mean", "p50", "p90", "p99", "max"} in milliseconds; None where nothing was."""
    histogram = bins(tally, kind)
    count = sum(histogram.values())
    if not count:
        return None
    most = tally.get(f"{kind}/max", 0)
    return {
        "count": count,
        "mean": round(total(tally, kind) / count, 3),
        **{f"p{one}": _percentile(histogram, count, one, most) for one in PERCENTILES},
        "max": most,
    }


def _percentile(histogram: Mapping[int, int], count: int, percent: int, most: float) -> float:
    """By nearest rank; of the bin in which it lies, what is wrong by the same share both ways."""
    rank = math.ceil(count * percent / 100)
    reached = zip(histogram, accumulate(histogram.values()), strict=True)
    number = next(number for number, so_far in reached if so_far >= rank)
    high, low = end_of(number), end_of(number - 1)
    middle = 2 * high * low / (high + low) if number else 1.0
    return round(min(most, middle), 3)


# --- Time -----------------------------------------------------------------------------------


def floor(time: datetime, seconds: int) -> datetime:
    """The begin of the stretch of that width in which a time lies; all count from 1970."""
    return datetime.fromtimestamp(time.timestamp() // seconds * seconds, UTC)


class Window:
    """A stretch of time, cut into buckets of equal width that begin at round times.

    `start` is the begin of the first bucket, `end` the end of the last.
    """

    def __init__(self, begin: datetime, end: datetime, buckets: int, finest: int) -> None:
        """begin, end: what is asked for; the buckets that touch it are told, `buckets` about.

        finest: of WIDTHS, the finest that is still there for all of it.
        """
        share = max(1.0, (end - begin).total_seconds()) / buckets
        self.seconds = _round_width(max(share, finest), finest)
        self.start = floor(begin, self.seconds)
        count = math.ceil((end - self.start).total_seconds() / self.seconds)
        self.count = max(1, count)
        # The coarsest tallies that fit into a bucket are the fewest to read.
        self.width = max(one for one in WIDTHS if self.seconds % one == 0)

    @property
    def end(self) -> datetime:
        """The end of the last bucket."""
        return self.time(self.count)

    def time(self, number: int) -> datetime:
        """The begin of a bucket."""
        return self.start + timedelta(seconds=number * self.seconds)

    def whole(self) -> "Window":
        """The same stretch as one bucket."""
        one = copy(self)
        one.seconds, one.count = self.seconds * self.count, 1
        return one

    def number(self, time: datetime) -> int:
        """The bucket in which a time lies; `count` and more for what comes after."""
        return int((time - self.start).total_seconds() // self.seconds)


def _round_width(seconds: float, finest: int) -> int:
    """The first round width that is not less: minutes or hours that make a day, or days."""
    fitting = (one for one in _ROUND if one >= seconds and one % finest == 0)
    return next(fitting, math.ceil(seconds / _DAY) * _DAY)


Series = Iterable[tuple[datetime, Mapping[str, float]]]


def in_buckets(window: Window, series: Series) -> list[Tally]:
    """The tallies of a series by bucket; the last one of all that comes after the window.

    series: (when it begins, a tally), of everything since the begin of the window.
    """
    buckets: list[Tally] = [{} for _ in range(window.count + 1)]
    for time, tally in series:
        place = window.number(time)
        if place < 0:
            continue
        place = min(place, window.count)
        add(buckets[place], rebased(tally, (time - window.time(place)).total_seconds()))
    return buckets


def in_use(
    window: Window,
    buckets: Sequence[Mapping[str, float]],
    running: Mapping[str, float],
    now: datetime,
) -> list[dict[str, float]]:
    """How much of each resource was in use in each bucket, on average.

    buckets: of `in_buckets`, the last being what comes after; running: what is in use for good.
    Of the bucket in which `now` lies only what is over counts.
    """
    return [
        {
            resource: round(amount / over, _DIGITS) if over else 0.0
            for resource, amount in used.items()
        }
        for used, over in zip(
            used_in(window, buckets, running, now),
            (_seconds_over(window, place, now) for place in range(window.count)),
            strict=True,
        )
    ]


def used_in(
    window: Window,
    buckets: Sequence[Mapping[str, float]],
    running: Mapping[str, float],
    now: datetime,
) -> list[dict[str, float]]:
    """As `in_use`: how much of each resource was in use, times the seconds for which it was."""
    told: list[dict[str, float]] = [{} for _ in range(window.count)]
    for resource in RESOURCES:
        level = running.get(resource, 0)
        for place in range(window.count, -1, -1):
            delta = buckets[place].get(f"{resource}/delta", 0)
            level -= delta  # at the bucket's begin
            if place < window.count:
                over = _seconds_over(window, place, now)
                moment = buckets[place].get(f"{resource}/moment", 0)
                used = (level + delta) * over - moment if over else 0.0
                # What is left of adding and taking away the same may be a little below nothing.
                told[place][resource] = max(0.0, used)
    return told


def _seconds_over(window: Window, place: int, now: datetime) -> float:
    """How much of a bucket is over by now."""
    return min(window.seconds, max(0.0, (now - window.time(place)).total_seconds()))
