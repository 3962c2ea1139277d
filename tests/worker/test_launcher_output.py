"""What happens to the output of a task on its way into the spool."""

import ctypes
import hashlib
import os
import resource
from pathlib import Path

from tests.worker.launched import Launched


def test_both_streams_are_kept_apart_and_in_order(launcher: Launched, tmp_path: Path):
    # Each word waits for the launcher to have taken the one before: then order is exact.
    first, second = tmp_path / "first", tmp_path / "second"
    for fifo in (first, second):
        os.mkfifo(fifo)
    attempt = launcher.shell(
        f"echo one; read x < {first}; echo two >&2; read x < {second}; echo three"
    )
    for word, fifo in ((b"one\n", first), (b"two\n", second)):
        launcher.says(attempt, word)
        fifo.write_text("on\n")
    launcher.ended(attempt)
    assert launcher.frames(attempt) == [
        ("stdout", b"one\n"),
        ("stderr", b"two\n"),
        ("stdout", b"three\n"),
    ]


def test_bytes_that_are_no_text_are_kept_as_they_are(launcher: Launched):
    script = "import os, sys; sys.stdout.buffer.write(bytes(range(256)) * 3)"
    attempt = launcher.start(["python3", "-c", script])
    launcher.ended(attempt)
    assert launcher.output(attempt) == bytes(range(256)) * 3


def test_small_output_of_a_short_task_comes_with_its_end_and_needs_no_file(launcher: Launched):
    attempt = launcher.shell("echo hello")
    assert launcher.ended(attempt)["inline"]
    assert launcher.output(attempt) == b"hello\n"
    assert not launcher.spool(attempt).exists()


def test_output_can_be_read_while_the_task_runs(launcher: Launched):
    attempt = launcher.shell("echo hello; exec sleep 100")
    launcher.says(attempt, b"hello\n", seconds=5)
    assert not any(message["is"] == "ended" for message in launcher.heard)


def test_much_output_is_kept_whole(launcher: Launched):
    script = "import sys; [sys.stdout.write(f'{n:09}\\n') for n in range(3_000_000)]"
    attempt = launcher.start(["python3", "-c", script], log_bytes_max=1 << 26)
    launcher.ended(attempt, seconds=60)
    expected = hashlib.sha256(b"".join(b"%09d\n" % n for n in range(3_000_000))).hexdigest()
    assert hashlib.sha256(launcher.output(attempt)).hexdigest() == expected


def of_stream(launcher: Launched, attempt: str, name: str) -> bytes:
    launcher.ended(attempt)
    return b"".join(data for stream, data in launcher.frames(attempt) if stream == name)


def test_an_answer_goes_by_a_pipe_of_its_own(launcher: Launched):
    script = 'set -- $ANSWER; echo out; echo "$2 bytes" >&"$1"'
    attempt = launcher.start(["bash", "-c", script], answer=("ANSWER", 100))
    assert of_stream(launcher, attempt, "answer") == b"100 bytes\n"
    assert of_stream(launcher, attempt, "stdout") == b"out\n"
    other = launcher.shell("ls /proc/self/fd | wc -l; echo $ANSWER")
    assert of_stream(launcher, other, "stdout") == b"4\n\n"  # of which one is that of `ls`


def test_an_answer_has_its_own_room(launcher: Launched):
    script = "set -- $ANSWER; head -c 3000000 /dev/zero; head -c 150 /dev/zero >/proc/self/fd/$1"
    attempt = launcher.shell(script, answer=("ANSWER", 100))
    assert len(of_stream(launcher, attempt, "answer")) == 100
    assert 1 << 19 < len(of_stream(launcher, attempt, "stdout")) < 1 << 20


def test_what_lies_in_a_large_pipe_when_the_task_ends_is_kept(launcher: Launched):
    script = "import fcntl, os; fcntl.fcntl(1, 1031, 1 << 20); os.write(1, b'x' * 1_000_000)"
    attempt = launcher.start(["python3", "-c", script])  # 1031 is F_SETPIPE_SZ
    launcher.ended(attempt)
    assert launcher.output(attempt) == b"x" * 1_000_000


