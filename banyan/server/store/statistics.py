"""Counts and times, worked out by the database."""

from collections.abc import Mapping, Sequence
from typing import Any

from banyan.server.store.mongo import Document, Store

RECENT_ATTEMPTS = 10_000  # times are of so many of the attempts that ended last


def count_tasks(store: Store, query: Mapping[str, Any], groups: Sequence[str]) -> Document:
    """{"count": n, "by_state": {value: n}, ...} for these groups, in one pass."""
    pipeline: list[Document] = [
        {"$match": dict(query)},
        {"$group": {"_id": {name: f"${name}" for name in groups}, "count": {"$sum": 1}}},
    ]
    answer: Document = {"count": 0, **{f"by_{name}": {} for name in groups}}
    for row in store["tasks"].aggregate(pipeline):
        answer["count"] += row["count"]
        for name in groups:
            value = row["_id"].get(name)
            if value is not None:
                counted = answer[f"by_{name}"]
                counted[value] = counted.get(value, 0) + row["count"]
    return answer


def attempt_times(store: Store, query: Mapping[str, Any]) -> Document:
    """{"running_milliseconds": {"mean", "p50", "p90", "p99", "max"}} of recent attempts."""
    ended = {**query, "time_terminated": {"$ne": None}, "time_started": {"$ne": None}}
    pipeline: list[Document] = [
        {"$match": ended},
        {"$sort": {"_id": -1}},
        {"$limit": RECENT_ATTEMPTS},
        {"$project": {"took": {"$subtract": ["$time_terminated", "$time_started"]}}},
        {"$group": {"_id": None, "took": {"$push": "$took"}}},
    ]
    row = next(iter(store["attempts"].aggregate(pipeline)), None)
    took = sorted(row["took"]) if row else []
    if not took:
        return {"running_milliseconds": None}
    at = {f"p{percent}": took[min(len(took) - 1, len(took) * percent // 100)]
          for percent in (50, 90, 99)}  # fmt: skip
    return {"running_milliseconds": {"mean": sum(took) / len(took), **at, "max": took[-1]}}
