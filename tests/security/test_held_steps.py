"""Reading and closing a pipe that somebody holds: one step of the launcher's loop by itself."""

import os
import select
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from banyan.worker import pipes, starting, supervision
from banyan.worker.cells import Cells
from banyan.worker.limits import Limits
from banyan.worker.pipes import Pipes, Replaced, Step
from banyan.worker.spawning import Spawned
from banyan.worker.starting import Started
from banyan.worker.timers import Timers
from tests.harness import eventually
from tests.security import pipe_holder

HOLDER = pipe_holder.__file__


class Held:
    """A pipe, and a process that holds it until it is killed."""

    def __init__(self) -> None:
        self.reading, self.writing = os.pipe()
        ends = ((self.reading, os.O_RDONLY), (self.writing, os.O_WRONLY))
        code = f"""
import os, sys, time
sys.path.insert(0, {str(Path(HOLDER).parent)!r})
import pipe_holder
own = [os.open(f"/proc/self/fd/{{number}}", flags) for number, flags in {ends}]
for number, _ in {ends}:  # so that ours are the last of their kind
    os.close(number)
pipe_holder.hold(*own, 0)
os.write(2, b"held")
time.sleep(1000)
"""
        argv = [sys.executable, "-c", code]
        self.process = subprocess.Popen(
            argv, stderr=subprocess.PIPE, pass_fds=[self.reading, self.writing]
        )
        assert self.process.stderr
        assert self.process.stderr.read(4) == b"held"

    def let_go(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture
def held() -> Iterator[Held]:
    one = Held()
    yield one
    one.let_go()


class Loop:
    """Pipes, and one thread after the other that is at them."""

    def __init__(self) -> None:
        self.pipes = Pipes(select.epoll())
        self.taken: list[Step] = []
        self.came_back: list[str] = []

    def watch(self) -> None:
        self.pipes.watch(self.taken.append)

    def run(self, step: Callable[[], Any]) -> threading.Thread:
        def work() -> None:
            self.pipes._thread = threading.get_native_id()
            try:
                step()
                self.came_back.append("in time")
            except Replaced:
                self.came_back.append("replaced")

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        return thread


def test_a_read_that_does_not_come_back_is_another_threads_no_more(held: Held) -> None:
    loop = Loop()
    loop.watch()
    loop.pipes.follow([held.reading], "a")
    thread = loop.run(lambda: loop.pipes.read(held.reading, 100))
    eventually(lambda: loop.taken)
    assert loop.taken[0][:3] == (held.reading, "a", True)
    loop.pipes.go_on_without(loop.taken[0])
    assert held.reading not in loop.pipes
    assert not loop.came_back
    held.let_go()
    thread.join(20)
    assert loop.came_back == ["replaced"]
    os.fstat(held.reading)  # that thread does not close it
    loop.pipes.close_dropped()
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(held.reading)
    os.close(held.writing)


def test_it_is_tried_again_where_no_thread_can_be_started(held: Held) -> None:
    loop = Loop()
    tries: list[Step] = []

    def replace(step: Step) -> None:
        tries.append(step)
        if len(tries) == 1:
            raise RuntimeError("can't start new thread")

    loop.pipes.watch(replace)
    loop.pipes.follow([held.reading], "a")
    thread = loop.run(lambda: loop.pipes.read(held.reading, 100))
    eventually(lambda: len(tries) == 2)
    assert tries[0] is tries[1]
    held.let_go()
    thread.join(20)
    assert loop.came_back == ["replaced"]
    os.close(held.writing)
    os.close(held.reading)


@pytest.mark.parametrize("end", ["reading", "writing"])
def test_a_close_neither(held: Held, end: str) -> None:
    loop = Loop()
    loop.watch()
    pipe: int = getattr(held, end)
    loop.pipes.follow([], "a", [pipe])
    thread = loop.run(loop.pipes.close_dropped)
    eventually(lambda: loop.taken)
    assert loop.taken[0][:3] == (pipe, "a", False)
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(pipe)  # the number is free
    loop.pipes.go_on_without(loop.taken[0])
    assert not loop.came_back
    held.let_go()
    thread.join(20)
    assert loop.came_back == ["replaced"]
    loop.pipes.close_dropped()  # nothing is left to close
    os.close(held.writing if end == "reading" else held.reading)


def test_a_process_is_known_before_its_ends_of_the_pipes_are_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That may wait for it already."""
    monkeypatch.setattr(starting, "Spawner", lambda: None)  # it raises limits of ours
    out, err = os.pipe(), os.pipe()
    spawned = Spawned(os.getpid(), out[0], err[0], None, (out[1], err[1]))
    monkeypatch.setattr(
        starting.Starter, "start", lambda self, message: Started(spawned, Limits(), None)
    )
    told: list[Any] = []
    own = supervision.Supervision(tmp_path, Cells(tmp_path), select.epoll(), Timers(), told.append)
    message = {"attempt": "a", "log_bytes_max": 1, "keep": None, "grace_seconds": 1}
    own.start({**message, "timeout_seconds": None})
    assert list(own.running) == ["a"]
    assert [each["is"] for each in told] == ["started"]
    for end in spawned.writing:
        os.fstat(end)
    own.settle_pipes()
    for end in spawned.writing:
        with pytest.raises(OSError, match="Bad file"):
            os.fstat(end)
    for end in (spawned.stdout, spawned.stderr):
        os.close(end)


def test_what_holds_for_a_moment_now_and_then_is_not_ended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    own, clock, taken = Pipes(select.epoll()), [pipes.now()], list[Step]()
    monkeypatch.setattr(pipes, "now", lambda: clock[0])
    monkeypatch.setattr(pipes, "_is_held_up", lambda step: True)
    for pause, ends in ((10.0, False), (1.0, True)):
        for _ in range(100):
            own._step = Step(7, "a", True, 0, pipes.now())
            clock[0] += pause
            own._look(taken.append)
        assert bool(taken) is ends


def test_who_waits_for_the_processor_or_for_something_else_is_not_held() -> None:
    done = threading.Event()
    waits = threading.Thread(target=done.wait, daemon=True)
    waits.start()
    for thread in (waits.native_id, threading.get_native_id()):
        assert thread
        assert not pipes._is_held_up(Step(7, "a", True, thread, 0.0))
    done.set()
    waits.join()
