"""What is measured, one function a row: each returns {"what": figure}."""

import statistics
import subprocess
import time
from collections.abc import Callable
from typing import Any

from tests.bench.stack import Stack, stack

Figures = dict[str, float]
TRUE = {"command": ["/bin/true"], "state": "available"}
_BULK = 500


def _per_second(count: int, work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return round(count / (time.perf_counter() - start), 1)


def _ended(up: Stack, count: int) -> None:
    """Wait, with held requests, until so many tasks have ended."""
    etag = ""
    while True:
        headers = {"Prefer": "wait=10", "If-None-Match": etag}
        answer = up.provider.get(
            f"{up.url}/tasks/statistics", params={"by": "state"}, headers=headers
        )
        if answer.status_code == 200:
            etag = answer.headers["ETag"]
            if answer.json()["by_state"].get("terminated", 0) >= count:
                return


def api(count: int) -> Figures:
    """The server alone, one client: tasks a second for lists."""
    with stack("--no-worker") as up:
        lists = [[TRUE] * 1000 for _ in range(max(1, count // 1000))]
        figures = {
            "submit, lists of 1,000 (tasks/s)": _per_second(
                1000 * len(lists), lambda: [up.post("tasks", one) for one in lists]
            )
        }
        ids = [one["_id"] for one in up.post("tasks", [TRUE] * _BULK)["_items"]]
        rates = []
        for state in ("inactive", "available") * 5:
            body = [{"_id": one, "state": state} for one in ids]
            rates.append(_per_second(_BULK, lambda body=body: up.patch("tasks", body)))
        median = round(statistics.median(rates), 1)
        figures[f"bulk PATCH, lists of {_BULK} (state changes/s)"] = median
        figures |= _claims_and_ends(up)
        page = [_milliseconds(lambda: up.get("tasks", max_results="100")) for _ in range(20)]
        figures["page of 100 (ms)"] = round(statistics.median(page), 1)
        return figures


def _claims_and_ends(up: Stack) -> Figures:
    resources = {"cores": 100_000, "memory": "8000 TiB"}
    worker = up.post("workers", {"host": "bench", "resources": resources}, "worker")["_id"]
    figures: Figures = {}
    for size in (1, 16, _BULK):
        body = {"worker": worker, "max": size, "start": True, "fits": resources}
        claims, ends = [], []
        for _ in range(5):
            start = time.perf_counter()
            items = up.post("tasks/claim", body, "worker")["_items"]
            claims.append(time.perf_counter() - start)
            reports = [_end(item) for item in items]
            ends.append(_milliseconds(lambda r=reports: up.patch("tasks", r, "worker")) / 1000)
        figures[f"claim of {size} (ms)"] = round(statistics.median(claims) * 1000, 1)
        figures[f"end of {size} (ms)"] = round(statistics.median(ends) * 1000, 1)
    return figures


def _end(item: dict[str, Any]) -> dict[str, Any]:
    end = {"exit_status": "success", "time_terminated": "2026-01-01T00:00:00Z"}
    data = {"token": item["token"], **end}
    return {"_id": item["_id"], "state": "terminated", "update_execution_data": data}


def _milliseconds(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return (time.perf_counter() - start) * 1000


def w1(count: int) -> Figures:
    """`count` x /bin/true: from the first submission to the last end recorded durably."""
    with stack() as up:
        before = up.cpu_seconds()

        def work() -> None:
            for start in range(0, count, 1000):
                up.post("tasks", [TRUE] * min(1000, count - start))
            _ended(up, count)

        rate = _per_second(count, work)
        after = up.cpu_seconds()
    cpu = {
        f"W1 {k} CPU (ms a task)": round((after[k] - before[k]) * 1000 / count, 3) for k in after
    }
    limit = spawn_limit()
    return {"W1 (tasks/s)": rate, "W1 share of the spawn loop": round(rate / limit, 3), **cpu}


def spawn_limit(count: int = 500) -> float:
    """/bin/true a second by one Python process that spawns and waits in turn."""
    return _per_second(
        count, lambda: [subprocess.run(["/bin/true"], check=True) for _ in range(count)]
    )


def w2(count: int) -> Figures:
    """One /bin/true on an idle stack: from submission to the submitter's knowing its end."""
    with stack() as up:
        times = [_milliseconds(lambda: _one(up)) for _ in range(count)]
    return {"W2 median (ms)": round(statistics.median(times), 1)}


def _one(up: Stack) -> None:
    task = up.post("tasks", TRUE)
    address, etag = f"{up.url}/tasks/{task['_id']}", task["_etag"]
    while True:
        headers = {"Prefer": "wait=10", "If-None-Match": f'"{etag}"'}
        answer = up.provider.get(address, headers=headers)
        if answer.status_code == 200:
            etag = answer.json()["_etag"]
            if answer.json()["state"] == "terminated":
                return


def waiting(callers: int) -> Figures:
    """What another request costs while so many callers wait in one server process."""
    import threading

    with stack("--no-worker") as up:
        alone = statistics.median(_milliseconds(lambda: up.get("")) for _ in range(50))
        task = up.post("tasks", {"name": "watched"})
        woken: list[float] = []

        def wait() -> None:
            headers = {"Prefer": "wait=60", "If-None-Match": f'"{task["_etag"]}"'}
            headers["Authorization"] = str(up.provider.headers["Authorization"])
            requests_get(f"{up.url}/tasks/{task['_id']}", headers)
            woken.append(time.perf_counter())

        threads = [threading.Thread(target=wait) for _ in range(callers)]
        for thread in threads:
            thread.start()
        beside = statistics.median(_milliseconds(lambda: up.get("")) for _ in range(200))
        changed = time.perf_counter()
        up.patch(f"tasks/{task['_id']}", {"name": "changed"})
        for thread in threads:
            thread.join()
    return {
        "request alone (ms)": round(alone, 2),
        f"request beside {callers} waiting (ms)": round(beside, 2),
        f"last of {callers} woken after (ms)": round((max(woken) - changed) * 1000, 1),
    }


def requests_get(url: str, headers: dict[str, str]) -> None:
    """A GET on a connection of its own."""
    import requests

    requests.get(url, headers=headers, timeout=90).raise_for_status()
