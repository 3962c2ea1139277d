"""A task that keeps everybody from reading its output: it writes from memory that never answers."""

import contextlib
import ctypes
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from banyan.worker import pipes
from banyan.worker.pipes import Pipes
from tests.harness import eventually
from tests.security import silent_files
from tests.worker.launched import Launched
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
import mmap, os
os.write(1, b"x")
os.write(1, mmap.mmap(0, 4096, prot=mmap.PROT_READ))
"""


@needs_root
@pytest.mark.skipif(os.uname().machine != "x86_64", reason="another number of userfaultfd")
def test_others_go_on_and_it_is_ended(launcher: Launched) -> None:
    holder = launcher.start(["python3", "-c", HOLD])
    leader = launcher.until("started", holder)["pid"]
    try:
        assert launcher.run("echo hello")[1] == b"hello\n"
        ended = launcher.ended(holder)
        assert (ended["why"], ended["signal"]) == ("output", 9)
        assert "memory that did not answer" in ended["reason"]
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(leader, signal.SIGKILL)


@needs_root
def test_so_they_do_where_a_server_of_files_is_asked_and_lives(tmp_path: Path) -> None:
    """The kernel does not let go of who has asked it, killed or not."""
    user = nobody()["uid"]
    place = tmp_path / "files"
    place.mkdir()
    files = subprocess.Popen(
        [sys.executable, silent_files.__file__, place, str(user)], stdout=subprocess.PIPE
    )
    assert files.stdout
    if files.stdout.readline() != b"mounted\n":
        pytest.skip("no file system can be mounted by FUSE here")
    pipe, writing = os.pipe()
    holder = None
    try:
        with (place / "f").open() as file:
            argv = ["python3", "-c", WRITE_A_FILE]
            holder = subprocess.Popen(argv, stdin=file, stdout=writing, user=user, cwd="/")
        os.close(writing)
        eventually(lambda: "request_wait" in Path(f"/proc/{holder.pid}/wchan").read_text())
        own = Pipes(select.epoll(), lambda: True)
        own.follow(pipe)
        assert own.read(pipe, 100) == b"x"
        assert pipe in own.freed
        assert files.wait(20) == holder.wait(20) == -signal.SIGKILL
    finally:
        for process in filter(None, (files, holder)):
            process.kill()
            process.wait()
        ctypes.CDLL(None).umount2(os.fsencode(place), 2)


@pytest.fixture
def watched() -> Iterator[Pipes]:
    """Pipes that nothing but the test looks at."""
    with select.epoll() as epoll:
        yield Pipes(epoll, lambda: False)


def test_who_has_another_pipe_of_the_same_number_by_now_is_not_ended(watched: Pipes) -> None:
    reading, writing = os.pipe()
    holder = subprocess.Popen(["sleep", "1000"], stdout=writing)
    try:
        over = pipes._Step(reading, 0, 0.0)  # a read that has come back
        watched._free(over)
        assert holder.poll() is None
        assert watched.freed == set()
        watched._step = over
        watched._free(over)
        assert holder.wait(20) == -signal.SIGKILL
        assert watched.freed == {reading}
    finally:
        holder.kill()
        holder.wait()
        os.close(reading)
        os.close(writing)


def test_what_holds_for_a_moment_now_and_then_is_not_ended(
    watched: Pipes, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, freed = [pipes.now()], list[int]()
    monkeypatch.setattr(pipes, "now", lambda: clock[0])
    monkeypatch.setattr(watched, "_free", lambda step: freed.append(step.pipe))
    for pause, ends in ((10.0, False), (1.0, True)):
        for _ in range(100):
            watched._step = pipes._Step(7, 0, clock[0])
            clock[0] += pause
            watched._look()
        assert bool(freed) is ends
