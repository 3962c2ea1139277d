"""Without cgroups: a process that says that it is another task's harms that task in nothing."""

import time
from pathlib import Path

import pytest

from tests.harness import eventually
from tests.worker.launched import Launched, alive, carrying
from tests.worker.test_run_as import needs_root, nobody

MIB = 1 << 20
WATCH = {"memory_bytes": 64 * MIB, "enforcement": "watch"}
# A daemon at once, with the mark that is given; it says who it is and takes so many MiB.
DAEMON = """
import os, sys, time
file, mark, mebibytes = sys.argv[1:4]
if os.fork() == 0:
    os.setsid()
    if os.fork():
        os._exit(0)
    script = ("import os, sys, time; "
              "open(sys.argv[1], 'w').write('%d\\\\n' % os.getpid());"
              "x = bytearray(int(sys.argv[2]) << 20); time.sleep(1000)")
    mine = {"BANYAN_ATTEMPT": mark} if mark else {}
    os.execve(sys.executable, ["python3", "-c", script, file, mebibytes], mine)
os.wait()
time.sleep(1000)
"""
# The same, but it becomes a daemon only when it is told to.
LATER = """
import os, sys, time
file, mark, go = sys.argv[1:4]
if os.fork() == 0:
    if os.fork() == 0:
        os.setsid()
        script = ("import os, sys, time; open(sys.argv[1], 'w').write('%d\\\\n' % os.getpid());"
                  "time.sleep(1000)")
        os.execve(sys.executable, ["python3", "-c", script, file], {"BANYAN_ATTEMPT": mark})
    while not os.path.exists(go):
        time.sleep(0.01)
    os._exit(0)
os.wait()
print("left", flush=True)
time.sleep(1000)
"""


def pid_in(file: Path) -> int:
    eventually(lambda: file.exists() and file.read_text().endswith("\n"))
    return int(file.read_text())


def victim(launcher: Launched, **more: object) -> str:
    attempt = launcher.shell("exec sleep 1000", limits=WATCH, **more)
    launcher.until("started", attempt)
    return attempt


def ended_of(launcher: Launched, attempt: str) -> bool:
    return any(each["is"] == "ended" and each["attempt"] == attempt for each in launcher.heard)


def stop(launcher: Launched, attempt: str) -> None:
    launcher.stop(attempt, grace_seconds=0)
    launcher.ended(attempt)


@pytest.mark.parametrize("whose", ["the other's", "none"])
def test_memory_under_a_forged_mark_ends_nobody_else(
    launcher: Launched, tmp_path: Path, whose: str
) -> None:
    bob = victim(launcher)
    file = tmp_path / "pid"
    mark = bob if whose == "the other's" else ""
    alice = launcher.start(["python3", "-c", DAEMON, str(file), mark, "150"], limits=WATCH)
    hog = pid_in(file)
    eventually(lambda: not alive(hog))
    launcher.run("true")
    assert not ended_of(launcher, bob)
    assert not ended_of(launcher, alice), "nobody can say that it was hers"
    for attempt in (alice, bob):
        stop(launcher, attempt)


def test_what_was_seen_below_its_leader_ends_with_it_whatever_it_says(
    launcher: Launched, tmp_path: Path
) -> None:
    bob = victim(launcher)
    file, go = tmp_path / "pid", tmp_path / "go"
    alice = launcher.start(["python3", "-c", LATER, str(file), bob, str(go)], limits=WATCH)
    daemon = pid_in(file)
    written = time.time()
    launcher.until("sample", alice, having=lambda said: said["time"] > written)  # it has looked
    go.touch()
    launcher.says(alice, b"left")
    stop(launcher, alice)
    assert not alive(daemon)
    assert not ended_of(launcher, bob)
    stop(launcher, bob)


def test_a_forged_mark_keeps_nothing_alive_beyond_the_one_that_it_names(
    launcher: Launched, tmp_path: Path
) -> None:
    bob, other = victim(launcher), victim(launcher)
    file = tmp_path / "pid"
    alice = launcher.start(["python3", "-c", DAEMON, str(file), bob, "1"], limits=WATCH)
    daemon = pid_in(file)
    stop(launcher, alice)
    stop(launcher, bob)
    assert not alive(daemon), "while a third runs"
    assert not ended_of(launcher, other)
    stop(launcher, other)


@needs_root
@pytest.mark.parametrize("whose", ["the other's", "none"])
def test_as_another_user_a_daemon_ends_with_its_own_task(launcher: Launched, whose: str) -> None:
    """By the group that its attempt alone has."""
    bob = victim(launcher, user=nobody())
    mark = bob if whose == "the other's" else ""
    command = ["python3", "-c", DAEMON, "/dev/null", mark, "1"]
    alice = launcher.start(command, limits=WATCH, user=nobody())
    launcher.until("started", alice)
    children = Path(f"/proc/{launcher.process.pid}/task/{launcher.process.pid}/children")
    eventually(lambda: len(children.read_text().split()) == 3)
    stop(launcher, alice)
    assert len(children.read_text().split()) == 1
    assert not ended_of(launcher, bob)
    stop(launcher, bob)


@needs_root
def test_as_another_user_its_memory_is_its_own_tasks(launcher: Launched) -> None:
    bob = victim(launcher, user=nobody())
    script = DAEMON.replace("open(sys.argv[1], 'w').write('%d\\\\n' % os.getpid())", "print(1)")
    alice = launcher.start(["python3", "-c", script, "-", bob, "150"], limits=WATCH, user=nobody())
    assert launcher.ended(alice)["why"] == "oom"
    assert not ended_of(launcher, bob)
    assert carrying("BANYAN_ATTEMPT", bob)
    stop(launcher, bob)
