"""What happens to the output of a task on its way into the spool."""

import ctypes
import hashlib
import os
import re
import resource
from pathlib import Path

import pytest

from banyan.worker.launcher import OUTPUT
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


def test_of_output_beyond_the_bound_the_beginning_and_the_end_are_kept(launcher: Launched):
    bound = 20_000
    script = "echo first; yes | head -c 1000000; echo last; echo why >&2"
    ended, output = launcher.run(script, log_bytes_max=bound)
    assert ended["code"] == 0, "a task that says much is not stopped"
    assert 0.9 * bound < len(output) <= bound
    begin, gap, end = re.split(rb"\n(\[banyan: .*\])\n", output)
    assert begin.startswith(b"first\ny\ny\n")
    assert end.endswith(b"y\ny\nlast\nwhy\n")
    assert len(begin) == pytest.approx(len(end), abs=bound // 10)
    found = re.search(rb"([0-9,]+) bytes of stdout are left out here", gap)
    assert found, gap
    assert len(begin) + len(end) + int(found[1].replace(b",", b"")) == 1_000_015


def test_a_stream_that_says_little_is_kept_whole_beside_one_that_says_much(launcher: Launched):
    chatter = "yes | head -c 100000"
    script = f"{chatter}; echo one >&2; {chatter}; echo two >&2; {chatter}"
    attempt = launcher.shell(script, log_bytes_max=20_000)
    launcher.ended(attempt)
    said = b"".join(data for stream, data in launcher.frames(attempt) if stream == "stderr")
    assert said == b"one\ntwo\n"


def test_each_stream_says_how_much_of_it_is_left_out(launcher: Launched):
    script = "yes | head -c 100000; (yes n | head -c 200000) >&2; yes | head -c 100000"
    attempt = launcher.shell(script, log_bytes_max=20_000)
    launcher.ended(attempt)
    for wanted, size in (("stdout", 200_000), ("stderr", 200_000)):
        said = b"".join(data for stream, data in launcher.frames(attempt) if stream == wanted)
        line, number = re.findall(
            rf"(\n\[banyan: .* ([0-9,]+) bytes of {wanted} are left out here\]\n)".encode(), said
        )[0]
        assert len(said) - len(line) + int(number.replace(b",", b"")) == size


def test_who_follows_hears_at_once_that_something_is_left_out(launcher: Launched, tmp_path: Path):
    go = tmp_path / "go"
    os.mkfifo(go)
    attempt = launcher.shell(f"yes | head -c 100000; read x < {go}", log_bytes_max=20_000)
    launcher.says(attempt, b"[banyan: the log is full.")
    go.write_text("on\n")
    launcher.ended(attempt)
    assert launcher.output(attempt).count(b"[banyan: ") == 1


def test_output_that_just_fits_has_nothing_added(launcher: Launched):
    _, output = launcher.run("yes | head -c 19000", log_bytes_max=20_000)
    assert output == b"y\n" * 9500


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


def test_what_a_cleaner_takes_while_the_task_runs_is_there_again(
    launcher: Launched, tmp_path: Path
):
    first, second = tmp_path / "first", tmp_path / "second"
    for fifo in (first, second):
        os.mkfifo(fifo)
    script = f"head -c 100000 /dev/zero; read x < {first}; echo more; read x < {second}; echo last"
    attempt = launcher.shell(script)
    launcher.says(attempt, b"\0" * 100_000)
    launcher.spool(attempt).unlink()
    launcher.spool(attempt).parent.rmdir()
    first.write_text("on\n")
    told = launcher.until("output", attempt, having=lambda told: "put_back" in told)
    assert launcher.output(attempt) == b"\0" * 100_000 + b"more\n"
    launcher.spool(attempt).rename(tmp_path / "away")
    second.write_text("on\n")
    ended = launcher.ended(attempt)
    assert launcher.output(attempt) == b"\0" * 100_000 + b"more\nlast\n"
    assert told["size"] < ended["size"] == launcher.spool(attempt).stat().st_size


def test_a_later_task_has_its_output_though_a_cleaner_took_the_directory(launcher: Launched):
    (launcher.state_directory / OUTPUT).rmdir()
    ended, output = launcher.run("head -c 200000 /dev/zero")
    assert (ended.get("reason"), output) == (None, b"\0" * 200_000)
    script = "head -c 200000 /dev/zero; echo last"
    launcher.spool(ended["attempt"]).unlink()
    launcher.spool(ended["attempt"]).parent.rmdir()
    _, output = launcher.run(script, log_bytes_max=150_000)
    assert output.endswith(b"last\n")
