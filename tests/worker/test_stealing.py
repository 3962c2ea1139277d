"""Stealing, with real workers: all get their share of what one has, and nothing runs twice."""

from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

from tests.contract.playing import Player, word
from tests.harness import eventually
from tests.worker.crew import Crew

ONE_CORE = {"cores": 1, "memory": "1 MiB"}
HOARD = 80
CREW = ("a", "b", "c", "d")
HANDED_OVER = "handed over to an idle worker"


def begun(place: Path) -> list[list[str]]:
    """What has begun: the task and its worker, once for each time."""
    path = place / "begun"
    return [line.split() for line in path.read_text().splitlines()] if path.exists() else []


def noting(place: Path, then: str) -> str:
    return f'echo "$BANYAN_TASK_ID $BANYAN_WORKER_ID" >>{place}/begun; {then}'


def submit(crew: Crew, commands: list[str]) -> list[str]:
    """All at once, in their order."""
    task = {"state": "available", "requested_resources": ONE_CORE}
    answer = crew.server.provider.post("tasks", [{**task, "command": one} for one in commands])
    return [item["_id"] for item in answer.json()["_items"]]


def test_what_one_has_claimed_and_not_started_is_shared_out_among_the_idle(
    hurried: Crew, tmp_path: Path
):
    """Each task waits until every worker has one, so that none can be too late for its share."""
    crew = hurried
    resources = {"cores": HOARD, "memory": "64 GiB"}
    hoarder = Player(crew.server.worker, "default", resources=resources)
    command = noting(tmp_path, f"while [ ! -e {tmp_path}/go ]; do sleep 0.05; done")
    tasks = submit(crew, [command] * HOARD)
    hoard = {item["_id"]: item for item in hoarder.claim(HOARD)}
    assert hoard.keys() == set(tasks)
    workers = {name: crew.worker(name, "--cores", "1") for name in CREW}

    def shared() -> bool:
        assert hoarder.beat().status_code == 200
        return len({worker for _, worker in begun(tmp_path)}) == len(workers)

    eventually(shared, 60)
    (tmp_path / "go").touch()

    def over() -> bool:
        assert hoarder.beat().status_code == 200
        return ended(crew) == HOARD

    eventually(over, 60, every_seconds=0.2)
    assert Counter(task for task, _ in begun(tmp_path)) == Counter(tasks)
    for task in (tasks[0], tasks[HOARD // 2], tasks[-1]):
        assert word(hoarder.report(hoard[task], time_started="2026-01-01T00:00:00Z")) == (
            409,
            "lease_lost",
        )
        first, second = crew.attempts(task)
        assert (first["worker"], first["reason"]) == (hoarder.id, "stolen before it started")
        assert (second["exit_status"], second["worker"] != hoarder.id) == ("success", True)


def ended(crew: Crew) -> int:
    counted: dict[str, Any] = crew.server.provider.get("tasks/statistics", by="state").json()
    return int(counted["by_state"].get("terminated", 0))


def test_what_waits_behind_a_long_task_is_handed_over_to_an_idle_worker(
    hurried: Crew, tmp_path: Path
):
    """Again until it has happened: which worker has got what is a matter of chance."""
    crew = hurried
    for name in ("a", "b"):
        crew.worker(name, "--cores", "1")
    for name in ("a", "b"):
        crew.registered(name)
    short = noting(tmp_path, ":")
    burst = [short] * 20 + [noting(tmp_path, "sleep 0.8")] + [short] * 12
    tasks: list[str] = []

    def went_over() -> bool:
        new = submit(crew, burst)
        tasks.extend(new)
        eventually(lambda: ended(crew) == len(tasks), 60)
        return any(handed_over(crew.attempts(task)) for task in new)

    eventually(went_over, 60)
    assert Counter(task for task, _ in begun(tmp_path)) == Counter(tasks)


def handed_over(attempts: list[dict[str, Any]]) -> bool:
    """Whether one worker gave the task to the other before it had begun."""
    return any(
        first.get("reason") == HANDED_OVER and first["worker"] != second["worker"]
        for first, second in pairwise(attempts)
    )
