"""A process that SIGKILL does not end: its attempt is told, its room stays taken."""

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.harness import eventually
from tests.worker.crew import Crew
from tests.worker.launched import Launched

FREEZER = Path("/sys/fs/cgroup/freezer")  # of version 1: what is frozen there cannot be killed


@pytest.fixture
def freeze() -> Iterator[Callable[[int], Callable[[], object]]]:
    """Makes a process one that cannot be killed; what it returns ends that."""
    cgroup = FREEZER / f"banyan-test-{os.getpid()}"
    try:
        cgroup.mkdir()
    except OSError:
        pytest.skip("no freezer cgroup here to make a process that cannot be killed")

    def state(wanted: str) -> bool:
        (cgroup / "freezer.state").write_text(wanted)
        return (cgroup / "freezer.state").read_text().strip() == wanted

    def frozen(pid: int) -> Callable[[], object]:
        (cgroup / "cgroup.procs").write_text(str(pid))
        eventually(lambda: state("FROZEN"))
        return lambda: state("THAWED")

    yield frozen
    state("THAWED")
    eventually(lambda: not (cgroup / "cgroup.procs").read_text())
    cgroup.rmdir()


def test_a_process_that_cannot_be_killed_is_named_and_cleared_later(
    launcher: Launched, freeze: Callable[[int], Callable[[], object]]
):
    attempt = launcher.shell("sleep 1000 & echo $!; wait")
    launcher.says(attempt, b"\n")
    child = int(launcher.output(attempt))
    thaw = freeze(child)
    launcher.stop(attempt, grace_seconds=0)
    assert launcher.ended(attempt, seconds=30)["left"] == [child]
    thaw()
    launcher.until("cleared", attempt)


def test_so_is_a_leader(launcher: Launched, freeze: Callable[[int], Callable[[], object]]):
    attempt = launcher.start(["sleep", "1000"])
    leader = launcher.until("started", attempt)["pid"]
    thaw = freeze(leader)
    launcher.stop(attempt, grace_seconds=0)
    ended = launcher.ended(attempt, seconds=30)
    assert (ended["left"], ended["why"], ended["signal"]) == ([leader], "cancelled", 9)
    thaw()
    launcher.until("cleared", attempt)
    assert [each["is"] for each in launcher.heard].count("ended") == 1


def test_its_room_is_not_given_to_another_task_while_it_is_there(
    crew: Crew, freeze: Callable[[int], Callable[[], object]]
):
    crew.worker("one", "--cores", "1", "--memory", "1 GiB")
    stuck = crew.submit("sleep 1000 & wait", max_shutdown_time_milliseconds=0)
    crew.until(stuck, "running")
    sleeping = eventually(
        lambda: [pid for pid in crew.processes_of(stuck) if name_of(pid) == "sleep"]
    )
    thaw = freeze(sleeping[0])
    crew.server.provider.post(f"tasks/{stuck}/cancel")
    ended = crew.ended(stuck, seconds=30)
    assert ended["state"] == "cancelled"
    assert f"would not end: {sleeping[0]}" in crew.attempts(stuck)[0]["reason"]
    following = crew.submit("date +%s.%N")
    with pytest.raises(AssertionError):
        eventually(lambda: crew.attempts(following), 1)  # nobody has room for it
    eventually(lambda: reserved(crew)["cores"] == 1, 30)
    thawed_at = time.time()
    thaw()
    assert crew.ended(following)["outcome"] == "success"
    assert float(crew.log(following)) > thawed_at


def test_the_next_agent_knows_what_is_stuck(
    crew: Crew, freeze: Callable[[int], Callable[[], object]]
):
    crew.worker("one", "--cores", "1", "--memory", "1 GiB")
    stuck = crew.submit(["sleep", "1000"], max_shutdown_time_milliseconds=0)
    crew.until(stuck, "running")
    [leader] = eventually(lambda: crew.processes_of(stuck))
    thaw = freeze(leader)
    crew.server.provider.post(f"tasks/{stuck}/cancel")
    crew.ended(stuck, seconds=30)
    crew.workers[0].kill()
    crew.worker("one", "--cores", "1", "--memory", "1 GiB")
    eventually(lambda: reserved(crew)["cores"] == 1, 30)
    following = crew.submit("true")
    thaw()
    assert crew.ended(following)["outcome"] == "success"
    eventually(lambda: reserved(crew)["cores"] == 0, 30)
    assert crew.state_of(stuck) == "cancelled"


def reserved(crew: Crew) -> dict[str, float]:
    """What attempts hold on all workers; the next beat tells of a change."""
    found: dict[str, float] = crew.server.operator.get("workers/statistics").json()["reserved"]
    return found


def name_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""
