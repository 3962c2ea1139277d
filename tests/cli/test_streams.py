"""The standard streams by themselves: ones that never wait, and work that ends with its reader."""

import os
import subprocess
import sys
import threading

import pytest

from banyan.cli.streams import while_read, write_all
from banyan.errors import BanyanError
from tests.harness.processes import ROOT


def test_a_descriptor_that_never_waits_gets_every_byte() -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)  # whoever shares the terminal may do so at any time
    found: list[bytes] = []

    def read() -> None:
        with os.fdopen(reader, "rb") as file:
            found.append(file.read())

    reading = threading.Thread(target=read)
    reading.start()
    write_all(writer, bytes(1 << 20))
    os.close(writer)
    reading.join()
    assert found == [bytes(1 << 20)]


def test_a_descriptor_that_cannot_be_written_is_told() -> None:
    with open("/dev/full", "wb", buffering=0) as full, pytest.raises(BanyanError) as told:
        write_all(full.fileno(), b"a")
    assert told.value.word == "output"
    assert "No space left on device" in told.value.message


def test_works_end_together_or_with_the_first_trouble() -> None:
    done: list[str] = []
    while_read(lambda: done.append("a"), lambda: done.append("b"))
    assert sorted(done) == ["a", "b"]

    def fail() -> None:
        raise KeyError("here")

    for other in (lambda: threading.Event().wait(), lambda: None):
        with pytest.raises(KeyError, match="here"):
            while_read(other, fail)


def test_a_long_wait_ends_with_the_reader() -> None:
    program = (
        "import sys, threading; from banyan.cli.streams import while_read;"
        "print('begun', flush=True);"
        "sys.stdout = open('/dev/null', 'w');"
        "while_read(lambda: threading.Event().wait())"
    )
    going = subprocess.Popen(
        [sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert going.stdout is not None
    assert going.stdout.readline() == b"begun\n"
    assert going.poll() is None
    going.stdout.close()
    assert going.stderr is not None
    assert b"BrokenPipeError" in going.stderr.read()
    going.stderr.close()
    assert going.wait(10) == 1
