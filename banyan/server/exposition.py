"""GET /metrics: the text that Prometheus reads (format 0.0.4).

Called by `app.py`. Everything in it comes from the database, so that it is the same whichever
server process answers; what is of one process alone says of which. It is worked out at most
once a second, and more seldom where that takes long.
"""

import os
import threading
import time
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from banyan import __version__
from banyan.domain import tallies as domain
from banyan.domain.states import State
from banyan.domain.tallies import BINS_PER_DECADE, Tally
from banyan.server.counters import COUNTERS, SECONDS, SIZES, series
from banyan.server.store import metrics, statistics, tallies, workers
from banyan.server.store.mongo import Store, now
from banyan.server.verbs.statistics import now_of

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_FRESH_SECONDS = 1.0
# Of the time it may take this share: where an answer takes 200 ms, it is good for 4 s.
_SHARE = 0.05
# The bounds of histograms over tallies: ends of their bins, from 10 ms to 12 days.
_BINS = range(BINS_PER_DECADE, 9 * BINS_PER_DECADE + 1, BINS_PER_DECADE // 3)

# What there is: name -> (type, what it is).
FAMILIES: Mapping[str, tuple[str, str]] = {
    "banyan_attempts_total": ("counter", "Attempts that ended, by how."),
    "banyan_auth_failures_total": ("counter", "Requests without a valid token."),
    "banyan_build_info": ("gauge", "1; the version is the label."),
    "banyan_claim_tasks": ("histogram", "Tasks that one claim got."),
    "banyan_claims_total": ("counter", "Claims, by whether they got tasks."),
    "banyan_errors_total": ("counter", "Requests that were refused, by the word for why."),
    "banyan_http_request_duration_seconds": ("histogram", "Work on a request; waiting is none."),
    "banyan_http_requests_total": ("counter", "Requests, each time that they were looked at."),
    "banyan_oldest_available_seconds": ("gauge", "How long the next tasks in line have waited."),
    "banyan_resources": ("gauge", "What live workers have, and what of it is in use."),
    "banyan_stale_writes_total": ("counter", "Writes about attempts that were lost before."),
    "banyan_task_cpu_seconds_total": ("counter", "CPU time that ended attempts have used."),
    "banyan_task_run_seconds": ("histogram", "How long ended attempts ran."),
    "banyan_task_wait_seconds": ("histogram", "From available to started, of ended attempts."),
    "banyan_tasks": ("gauge", "Tasks by state."),
    "banyan_upkeep_failures_total": ("counter", "Rounds of a duty that failed."),
    "banyan_upkeep_seconds": ("histogram", "Rounds of a duty of upkeep."),
    "banyan_waiting_requests": ("gauge", "Requests that this process holds."),
    "banyan_workers": ("gauge", "Workers by mode."),
}

# Every bucket is told from the start, also where nothing was in it yet.
_BOUNDS: Mapping[str, tuple[float, ...]] = {
    "banyan_claim_tasks": SIZES,
    "banyan_http_request_duration_seconds": SECONDS,
    "banyan_upkeep_seconds": SECONDS,
}


class Sample(NamedTuple):
    """One line: a series and its value."""

    series: str
    value: float

    @property
    def family(self) -> str:
        """The family that it belongs to."""
        name = self.series.partition("{")[0]
        for suffix in ("", "_bucket", "_sum", "_count"):
            head = name.removesuffix(suffix)
            if head in FAMILIES and (not suffix or name.endswith(suffix)):
                return head
        return name


class Exposition:
    """The text of /metrics; `waiting` tells how many requests this process holds."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._text = b""
        self._good_until = 0.0

    def text(self, waiting: int) -> bytes:
        """What it says now. Errors: a PyMongoError where the database is away."""
        with self._lock:
            begun = time.monotonic()
            if begun >= self._good_until:
                flush(self._store)
                self._text = _rendered([*_of_database(self._store), *_of_process(waiting)])
                over = time.monotonic()
                self._good_until = over + max(_FRESH_SECONDS, (over - begun) / _SHARE)
            return self._text


def flush(store: Store) -> None:
    """Hand what this process has counted to the database."""
    metrics.add(store, COUNTERS.drain())


def _rendered(samples: list[Sample]) -> bytes:
    by_family: dict[str, list[Sample]] = {}
    for sample in samples:
        by_family.setdefault(sample.family, []).append(sample)
    lines = []
    for family, (kind, what) in FAMILIES.items():
        lines += [f"# HELP {family} {what}", f"# TYPE {family} {kind}"]
        found = by_family.get(family, [])
        found = list(_cumulative(family, found)) if kind == "histogram" else sorted(found)
        lines += [f"{one.series} {_number(one.value)}" for one in found]
    return ("\n".join(lines) + "\n").encode()


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(value)


def _cumulative(family: str, samples: list[Sample]) -> Iterator[Sample]:
    """A histogram as it is written: buckets hold all that is not above them, the last is all."""
    counts: dict[str, dict[float, float]] = {}
    sums: dict[str, float] = {}
    for name, value in samples:
        labels = name.partition("{")[2]
        pairs = [one for one in labels.rstrip("}").split(",") if one]
        bound = next((one for one in pairs if one.startswith('le="')), None)
        rest = ",".join(one for one in pairs if one != bound)
        if bound is None:
            sums[rest] = value
        else:
            counts.setdefault(rest, {})[float(bound[4:-1])] = value
    every = dict.fromkeys((*_BOUNDS.get(family, ()), float("inf")), 0.0)
    for rest in sorted(counts):
        so_far = 0.0
        for limit, count in sorted({**every, **counts[rest]}.items()):
            so_far += count
            told = "+Inf" if limit == float("inf") else f"{limit:g}"
            yield Sample(f'{family}_bucket{{{rest + "," if rest else ""}le="{told}"}}', so_far)
        own = f"{{{rest}}}" if rest else ""
        yield Sample(f"{family}_sum{own}", sums.get(rest, 0.0))
        yield Sample(f"{family}_count{own}", so_far)


# --- What it says -------------------------------------------------------------------------


def _of_database(store: Store) -> Iterator[Sample]:
    counted = statistics.count_tasks(store, {}, ["state"])["by_state"]
    for state in State:
        yield _sample("banyan_tasks", counted.get(str(state), 0), state=str(state))
    for mode, count in workers.count_by_mode(store, None).items():
        yield _sample("banyan_workers", count, mode=mode)
    live = now_of(store, workers.live(store, {}, workers.FIGURES))
    for use in ("capacity", "reserved", "used"):
        for resource, amount in live[use].items():
            yield _sample("banyan_resources", amount, resource=resource, use=use)
    oldest = metrics.oldest_in_line(store)
    waited = (now() - oldest).total_seconds() if oldest else 0
    yield _sample("banyan_oldest_available_seconds", max(0, waited))
    yield from _of_attempts(tallies.tallied(store))
    for name, value in metrics.all_series(store).items():
        yield Sample(name, value)


def _of_attempts(tally: Tally) -> Iterator[Sample]:
    ended = domain.words(tally)
    for word, count in ended.items():
        yield _sample("banyan_attempts_total", count, outcome=word)
        yield from _histogram("banyan_task_run_seconds", tally, f"run/{word}", outcome=word)
    yield from _histogram("banyan_task_wait_seconds", tally, "wait")
    yield _sample("banyan_task_cpu_seconds_total", tally.get("cpu", 0))


def _histogram(name: str, tally: Tally, kind: str, **labels: str) -> Iterator[Sample]:
    bins = domain.bins(tally, kind)
    below = 0
    for last in _BINS:
        count = sum(size for number, size in bins.items() if number <= last) - below
        below += count
        # Durations are whole milliseconds: so what is not above the end is not above this.
        yield _sample(f"{name}_bucket", count, **labels, le=f"{int(domain.end_of(last)) / 1000:g}")
    yield _sample(f"{name}_bucket", sum(bins.values()) - below, **labels, le="+Inf")
    yield _sample(f"{name}_sum", tally.get(f"{kind}/sum", 0) / 1000, **labels)


def _of_process(waiting: int) -> Iterator[Sample]:
    yield _sample("banyan_waiting_requests", waiting, process=str(os.getpid()))
    yield _sample("banyan_build_info", 1, version=__version__)


def _sample(name: str, value: float, **labels: str) -> Sample:
    return Sample(series(name, labels), value)
