"""Attempts -> tallies, worked out by the database: the one place that says what is measured.

Called for attempts that are about to be tallied, and for those that are not tallied yet. What
it tells of ended attempts never changes.
"""

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any, NamedTuple

from banyan.domain.tallies import BINS_PER_DECADE, RESOURCES, WIDTHS, Tally, add
from banyan.domain.units import LARGEST
from banyan.server.store.mongo import BATCH, Document, Store

ENDED = {"time_terminated": {"$type": "date"}}
_MINUTE = WIDTHS[0]


class Key(NamedTuple):
    """Whose attempts, and of which minute."""

    time: datetime
    owner: str
    queue: str


def by_minute(store: Store, query: Mapping[str, Any], apart: bool = True) -> dict[Key, Tally]:
    """The tallies of these attempts, those that run among them, by minute, owner and queue.

    apart: False where nobody asks whose they are; owners and queues are "" then, and what the
    database answers grows with the minutes alone.
    """
    found: dict[Key, Tally] = {}
    for row in store["attempts"].aggregate(_pipeline(query, apart), batchSize=BATCH):
        of = row["_id"]
        key = Key(of["t"], of.get("o", ""), of.get("q", ""))
        add(found.setdefault(key, {}), dict(_NUMBERS[of["kind"]](row)))
    return found


def running(tallies: Iterable[Tally]) -> Tally:
    """What of these tallies is in use until further notice."""
    left: Tally = {}
    for tally in tallies:
        add(left, {one: tally.get(f"{one}/delta", 0) for one in RESOURCES})
    return left


def _pipeline(query: Mapping[str, Any], apart: bool) -> list[Document]:
    """Each attempt becomes up to four rows: its end, its start, how long it ran and waited.

    They come one after another. Together, as a $facet tells them, they are a single document,
    and one of many queues or minutes is larger than the database takes.
    """
    by = {"t": _trunc("$row.at"), "word": "$row.word", "bin": "$row.bin"}
    whose = {"o": "$o", "q": "$q"} if apart else {}
    sums = {name: {"$sum": f"${name}"} for name in (*RESOURCES, "cpu")}
    moments = {f"{one}_moment": _moment(one, "$row.at") for one in RESOURCES}
    values = {"max": {"$max": "$row.value"}, "sum": {"$sum": "$row.value"}}
    return [
        {"$match": dict(query)},
        {"$project": _PROJECTED},
        {"$set": {"row": _ROWS}},
        {"$unwind": "$row"},
        {
            "$group": {
                "_id": {"kind": "$row.kind", **by, **whose},
                "count": {"$sum": 1},
                **sums,
                **moments,
                **values,
            }
        },
    ]


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


def _amount(field: str) -> Document:
    """As a float, of which any sum has room, and no more than may be given now."""
    number = {"$convert": {"input": field, "to": "double", "onError": 0, "onNull": 0}}
    return {"$max": [0, {"$min": [LARGEST, number]}]}


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
    "cpu": _amount("$cpu_seconds"),
    **{one: {"$cond": [_STARTED, _amount(f"$granted_resources.{one}"), 0]} for one in RESOURCES},
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


def _rows(condition: Document, *rows: Document) -> Document:
    return {"$cond": [condition, list(rows), []]}


def _is_known(*fields: str) -> Document:
    return {"$and": [{"$ne": [field, None]} for field in fields]}


_RAN = {"word": "$word", "bin": _bin("$run"), "value": "$run"}
_WAITED = {"bin": _bin("$wait"), "value": "$wait"}
_ROWS = {
    "$concatArrays": [
        _rows(_is_known("$end"), {"kind": "ends", "at": "$end", "word": "$word"}),
        _rows(_is_known("$end", "$run"), {"kind": "runs", "at": "$end", **_RAN}),
        _rows(_is_known("$end", "$wait"), {"kind": "waits", "at": "$end", **_WAITED}),
        _rows(_is_known("$start"), {"kind": "starts", "at": "$start"}),
    ]
}
_NUMBERS = {"ends": _of_ends, "starts": _of_starts, "runs": _of_runs, "waits": _of_waits}
