"""Attempts -> tallies, worked out by the database: the one place that says what is measured.

Called for attempts that are about to be tallied, and for those that are not tallied yet. What
it tells of ended attempts never changes.
"""

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any, NamedTuple

from banyan.domain.tallies import BINS_PER_DECADE, RESOURCES, WIDTHS, Tally, add
from banyan.server.store.mongo import Document, Store

ENDED = {"time_terminated": {"$type": "date"}}
_MINUTE = WIDTHS[0]


class Key(NamedTuple):
    """Whose attempts, and of which minute."""

    time: datetime
    owner: str
    queue: str


def by_minute(store: Store, query: Mapping[str, Any]) -> dict[Key, Tally]:
    """The tallies of these attempts, those that run among them, by minute, owner and queue."""
    found: dict[Key, Tally] = {}
    for facets in store["attempts"].aggregate(_pipeline(query)):
        for name, rows in facets.items():
            for row in rows:
                key = Key(row["_id"]["t"], row["_id"].get("o", ""), row["_id"].get("q", ""))
                add(found.setdefault(key, {}), dict(_NUMBERS[name](row)))
    return found


def running(tallies: Iterable[Tally]) -> Tally:
    """What of these tallies is in use until further notice."""
    left: Tally = {}
    for tally in tallies:
        add(left, {one: tally.get(f"{one}/delta", 0) for one in RESOURCES})
    return left


def _pipeline(query: Mapping[str, Any]) -> list[Document]:
    """Four looks at the same attempts: their ends, their starts, and two histograms."""
    by = {"o": "$o", "q": "$q"}
    ended = {"$match": {"end": {"$ne": None}}}
    sums = {name: {"$sum": f"${name}"} for name in (*RESOURCES, "cpu")}
    at_end = {f"{one}/moment": _moment(one, "$end") for one in RESOURCES}
    at_start = {f"{one}/moment": _moment(one, "$start") for one in RESOURCES}
    known = {"count": {"$sum": 1}, "max": {"$max": "$run"}, "sum": {"$sum": "$run"}}
    waits = {"count": {"$sum": 1}, "max": {"$max": "$wait"}, "sum": {"$sum": "$wait"}}
    run_by = {"t": _trunc("$end"), **by, "word": "$word", "bin": "$run_bin"}
    wait_by = {"t": _trunc("$end"), **by, "bin": "$wait_bin"}
    return [
        {"$match": dict(query)},
        {"$project": _PROJECTED},
        {"$set": {"run_bin": _bin("$run"), "wait_bin": _bin("$wait")}},
        {
            "$facet": {
                "ends": [
                    ended,
                    {
                        "$group": {
                            "_id": {"t": _trunc("$end"), **by, "word": "$word"},
                            "count": {"$sum": 1},
                            **sums,
                            **{k.replace("/", "_"): v for k, v in at_end.items()},
                        }
                    },
                ],
                "runs": [ended, {"$match": {"run": {"$ne": None}}}, _group(run_by, known)],
                "waits": [ended, {"$match": {"wait": {"$ne": None}}}, _group(wait_by, waits)],
                "starts": [
                    {"$match": {"start": {"$ne": None}}},
                    _group(
                        {"t": _trunc("$start"), **by},
                        {**sums, **{k.replace("/", "_"): v for k, v in at_start.items()}},
                    ),
                ],
            }
        },
    ]


def _group(by: Document, fields: Document) -> Document:
    return {"$group": {"_id": by, **fields}}


def _trunc(time: str) -> Document:
    return {"$dateTrunc": {"date": time, "unit": "second", "binSize": _MINUTE}}


def _moment(resource: str, time: str) -> Document:
    """The sum of a resource times the seconds since the minute began."""
    seconds = {"$divide": [{"$mod": [{"$toLong": time}, _MINUTE * 1000]}, 1000]}
    return {"$sum": {"$multiply": [f"${resource}", seconds]}}


def _bin(milliseconds: str) -> Document:
    """As `tallies.bin_of`."""
    decades = {"$log10": {"$max": [1, milliseconds]}}
    return {"$toInt": {"$ceil": {"$multiply": [BINS_PER_DECADE, decades]}}}


def _passed(start: str, end: str) -> Document:
    """Milliseconds between two times, none where one of them is not known."""
    both = {"$and": [{"$eq": [{"$type": one}, "date"]} for one in (start, end)]}
    return {"$cond": [both, {"$max": [0, {"$subtract": [end, start]}]}, None]}


# An attempt that a clock has ended before it began was over at once. What it had in use is
# known from its start on: one that never started had nothing.
_STARTED = {"$eq": [{"$type": "$time_started"}, "date"]}
_PROJECTED: Document = {
    "_id": 0,
    "o": "$owner",
    "q": {"$ifNull": ["$queue", ""]},
    "word": {"$arrayElemAt": [{"$split": [{"$ifNull": ["$exit_status", "lost"]}, " "]}, 0]},
    "start": {"$cond": [_STARTED, "$time_started", None]},
    "end": {
        "$cond": [
            {"$eq": [{"$type": "$time_terminated"}, "date"]},
            {"$max": ["$time_terminated", "$time_started"]},
            None,
        ]
    },
    "run": _passed("$time_started", "$time_terminated"),
    "wait": _passed("$time_available", "$time_started"),
    "cpu": {"$ifNull": ["$cpu_seconds", 0]},
    **{
        one: {"$cond": [_STARTED, {"$ifNull": [f"$granted_resources.{one}", 0]}, 0]}
        for one in RESOURCES
    },
}


def _of_ends(row: Document) -> Iterator[tuple[str, float]]:
    yield f"ended/{row['_id']['word']}", row["count"]
    yield "cpu", row["cpu"]
    for one in RESOURCES:
        yield f"{one}/delta", -row[one]
        yield f"{one}/moment", -row[f"{one}_moment"]


def _of_starts(row: Document) -> Iterator[tuple[str, float]]:
    for one in RESOURCES:
        yield f"{one}/delta", row[one]
        yield f"{one}/moment", row[f"{one}_moment"]


def _of_runs(row: Document) -> Iterator[tuple[str, float]]:
    word = row["_id"]["word"]
    yield f"run/{word}/sum", row["sum"]
    yield f"run/{word}/{row['_id']['bin']}", row["count"]
    yield "run/max", row["max"]


def _of_waits(row: Document) -> Iterator[tuple[str, float]]:
    yield "wait/sum", row["sum"]
    yield f"wait/{row['_id']['bin']}", row["count"]
    yield "wait/max", row["max"]


_NUMBERS = {"ends": _of_ends, "starts": _of_starts, "runs": _of_runs, "waits": _of_waits}