def test_output_beyond_the_bound_is_dropped_and_the_bound_stated(launcher: Launched):
    bound = 10_000
    ended, output = launcher.run("yes | head -c 1000000; echo last >&2", log_bytes_max=bound)
    assert ended["code"] == 0, "a task that says much is not stopped"
    assert len(output) == bound
    assert output.endswith(b"[banyan: output is kept up to 10000 bytes; the rest is not]\n")
    assert output.startswith(b"y\n" * 1000)


def test_output_of_exactly_the_bound_less_the_statement_is_kept_without_it(launcher: Launched):
    _, output = launcher.run("printf %0500d 0", log_bytes_max=10_000)
    assert output == b"0" * 500


def test_a_gigabyte_on_one_line_neither_fills_the_disk_nor_the_memory(launcher: Launched):
    attempt = launcher.shell("head -c 1000000000 /dev/zero", log_bytes_max=1 << 20)
    assert launcher.ended(attempt, seconds=60)["code"] == 0
    assert launcher.spool(attempt).stat().st_size < 1.1 * (1 << 20)
    with open(f"/proc/{launcher.process.pid}/status") as status:
        peak = next(line for line in status if line.startswith("VmHWM"))
    assert int(peak.split()[1]) < 50_000


def test_output_of_background_children_that_outlive_the_leader_is_kept_up_to_its_end(
    launcher: Launched,
):
    ended, output = launcher.run("(echo child; exec sleep 100) & sleep 0.2; echo leader")
    assert (ended["code"], output) == (0, b"child\nleader\n")


def test_forgetting_an_attempt_removes_its_output(launcher: Launched):
    attempt = launcher.shell("head -c 100000 /dev/zero")
    launcher.ended(attempt)
    assert launcher.spool(attempt).exists()
    launcher.say({"do": "forget", "attempts": [attempt]})
    launcher.run("true")
    assert not launcher.spool(attempt).exists()


def test_a_disk_that_takes_no_more_ends_the_log_and_not_the_task(launcher: Launched):
    # A limit on the size of the launcher's files stands for the full disk.
    resource.prlimit(launcher.process.pid, resource.RLIMIT_FSIZE, (50_000, 50_000))
    attempt = launcher.shell("head -c 40000 /dev/zero; sleep 0.3; head -c 40000 /dev/zero; exit 5")
    ended = launcher.ended(attempt)
    assert (ended["code"], ended["reason"]) == (5, "output lost: File too large")
    assert launcher.output(attempt) == b"\0" * 40_000, "whole frames only"


def test_a_pipe_of_which_somebody_has_a_copy_is_not_read_for_another(
    launcher: Launched, tmp_path: Path
):
    """As a process has that is just being started, until its program is there."""
    go = tmp_path / "go"
    os.mkfifo(go)
    first = launcher.shell(f"read x < {go}")
    launcher.until("started", first)
    copies = copies_of_pipes(launcher.process.pid)
    go.write_text("on\n")
    launcher.ended(first)
    silent = launcher.shell(f"read x < {go}")  # its pipes have the numbers of the first one's
    launcher.until("started", silent)
    try:
        assert launcher.run("echo heard")[1] == b"heard\n"
    finally:
        for copy in copies:
            os.close(copy)
        go.write_text("on\n")
    launcher.ended(silent)


def copies_of_pipes(pid: int) -> list[int]:
    """Of all pipes that another process has open."""
    pidfd_getfd = 438  # of every architecture
    system = ctypes.CDLL(None, use_errno=True)
    process = os.pidfd_open(pid)
    files = [file for file in Path(f"/proc/{pid}/fd").iterdir() if "pipe:" in os.readlink(file)]
    copies = [system.syscall(pidfd_getfd, process, int(file.name), 0) for file in files]
    os.close(process)
    assert min(copies) >= 0, os.strerror(ctypes.get_errno())
    return copies
