"""A process whose first thread has ended: the kernel shows it like a zombie, and it lives."""

import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from banyan.worker import memory, tree
from banyan.worker.process_reader import ProcessReader
from banyan.worker.sweep import sweep
from tests.harness import eventually
from tests.worker.launched import Launched
from tests.worker.test_launcher_memory import limits

MIB = 1 << 20
EXIT = {"x86_64": 60, "aarch64": 93}.get(os.uname().machine)
pytestmark = pytest.mark.skipif(EXIT is None, reason="another number ends a thread here")
# Another thread waits until the first has ended, and then does what was asked for.
ALONE = """
import ctypes, os, sys, threading, time
def go():
    stat = f"/proc/{os.getpid()}/stat"
    while open(stat).read().rpartition(")")[2].split()[0] != "Z":
        time.sleep(0.01)
    exec(sys.argv[2])
    time.sleep(1000)
threading.Thread(target=go).start()
ctypes.CDLL(None).syscall(int(sys.argv[1]), 0)
"""
HOARD = "x = bytearray({} << 20); os.write(1, b'full')"


def alone(then: str) -> list[str]:
    """A program whose first thread ends, and of which another goes on like this."""
    return [sys.executable, "-c", ALONE, str(EXIT), then]


@pytest.fixture
def hoarder() -> Iterator[subprocess.Popen[bytes]]:
    """One with 40 MiB, of the worker `its name`."""
    env = {**os.environ, tree.WORKER_VARIABLE: uuid.uuid4().hex}
    process = subprocess.Popen(alone(HOARD.format(40)), stdout=subprocess.PIPE, env=env)
    assert process.stdout
    try:
        assert process.stdout.read(4) == b"full"
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_its_memory_is_bounded(launcher: Launched) -> None:
    attempt = launcher.start(alone(HOARD.format(120)), limits=limits("watch", 64))
    ended = launcher.ended(attempt)
    assert (ended["why"], ended["signal"]) == ("oom", 9)


def test_its_memory_is_read_whole(hoarder: subprocess.Popen[bytes]) -> None:
    pids = [hoarder.pid]
    assert 40 * MIB <= memory.held_bytes(pids) <= memory.virtual_bytes(pids)
    assert min(memory.largest_bytes(pids)) >= 40 * MIB
    looks = memory.Looks(ProcessReader())
    looks.begin_turn()
    size, whole = eventually(lambda: (seen := looks.at("one", pids)).whole and seen)
    assert whole
    assert size >= 40 * MIB


def test_it_has_not_ended_until_its_last_thread_has(hoarder: subprocess.Popen[bytes]) -> None:
    assert not tree.ended(hoarder.pid)
    found, _ = tree.variables_of(hoarder.pid, [tree.WORKER_VARIABLE])
    assert found[tree.WORKER_VARIABLE]
    hoarder.kill()
    os.waitid(os.P_PID, hoarder.pid, os.WEXITED | os.WNOWAIT)
    assert tree.ended(hoarder.pid)
    assert memory.resident_bytes([hoarder.pid]) == 0
    assert tree.other_threads(hoarder.pid) == []


def test_it_does_not_outlive_a_killed_launcher(launcher: Launched) -> None:
    worker = uuid.uuid4().hex
    attempt = launcher.start(
        alone("print(os.getpid(), flush=True)"), env={tree.WORKER_VARIABLE: worker}
    )
    launcher.says(attempt, b"\n")
    pid = int(launcher.output(attempt))
    launcher.process.kill()
    launcher.process.wait(5)
    assert sweep({worker}) == []
    eventually(lambda: tree.ended(pid))


def test_nothing_more_is_read_of_an_ordinary_process(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    own_open = open

    def noted(path: str, *more: object, **options: object) -> object:
        read.append(path)
        return own_open(path, *more, **options)  # type: ignore[call-overload]

    for module in (memory, tree):
        monkeypatch.setattr(module, "open", noted, raising=False)
    pids = [os.getpid()]
    memory.resident_bytes(pids)
    tree.ended(os.getpid())
    tree.variables_of(os.getpid(), ["PATH"])
    place = Path("/proc") / str(os.getpid())
    assert read == [f"{place}/{name}" for name in ("status", "stat", "environ")]
