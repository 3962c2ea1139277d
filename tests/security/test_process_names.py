"""A task may give its processes any name; no name changes what is read of a process."""

import subprocess
import sys
from collections.abc import Iterator

import pytest

from banyan.worker import memory
from tests.worker.launched import Launched
from tests.worker.test_launcher_memory import limits

MIB = 1 << 20
PR_SET_NAME = 15
# The kernel takes 15 bytes. These look like the lines of /proc/PID/status that are wanted.
NAMES = ["VmSize: x y", "VmSize: 1 kB", "\nVmSize: 1 kB\n", "\rVmSize: 1 kB", ") Z 1 1"]
NAMED = """
import ctypes, os, sys, time
assert ctypes.CDLL(None).prctl({option}, os.fsencode(sys.argv[1])) == 0
os.write(1, b"named")
x = bytearray({size} << 20)
os.write(1, b"full")
time.sleep(1000)
"""


def named(name: str, size: int) -> list[str]:
    """A program of that name that holds so many MiB."""
    return [sys.executable, "-c", NAMED.format(option=PR_SET_NAME, size=size), name]


@pytest.fixture(params=NAMES, ids=repr)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def process(name: str) -> Iterator[int]:
    """The number of one that holds 40 MiB under that name."""
    with subprocess.Popen(named(name, 40), stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout
            assert process.stdout.read(9) == b"namedfull"
            yield process.pid
        finally:
            process.kill()


def test_its_memory_is_read_whatever_its_name(process: int) -> None:
    held, anonymous = memory.largest_bytes([process])
    assert 40 * MIB <= anonymous <= held == memory.held_bytes([process])
    assert held <= memory.resident_bytes([process]) <= memory.virtual_bytes([process])
    assert memory.cpu_seconds([process]) < 1000


def test_no_name_hides_memory_or_ends_the_launcher(launcher: Launched, name: str) -> None:
    other = launcher.shell("exec sleep 1000", limits=limits("watch", 64))
    attempt = launcher.start(named(name, 120), limits=limits("watch", 64))
    ended = launcher.ended(attempt)
    assert (ended["why"], ended["signal"]) == ("oom", 9)
    launcher.stop(other)
    assert launcher.ended(other)["why"] == "cancelled"
