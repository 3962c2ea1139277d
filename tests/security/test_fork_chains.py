"""A process that forks the next and ends, for ever: there is always one more to reap.

What attacks here is small, and gives up by itself after a few seconds.
"""

import itertools
import select
import time
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from banyan.worker import running, starting, supervision, tree
from banyan.worker.cells import Cell, Cells
from banyan.worker.spawning import Spawned
from banyan.worker.timers import Timers
from tests.harness import eventually
from tests.worker.launched import Launched, carrying

SECONDS, CHAINS = 20, 16
# Each link leaves its session, its parent and its group at once.
HYDRA = f"""
import os, time
wait, go = os.pipe()
for _ in range({CHAINS}):
    if os.fork() == 0:
        os.close(go)
        os.read(wait, 1)
        until = time.monotonic() + {SECONDS}
        while time.monotonic() < until:
            if os.fork():
                os._exit(0)
            os.setsid()
        os._exit(0)
os.close(go)
os.write(1, b"all")
time.sleep(1000)
"""
WATCHED = {"memory_bytes": 256 << 20, "enforcement": "watch", "processes": 1000}


def hydra(launcher: Launched, **more: Any) -> tuple[str, str]:
    """Its attempt, and the value of the variable BOMB in its processes."""
    bomb = uuid.uuid4().hex
    attempt = launcher.start(["python3", "-c", HYDRA], limits=WATCHED, env={"BOMB": bomb}, **more)
    launcher.until("started", attempt)
    return attempt, bomb


def test_others_are_served_while_it_goes_on(launcher: Launched) -> None:
    over = time.monotonic() + SECONDS  # not before then
    attempt, bomb = hydra(launcher)
    launcher.says(attempt, b"all")
    assert launcher.run("echo hello", limits=WATCHED)[1] == b"hello\n"
    assert time.monotonic() < over, "they had to wait until it was over"
    launcher.stop(attempt, grace_seconds=0)
    assert launcher.ended(attempt)["signal"] == 9
    eventually(lambda: carrying("BOMB", bomb) == [], 3 * SECONDS)


def test_its_own_time_is_up_when_it_is(launcher: Launched) -> None:
    attempt, bomb = hydra(launcher, timeout_seconds=1, grace_seconds=0)
    assert launcher.ended(attempt, 60)["why"] == "timeout"
    eventually(lambda: carrying("BOMB", bomb) == [], 3 * SECONDS)


# --- Each loop has an end, whoever feeds it ---------------------------------------------------


class Fed(supervision.Supervision):
    """One whose children end without end."""

    def __init__(self, place: Path, timers: Timers) -> None:
        super().__init__(place, Cells(place), select.epoll(), timers, lambda message: None)
        self.reaped = 0

    def _reap(self, ended: int) -> None:
        self.reaped += 1


def test_a_number_is_reaped_and_the_rest_at_the_next_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(starting, "Spawner", lambda: None)  # it raises limits of ours
    monkeypatch.setattr(supervision, "ended_child", lambda: 1)
    timers = Timers()
    fed = Fed(tmp_path, timers)
    fed.reap()
    first = fed.reaped
    assert 0 < first < 10_000
    [again] = [key for key in timers.due(supervision.now()) if key != supervision._AGAIN]
    fed.due(again)
    assert fed.reaped == 2 * first


def test_a_tree_that_always_has_more_is_left_for_later(monkeypatch: pytest.MonkeyPatch) -> None:
    numbers, sent = itertools.count(1 << 30), []

    def send(pids: Iterable[int], number: int) -> None:
        sent.append(list(pids))

    monkeypatch.setattr(tree, "descendants", lambda roots: [*roots, next(numbers)])
    monkeypatch.setattr(running, "send", send)
    running.kill_trees([1 << 29])
    assert 1 < len(sent) < 100
    assert sorted(sent[-1]) == sorted(itertools.chain(*sent[:-1]))  # what was held is killed


def test_a_tree_that_grows_while_it_is_walked_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = itertools.count(2)
    monkeypatch.setattr(tree, "children", lambda pid: [next(numbers)])
    assert 10_000 < len(tree.descendants([1])) < 100_000


def test_what_always_escapes_from_its_cgroup_does_not_hold_up_the_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    numbers, added = itertools.count(2), []
    monkeypatch.setattr(starting, "Spawner", lambda: None)
    nothing: Any = None
    starter = starting.Starter(nothing, (), nothing)
    monkeypatch.setattr(starter, "_escaped", lambda *about: [next(numbers)])
    cell = Cell("/nowhere")
    monkeypatch.setattr(cell, "add", added.append)
    assert starter._confined("a", Spawned(1, 3, 4), cell) is cell
    assert 1 < len(added) < 1000
