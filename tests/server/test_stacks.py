"""Several servers of one user, `banyan down`, and hangups: which one is found, and which ends."""

import fcntl
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from banyan import stacks
from banyan.errors import EXIT_UNAVAILABLE, EXIT_USAGE, BanyanError
from banyan.server.directory import DirectoryLock
from tests.harness import Processes, Server, Started, marked_processes, start_server
from tests.harness.mongo import database

Start = Callable[[str], Server]


@pytest.fixture
def start(processes: Processes, tmp_path: Path, mongo: str) -> Iterator[Start]:
    """`start("name")`: a server on a data directory of that name, with a database of its own."""
    with ExitStack() as ends:

        def begin(name: str) -> Server:
            return start_server(processes, tmp_path / name, ends.enter_context(database(mongo)))

        yield begin
        processes.end()


def call(processes: Processes, *words: str, code: int = 0) -> Started:
    done = processes.banyan(*words)
    assert done.wait(30) == code, (done.stdout, done.stderr)
    return done


def tasks_found(processes: Processes) -> str:
    return call(processes, "ls", "-q").stdout.strip()


def test_the_one_that_goes_on_is_found_when_the_newer_one_has_ended(
    start: Start, processes: Processes
) -> None:
    start("first")
    id = call(processes, "submit", "-q", "true").stdout.strip()
    newer = start("newer")
    assert tasks_found(processes) == ""
    assert call(processes, "ls", "-q", "--profile", "local-2").stdout.strip() == id
    assert newer.started.terminate() == 0
    assert tasks_found(processes) == id
    call(processes, "ls", "--profile", "local-2", code=EXIT_USAGE)


def test_an_older_one_that_ends_takes_nothing_away(start: Start, processes: Processes) -> None:
    older = start("older")
    start("newer")
    id = call(processes, "submit", "-q", "true").stdout.strip()
    assert older.started.terminate() == 0
    start("newest").started.terminate()
    assert tasks_found(processes) == id


def test_one_that_was_killed_is_told_with_those_that_run(
    start: Start, processes: Processes, tmp_path: Path
) -> None:
    first = start("first")
    start("newer").started.kill()
    told = call(processes, "ls", code=EXIT_UNAVAILABLE).stderr
    assert f"that of {tmp_path / 'newer'} (profile local) has ended; start it with" in told
    assert f"--profile local-2 ({first.url})" in told
    (tmp_path / "newer").rename(tmp_path / "gone")
    told = call(processes, "ls", code=5).stderr
    assert f"--profile local-2 ({first.url})" in told


def test_down_ends_it_and_says_so(start: Start, processes: Processes, tmp_path: Path) -> None:
    server = start("data")
    told = call(processes, "down").stdout
    assert told == f"{tmp_path / 'data'}: ended, it was process {server.started.pid}\n"
    assert server.started.wait() == 0
    assert call(processes, "down").stdout == f"{tmp_path / 'data'}: nothing runs\n"
    again = start("data")
    answer = json.loads(call(processes, "down", "--json", "--data", "data").stdout)
    assert answer == {
        "data": str(tmp_path / "data"), "process": again.started.pid, "ended": True
    }  # fmt: skip
    assert call(processes, "down", "--data", str(tmp_path / "none"), code=EXIT_USAGE)


def test_down_gives_up_waiting_in_time(start: Start, processes: Processes) -> None:
    server = start("data")
    server.started.signal(signal.SIGSTOP)
    told = call(processes, "down", "--timeout", "100ms", code=EXIT_UNAVAILABLE).stderr
    assert f"process {server.started.pid} has not ended" in told
    server.started.signal(signal.SIGCONT)
    assert server.started.wait(20) == 0


def test_down_ends_nobody_who_does_not_hold_the_lock(processes: Processes, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir(mode=0o700)
    innocent = processes.start(["sleep", "600"])
    (data / "lock").write_text(f"{innocent.pid}\n")
    assert "nothing runs" in call(processes, "down", "--data", str(data)).stdout
    with (data / "lock").open() as lock:  # held by us, in another's name
        fcntl.flock(lock, fcntl.LOCK_EX)
        told = call(processes, "down", "--data", str(data), code=EXIT_USAGE).stderr
    assert "does not hold" in told
    assert innocent.process.poll() is None


@pytest.mark.parametrize("text", [b"", b"\xff\xfe", b"none", b"-1", b"0", b"1 2", b"9" * 20])
def test_a_lock_that_names_no_process_is_told(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "lock"
    path.write_bytes(text)
    with path.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert stacks.runs(tmp_path)
        with pytest.raises(BanyanError, match=f"names no process: find it with 'fuser {path}'"):
            stacks.supervisor(tmp_path)
        lock = DirectoryLock(tmp_path)
        with pytest.raises(BanyanError, match="is served by process unknown"), lock:
            pass
    assert not stacks.runs(tmp_path)
    assert stacks.supervisor(tmp_path) is None


def test_no_pipe_in_the_place_of_a_lock_is_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "lock")
    assert not stacks.runs(tmp_path)


def test_down_believes_no_lock_that_others_could_have_written(
    start: Start, processes: Processes, tmp_path: Path
) -> None:
    server = start("data")
    (tmp_path / "data").chmod(0o777)
    told = call(processes, "down", code=EXIT_USAGE).stderr
    assert "may be written by everybody" in told
    assert server.started.process.poll() is None


def ignored(pid: int, number: signal.Signals) -> bool:
    """Whether the process leaves this signal alone, as the kernel has it."""
    status = Path(f"/proc/{pid}/status").read_text().splitlines()
    (mask,) = (line.split()[1] for line in status if line.startswith("SigIgn:"))
    return bool(int(mask, 16) >> (number - 1) & 1)


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT])
def test_what_was_ignored_from_the_start_stays_so(
    processes: Processes, tmp_path: Path, mongo: str, number: signal.Signals
) -> None:
    """As `nohup banyan up` has it, and `banyan up &` in a script."""
    wrapped = ["env", f"--ignore-signal={number.name.removeprefix('SIG')}", sys.executable]
    words = ["-m", "banyan", "up", "--json", "--port", "0", "--data", str(tmp_path / "data")]
    with database(mongo) as uri:
        started = processes.start([*wrapped, *words], {"BANYAN_MONGO_URI": uri})
        started.line(60)
        (worker,) = (
            pid
            for pid, command in marked_processes(processes.mark).items()
            if "banyan worker" in command and "last_will" not in command
        )
        assert ignored(started.pid, number)
        assert ignored(worker, number)
        assert not ignored(started.pid, signal.SIGTERM)
        assert started.terminate() == 0


def test_a_hangup_that_is_not_ignored_ends_it(start: Start) -> None:
    server = start("data")
    server.started.signal(signal.SIGHUP)
    assert server.started.wait(20) == 0
