"""Processes that have nothing any more and cannot go: what their task had is free."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from banyan.worker import tree
from tests.harness import eventually
from tests.worker.crew import Crew
from tests.worker.launched import Launched
from tests.worker.test_run_as import needs_root

# The first process of a PID namespace, whose number is written to a file. Its task ends when that
# is gone.
OWNER = """
import ctypes, os, sys, time
assert ctypes.CDLL(None).unshare(0x20000000) == 0
pid = os.fork()
if pid == 0:
    time.sleep(1000)
with open(sys.argv[1] + ".new", "w") as file:
    file.write(str(pid))
os.rename(sys.argv[1] + ".new", sys.argv[1])
while os.path.exists(sys.argv[1]):
    time.sleep(0.01)
"""
# A child in that namespace, which is not waited for: nothing there can go.
GUEST = """
import ctypes, os, sys, time
libc = ctypes.CDLL(None)
assert libc.setns(os.open(f"/proc/{sys.argv[1]}/ns/pid", os.O_RDONLY), 0x20000000) == 0
if os.fork() == 0:
    os._exit(0)
print("there", flush=True)
time.sleep(1000)
"""
TRACE = """
import ctypes, sys, time
assert ctypes.CDLL(None).ptrace(0x4206, int(sys.argv[1]), None, None) == 0  # PTRACE_SEIZE
print("traced", flush=True)
time.sleep(1000)
"""


@pytest.fixture
def guest() -> Iterator[Callable[[int], subprocess.Popen[bytes]]]:
    """Starts one that is in the way of this first process."""
    started: list[subprocess.Popen[bytes]] = []

    def start(first: int) -> subprocess.Popen[bytes]:
        argv = [sys.executable, "-c", GUEST, str(first)]
        started.append(subprocess.Popen(argv, stdout=subprocess.PIPE))
        assert started[-1].stdout
        assert started[-1].stdout.readline() == b"there\n"
        return started[-1]

    yield start
    for each in started:
        each.kill()
        each.wait()
        assert each.stdout
        each.stdout.close()


def number_in(file: Path) -> int:
    return int(eventually(lambda: file.exists() and file.read_text()))


@needs_root
def test_they_are_named_and_in_nobodys_way(
    launcher: Launched, guest: Callable[[int], subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    file = tmp_path / "first"
    owner = launcher.start([sys.executable, "-c", OWNER, str(file)])
    first = number_in(file)
    guests = guest(first)
    following = launcher.shell("echo next", after=owner)
    file.unlink()
    ended = launcher.ended(owner, seconds=40)
    assert "left" not in ended
    assert ended["spent"] == [first]
    assert launcher.ended(following)["code"] == 0
    assert tree.spent(first)
    assert tree.birth_of(first).ticks, "it is still there"
    assert "left" not in launcher.ended(launcher.shell("sleep 0.1"))
    guests.kill()
    eventually(lambda: not tree.birth_of(first).ticks)


@needs_root
def test_the_room_of_their_task_is_given_to_another(
    crew: Crew, guest: Callable[[int], subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    crew.worker("one", "--cores", "1", "--memory", "1 GiB")
    file = tmp_path / "first"
    task = crew.submit([sys.executable, "-c", OWNER, str(file)])
    first = number_in(file)
    guest(first)
    file.unlink()
    assert crew.ended(task, seconds=40)["outcome"] == "success"
    assert crew.ended(crew.submit("true"))["outcome"] == "success"
    assert f"processes [{first}] of task {task}" in crew.workers[0].stderr


@needs_root
def test_a_task_that_another_traces_ends(launcher: Launched) -> None:
    """Its parent hears nothing of its end as long as the other does not want to."""
    traced = launcher.start(["sleep", "1000"])
    leader = launcher.until("started", traced)["pid"]
    tracer = subprocess.Popen([sys.executable, "-c", TRACE, str(leader)], stdout=subprocess.PIPE)
    assert tracer.stdout
    try:
        assert tracer.stdout.readline() == b"traced\n"
        following = launcher.shell("echo next", after=traced)
        launcher.stop(traced, grace_seconds=0)
        ended = launcher.ended(traced, seconds=40)
        assert (ended["why"], ended["signal"]) == ("cancelled", 9)
        assert ended["spent"] == [leader]
        assert launcher.ended(following)["code"] == 0
        assert tree.birth_of(leader).ticks, "it is still there"
        daemon = "setsid --fork env -i /bin/true; sleep 0.1"
        assert "left" not in launcher.ended(launcher.shell(daemon))
    finally:
        tracer.kill()
        tracer.wait()
        tracer.stdout.close()
    eventually(lambda: not tree.birth_of(leader).ticks)


def test_who_lives_is_not_spent() -> None:
    process = subprocess.Popen(["sleep", "1000"])
    assert not tree.spent(process.pid)
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert tree.spent(process.pid)
    process.wait()
    assert tree.spent(process.pid)
