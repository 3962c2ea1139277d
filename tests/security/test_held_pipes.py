"""A task that keeps everybody from reading its output: it holds the lock of the pipe."""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from banyan.worker import launching, wire
from tests.harness import eventually
from tests.security import pipe_holder, silent_files
from tests.worker.launched import Launched, alive
from tests.worker.test_run_as import needs_root, nobody

# The launcher stands still until the pipe has something to read and is held. The kernel asks the
# writer itself for what is in its memory, and gets no answer.
HOLD = """
import ctypes, fcntl, os, signal, struct, time
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
libc.write.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t]
launcher = os.getppid()
os.kill(launcher, signal.SIGSTOP)
os.write(1, b"x")
writer = os.fork()
if not writer:
    faults = libc.syscall(323, os.O_CLOEXEC)  # userfaultfd, of x86-64
    fcntl.ioctl(faults, 0xC018AA3F, struct.pack("QQQ", 0xAA, 0, 0))
    memory = libc.mmap(None, 4096, 3, 0x22, -1, 0)
    fcntl.ioctl(faults, 0xC020AA00, struct.pack("QQQQ", memory, 4096, 1, 0))
    libc.write(1, memory, 4096)
until = time.monotonic() + 15
while "userfault" not in open(f"/proc/{writer}/wchan").read() and time.monotonic() < until:
    time.sleep(0.01)
os.kill(launcher, signal.SIGCONT)
time.sleep(1000)
"""
WRITE_A_FILE = """
import mmap, os, signal, sys, time
launcher = os.getppid()
os.kill(launcher, signal.SIGSTOP)
os.write(1, b"x")
writer = os.fork()
if not writer:
    with open(sys.argv[1]) as file:
        os.write(1, mmap.mmap(file.fileno(), 4096, prot=mmap.PROT_READ))
until = time.monotonic() + 15
while " D " not in open(f"/proc/{writer}/stat").read() and time.monotonic() < until:
    time.sleep(0.01)
os.kill(launcher, signal.SIGCONT)
time.sleep(1000)
"""


HOLDER = pipe_holder.__file__
SAID = "somebody held the pipe"


def others_go_on(launcher: Launched) -> None:
    for each in [launcher.shell("echo hello") for _ in range(20)]:
        assert launcher.ended(each)["code"] == 0
        assert launcher.output(each) == b"hello\n"


def ended_for_it(launcher: Launched, holder: str, seconds: float = 20) -> None:
    ended = launcher.ended(holder, seconds)
    assert (ended["why"], ended["signal"]) == ("output", 9)
    assert SAID in ended["reason"]


def pipes_of(pid: int) -> int:
    found = 0
    for file in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            found += os.readlink(file).startswith("pipe:")
    return found


@needs_root
@pytest.mark.skipif(os.uname().machine != "x86_64", reason="another number of userfaultfd")
def test_others_go_on_and_it_is_ended(launcher: Launched) -> None:
    holder = launcher.start(["python3", "-c", HOLD])
    leader = launcher.until("started", holder)["pid"]
    try:
        others_go_on(launcher)
        ended_for_it(launcher, holder)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(leader, signal.SIGKILL)


def test_so_they_do_where_nobody_has_the_pipe_open(launcher: Launched) -> None:
    """A splice that is under way has it, and it is in no list of open files."""
    before = launcher.start(["sleep", "1000"])
    launcher.until("started", before)
    pipes = pipes_of(launcher.process.pid)
    for _ in range(3):  # the thread that has replaced another is replaced in turn
        holder = launcher.start(["python3", HOLDER, "own", "0"])
        others_go_on(launcher)
        ended_for_it(launcher, holder)
    for holder in [launcher.start(["python3", HOLDER, "own", "0"]) for _ in range(4)]:
        others_go_on(launcher)
        ended_for_it(launcher, holder, 60)
    launcher.stop(before, grace_seconds=0)
    assert launcher.ended(before)["why"] == "cancelled"
    others_go_on(launcher)
    eventually(lambda: pipes_of(launcher.process.pid) <= pipes)


def test_what_ended_meanwhile_left_its_mark_and_was_late_is_not_forgotten(
    launcher: Launched,
) -> None:
    """What the held thread had still to do is done by the next."""
    late = launcher.start(["sleep", "1000"], timeout_seconds=1, grace_seconds=0)
    orphan = launcher.shell("setsid sleep 1000 & echo $!; exec sleep 1")
    holder = launcher.start(["python3", HOLDER, "own", "0"])
    follower = launcher.shell("echo follows", after=holder)
    assert launcher.ended(late)["why"] == "timeout"
    assert launcher.ended(orphan)["code"] == 0
    assert not alive(int(launcher.output(orphan)))
    ended_for_it(launcher, holder)
    assert launcher.ended(follower)["code"] == 0
    # A child of the thread that is held, and one that the launcher has taken over.
    orphan = launcher.shell("setsid sleep 1000 & echo $!")
    assert launcher.ended(orphan)["code"] == 0
    eventually(lambda: not alive(int(launcher.output(orphan))))


class Accomplice:
    """A process that is of no attempt, and holds the pipe that it is handed."""

    def __init__(self, place: Path, launcher: int) -> None:
        self.path = str(place / "to")
        argv = [sys.executable, HOLDER, "take", self.path, str(launcher)]
        self.process = subprocess.Popen(argv, stderr=subprocess.PIPE)
        self.says("listens")

    def says(self, text: str) -> None:
        assert self.process.stderr
        assert self.process.stderr.readline().decode() == f"{text}\n"

    def let_go(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture
def accomplice(launcher: Launched, tmp_path: Path) -> Iterator[Accomplice]:
    one = Accomplice(tmp_path, launcher.process.pid)
    yield one
    one.let_go()


def test_who_was_handed_the_pipe_lives_and_the_attempt_ends(
    launcher: Launched, accomplice: Accomplice
) -> None:
    pipes = pipes_of(launcher.process.pid)
    giver = launcher.start(["python3", HOLDER, "give", accomplice.path])
    accomplice.says("held")
    others_go_on(launcher)
    ended_for_it(launcher, giver)
    others_go_on(launcher)
    assert accomplice.process.poll() is None
    accomplice.let_go()
    others_go_on(launcher)
    eventually(lambda: pipes_of(launcher.process.pid) <= pipes)  # the pipe is closed now
    assert len(os.listdir(f"/proc/{launcher.process.pid}/task")) == 3


def test_nobody_waits_for_a_launcher_that_cannot_end(
    launcher: Launched, accomplice: Accomplice
) -> None:
    giver = launcher.start(["python3", HOLDER, "give", accomplice.path])
    accomplice.says("held")
    ended_for_it(launcher, giver)
    launcher.say({"do": "goodbye"})
    with pytest.raises(wire.Gone):
        launcher.until("nothing")
    assert launching.find(launcher.state_directory) is None
    second = Launched(launcher.state_directory)
    try:
        others_go_on(second)
    finally:
        second.end()
    assert launcher.process.poll() is None
    accomplice.let_go()
    assert launcher.process.wait(20) == 0


def test_a_killed_one_that_cannot_end_is_followed_by_another(
    launcher: Launched, accomplice: Accomplice
) -> None:
    giver = launcher.start(["python3", HOLDER, "give", accomplice.path])
    accomplice.says("held")
    ended_for_it(launcher, giver)
    launching.kill(launcher.state_directory)
    assert launcher.process.poll() is None
    second = Launched(launcher.state_directory)
    try:
        others_go_on(second)
    finally:
        second.end()


@needs_root
def test_so_they_do_where_a_server_of_files_is_asked_and_lives(
    launcher: Launched, tmp_path: Path
) -> None:
    """The kernel does not let go of who has asked it, killed or not. The server is another's."""
    place = tmp_path / "files"
    place.mkdir()
    user = str(nobody()["uid"])
    argv = [sys.executable, silent_files.__file__, place, user]
    files = subprocess.Popen(argv, stdout=subprocess.PIPE)
    assert files.stdout
    if files.stdout.readline() != b"mounted\n":
        pytest.skip("no file system can be mounted by FUSE here")
    try:
        holder = launcher.start(["python3", "-c", WRITE_A_FILE, f"{place}/f"])
        others_go_on(launcher)
        ended_for_it(launcher, holder, 60)
        assert files.poll() is None
    finally:
        files.kill()
        files.wait()
        ctypes.CDLL(None).umount2(os.fsencode(place), 2)
    others_go_on(launcher)
